/* What tests say to the simulated STORE, and ask it. */
#include "tests/sim/disk.h"

#include "base/lock.h"

#include <errno.h>

uint64_t sim_count(struct io *io, unsigned classes)
{
	struct sim *s = sim_of(io);
	uint64_t sum = 0;

	SCOPED_LOCK(&s->lock);
	for (unsigned i = 0; i < SIM_CLASSES; i++)
		sum += classes & 1u << i ? s->count[i] : 0;
	return sum;
}

void sim_record(struct io *io, sim_record_fn fn, void *arg)
{
	struct sim *s = sim_of(io);

	SCOPED_LOCK(&s->lock);
	s->record = fn;
	s->record_arg = arg;
}

static void restart_locked(struct sim *s)
{
	s->fault.nth = 0;
	s->dead = s->locked = false;
	atomic_store(&s->failed, false);
}

void sim_restart(struct io *io)
{
	SCOPED_LOCK(&sim_of(io)->lock);
	restart_locked(sim_of(io));
}

void sim_crash(struct io *io, uint64_t seed)
{
	SCOPED_LOCK(&sim_of(io)->lock);
	disk_crash(&sim_of(io)->disk, seed);
	restart_locked(sim_of(io));
}

void sim_crash_last(struct io *io)
{
	SCOPED_LOCK(&sim_of(io)->lock);
	disk_crash_last(&sim_of(io)->disk);
	restart_locked(sim_of(io));
}

void sim_arm(struct io *io, const struct sim_fault *fault)
{
	struct sim *s = sim_of(io);

	SCOPED_LOCK(&s->lock);
	s->fault = fault ? *fault : (struct sim_fault){0};
	s->dead = false;
	atomic_store(&s->failed, false);
}

void sim_fail(struct io *io, uint64_t nth, int error, bool lasting)
{
	sim_arm(io, &(struct sim_fault){SIM_CHANGE, nth, error, lasting, 50, false});
}

bool sim_failed(const struct io *io)
{
	return atomic_load(&sim_of(io)->failed);
}

static void limit(struct io *io, uint64_t bytes, int error)
{
	SCOPED_LOCK(&sim_of(io)->lock);
	sim_of(io)->limit = bytes;
	sim_of(io)->limit_error = error;
}

void sim_limit(struct io *io, uint64_t bytes)
{
	limit(io, bytes, -ENOSPC);
}

void sim_quota(struct io *io, uint64_t bytes)
{
	limit(io, bytes, -EDQUOT);
}

void sim_no_allocate(struct io *io)
{
	SCOPED_LOCK(&sim_of(io)->lock);
	sim_of(io)->no_allocate = true;
}

uint64_t sim_used(struct io *io)
{
	SCOPED_LOCK(&sim_of(io)->lock);
	return disk_used(&sim_of(io)->disk);
}

const char *sim_names(const struct io *io)
{
	return sim_of(io)->paths ? sim_of(io)->paths : "";
}
