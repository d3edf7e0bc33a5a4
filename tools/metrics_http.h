/* Metrics over HTTP, for Prometheus: GET /metrics. Nobody is asked who they are. */
#ifndef APFS_TOOLS_METRICS_HTTP_H
#define APFS_TOOLS_METRICS_HTTP_H

#include "base/err.h"

#include <sys/socket.h>

struct core;
struct metrics_http;

/* "127.0.0.1:9750", "[::1]:9750": a numeric address and a port, not 0. -EINVAL with the reason in *e. */
int metrics_http_parse(const char *text, struct sockaddr_storage *addr, struct err *e) MUST_CHECK;

/* Listens, and answers in a thread of its own. core: borrowed. */
int metrics_http_new(struct core *core, const struct sockaddr_storage *addr, struct metrics_http **out,
                     struct err *e) MUST_CHECK;
void metrics_http_free(struct metrics_http *h); /* NULL is allowed */

#endif
