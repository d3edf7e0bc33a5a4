/* Stores to tamper with: simulated, with content of every kind, and the states that they went through. */
#ifndef APFS_TESTS_TAMPER_BED_H
#define APFS_TESTS_TAMPER_BED_H

#include "pipeline/keys.h"
#include "tests/sim/sim.h"
#include "tests/tamper/facts.h"

#define BED_STATES 4

struct bed_record {
	char segment[64];
	uint64_t offset;
	uint32_t len;
};

struct bed {
	struct io *old;   /* cleanly unmounted before some of the changes: parts of it are genuine, and old */
	struct io *clean; /* cleanly unmounted: in state 1 */
	struct io *crash; /* as a power cut left it, with a WAL: in state 3 */
	struct io *other; /* another store, of the same passphrase */
	struct facts state[BED_STATES];
	struct bed_record *record; /* of clean */
	size_t nrecords;
	char **path; /* files of clean and crash, but for README, lock and the reserve */
	size_t npaths;
};

extern const struct secret bed_secret;

void bed_init(struct bed *b, uint64_t seed);
void bed_release(struct bed *b);
/* Opens a volume on a store; whatever it is that fails. */
int bed_open(struct io *io, bool read_only, struct core **out) MUST_CHECK;

uint64_t bed_random(uint64_t *state);
static inline uint64_t bed_below(uint64_t *state, uint64_t n)
{
	return n ? bed_random(state) % n : 0;
}

#endif
