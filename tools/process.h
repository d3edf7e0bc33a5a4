/* What a process that holds keys does first. */
#ifndef APFS_TOOLS_PROCESS_H
#define APFS_TOOLS_PROCESS_H

/* No core dumps, no tracing by others of the same user. */
void process_harden(void);

/* For the process that serves a mount: memory that was used once is kept, many files may be open, and the kernel knows
 * that we write back its pages. Before threads start. */
void process_tune(void);

/* SIGTERM, SIGINT and SIGHUP wait for session_serve; SIGPIPE is ignored. Before threads start. */
void process_block_signals(void);

#endif
