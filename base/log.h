/*
 * The log: one clear line a message, to standard error, syslog/journal or a file. Plaintext names appear at
 * LOG_DEBUG only. All functions may be called from any thread.
 */
#ifndef APFS_BASE_LOG_H
#define APFS_BASE_LOG_H

#include "base/err.h"

enum log_level { LOG_L_ERROR = 0, LOG_L_WARN, LOG_L_INFO, LOG_L_DEBUG };
enum log_target { LOG_T_STDERR = 0, LOG_T_SYSLOG, LOG_T_FILE };

/* Chooses target and level. path is the file of LOG_T_FILE (appended to, created 0600), ignored otherwise.
 * Returns 0 or -errno (the target stays as it was). Call before threads start. */
int log_init(enum log_target target, const char *path, enum log_level max) MUST_CHECK;
void log_release(void);

#define log_error(...) log_line(LOG_L_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_L_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_L_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_L_DEBUG, __VA_ARGS__)
void log_line(enum log_level level, const char *fmt, ...) PRINTF(2, 3);

#endif
