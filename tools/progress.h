/* A progress bar on standard error: rate, share and time left. Draws nothing where that is not a terminal. */
#ifndef APFS_TOOLS_PROGRESS_H
#define APFS_TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	const char *what; /* shown first; set it anew when another step begins */
	bool bytes;       /* done and total are bytes, shown with a rate; otherwise only their ratio means anything */
	bool shown;       /* standard error is a terminal */
	bool drawn;       /* a bar stands there now */
	uint64_t began, drawn_at, drawn_done; /* ns; bytes at the last drawing */
	double rate;                          /* units a second, smoothed; 0 until known */
};

/* what is borrowed. */
void progress_begin(struct progress *p, const char *what, bool bytes);
/* Redraws, at most five times a second. Not from several threads at once. total 0: not known, then only done shows. */
void progress_update(struct progress *p, uint64_t done, uint64_t total);
/* Takes the bar away, so that other text can be printed; the next update draws it again. */
void progress_clear(struct progress *p);

#endif
