#include "tools/metrics_http.h"
#include "fs/core/core.h"
#include "tools/metrics_text.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECTIONS 32u
#define PER_ADDRESS 8u  /* of them: one alone does not take all */
#define PATIENCE    10u /* seconds for the other side to go on */

#define BAD_PLACE "'%s' is not an address and a port from 1 to 65535, such as 127.0.0.1:9750"

struct metrics_http {
	struct MHD_Daemon *daemon;
	struct core *core;
};

int metrics_http_parse(const char *text, struct sockaddr_storage *addr, struct err *e)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
	const char *given = text, *colon = strrchr(text, ':');
	struct addrinfo *found = NULL;
	char host[64];
	size_t len = colon ? (size_t)(colon - text) : 0;

	if (len > 2 && *text == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
	}
	unsigned long port = colon ? strtoul(colon + 1, NULL, 10) : 0;
	/* getaddrinfo takes the lower 16 bits of any number; 0, or nothing, would be a port that nobody knows. */
	if (!len || len >= sizeof(host) || !port || port > UINT16_MAX)
		return err_set(e, -EINVAL, ERR_USAGE, BAD_PLACE, given);
	(void)snprintf(host, sizeof(host), "%.*s", (int)len, text);
	if (getaddrinfo(host, colon + 1, &hints, &found))
		return err_set(e, -EINVAL, ERR_USAGE, BAD_PLACE, given);
	memset(addr, 0, sizeof(*addr));
	memcpy(addr, found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);
	return 0;
}

static enum MHD_Result reply(struct MHD_Connection *connection, unsigned status, char *text, size_t len)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);

	if (!r) {
		free(text);
		return MHD_NO;
	}
	(void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
	enum MHD_Result ret = MHD_queue_response(connection, status, r);
	MHD_destroy_response(r);
	return ret;
}

static enum MHD_Result handle(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
                              const char *version, const char *body, size_t *body_len, void **state)
{
	const struct metrics_http *h = arg;
	unsigned status = MHD_HTTP_OK;
	char *text = NULL;
	size_t len = 0;

	(void)version, (void)body, (void)state;
	if (*body_len) /* nothing is asked with one: it is dropped */
		*body_len = 0;
	FILE *f = open_memstream(&text, &len);
	if (!f)
		return MHD_NO;
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
		status = MHD_HTTP_METHOD_NOT_ALLOWED;
		(void)fprintf(f, "GET /metrics is all there is\n");
	} else if (strcmp(url, "/metrics") != 0) {
		status = MHD_HTTP_NOT_FOUND;
		(void)fprintf(f, "/metrics is all there is\n");
	} else {
		metrics_print_prometheus(core_metrics(h->core), f);
	}
	if (fclose(f)) {
		free(text);
		return MHD_NO;
	}
	return reply(connection, status, text, len);
}

int metrics_http_new(struct core *core, const struct sockaddr_storage *addr, struct metrics_http **out, struct err *e)
{
	unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | (addr->ss_family == AF_INET6 ? MHD_USE_IPv6 : 0u);
	struct metrics_http *h = calloc(1, sizeof(*h));

	if (!h)
		return err_set(e, -ENOMEM, ERR_MEMORY, "out of memory");
	h->core = core;
	errno = 0;
	h->daemon = MHD_start_daemon(flags, 0, NULL, NULL, handle, h, MHD_OPTION_SOCK_ADDR, addr,
	                             MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
	                             PER_ADDRESS, MHD_OPTION_CONNECTION_TIMEOUT, PATIENCE, MHD_OPTION_END);
	if (!h->daemon) {
		int code = errno ? errno : EIO;

		free(h);
		return err_set(e, -code, ERR_IO, "%s", strerror(code));
	}
	*out = h;
	return 0;
}

void metrics_http_free(struct metrics_http *h)
{
	if (!h)
		return;
	MHD_stop_daemon(h->daemon);
	free(h);
}
