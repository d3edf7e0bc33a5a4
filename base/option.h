/* Parsing and printing the values of options. */
#ifndef APFS_BASE_OPTION_H
#define APFS_BASE_OPTION_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

/* "4096", "64K", "4.5M", "1GiB", "2gb": bytes, powers of 1024, fractions allowed. -EINVAL or -ERANGE otherwise. */
int option_parse_size(const char *text, uint64_t *bytes) MUST_CHECK;
/* "5", "5s", "250ms", "10m", "1h": milliseconds. -EINVAL or -ERANGE otherwise. */
int option_parse_duration(const char *text, uint64_t *ms) MUST_CHECK;
/* "512B", "64.0KB", "4.0MB" (powers of 1024): into buf, which is returned. */
const char *option_format_size(uint64_t bytes, char *buf, size_t len);

#endif
