/* A volume on a simulated STORE whose size a test chooses and changes, and files of known content. */
#ifndef APFS_TESTS_CORE_SPACE_RIG_H
#define APFS_TESTS_CORE_SPACE_RIG_H

#include "tests/core/support.h"
#include "tests/sim/sim.h"

#define KIB    1024u
#define MIB    ((uint64_t)1 << 20)
#define DISK   (64 * MIB)
#define BLOCK  (16 * KIB)
#define BLOCKS 128u /* of a file at most */
#define FILES  64u

/* What a file must hold: block i is version[i] of it; durable[i] is the version that was last synced. */
struct srig_file {
	bool exists, named; /* named: an fsync or sync came since it was made */
	unsigned blocks;    /* its size */
	uint32_t version[BLOCKS], durable[BLOCKS];
};

struct srig {
	struct io *io;
	struct core *core;
	struct srig_file file[FILES];
	uint64_t rng, memory;
	bool compressible;
	bool on_demand; /* no compaction but for want of room, from the next srig_open on */
};

int srig_open(struct srig *r, bool read_only);
void srig_init(struct srig *r, uint64_t disk, uint64_t memory);
void srig_release(struct srig *r);
/* Others use the disk: this much is left. */
void srig_leave(struct srig *r, uint64_t bytes);
/* Whether, and that at most, a result says that space is missing. */
bool srig_full(int ret);
void srig_may_lack(int ret);
/* The name of a file; two are kept. */
char *srig_name(unsigned id);
int srig_create(struct srig *r, const char *name, uint64_t *ino);
uint64_t srig_lookup(struct srig *r, const char *name);
/* Writes new versions of blocks [from, to) of a file, made if need be. */
int srig_write(struct srig *r, unsigned id, unsigned from, unsigned to);
/* 1 MiB, in every second block: it stays in memory until a cut takes it. */
void srig_scatter(struct srig *r, unsigned id);
int srig_sync_file(struct srig *r, unsigned id);
int srig_sync(struct srig *r);
int srig_erase(struct srig *r, unsigned id);
/* Every file has the versions that it must; after a crash, of blocks that were not synced also any version since. */
void srig_verify(struct srig *r, bool crashed);
/* Verifies what is left, and deletes it. */
void srig_power_cut(struct srig *r, uint64_t seed);
struct core_statfs srig_df(struct srig *r);

#endif
