/* One store that is changed, and then judged. */
#ifndef APFS_TESTS_TAMPER_ROUND_H
#define APFS_TESTS_TAMPER_ROUND_H

#include "tests/tamper/bed.h"

/* What may be read besides errors: what is there, an earlier committed state, or any mixture of what once was. */
enum allowed { REAL, STATES, MIXED };

struct round {
	struct bed *b;
	struct io *io;
	uint64_t rng;
	bool crash; /* of the two stores */
	enum allowed allowed;
	char what[256]; /* is done to it */
};

/* Says what was done and why that is wrong, and ends the program. */
void round_fail(const struct round *r, const char *why);

/* Flips a bit of a file. */
void round_flip(struct round *r);
/* Makes a change of some other kind, with some structure. */
void round_change(struct round *r);

#endif
