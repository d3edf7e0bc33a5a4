/* Feedback: samples of what the metrics count move what the policies begin with. Whoever seals something takes them, so
 * that there is no thread, and nothing to do while nothing is written. */
#include "fs/core/volume.h"

#include "pipeline/controller.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define SHOWN 8u /* decisions that are told */

struct adapt {
	atomic_uint_fast64_t next; /* when the next sample is due, monotonic ns */
	pthread_mutex_t lock;      /* all below */
	struct controller controller;
	struct effort last;
	uint64_t bytes; /* plaintext sealed as of then */
};

static unsigned mille(uint64_t part, uint64_t whole)
{
	return part >= whole ? 1000 : (unsigned)((double)part * 1000 / (double)whole);
}

/* The CPU is scarce where this process gets less of it than its codecs and ciphers alone could use: they would run all
 * the time that they take, on as many processors as there are for them. */
static unsigned scarcity(const struct core *c, const struct controller_sample *s, uint64_t process)
{
	uint64_t could = s->ns * governor_cpu_threads(c->governor, c->policy.cores);

	return 1000 - mille(process, could < s->cpu_ns ? could : s->cpu_ns);
}

static struct controller_sample sample(struct core *c, struct adapt *a)
{
	const struct effort was = a->last;
	uint64_t bytes = metrics_value(c->metrics, METRIC_CHUNK_PLAIN_BYTES);

	effort_look(c, &a->last);
	struct controller_sample s = {
	    .at = a->last.at,
	    .ns = a->last.at - was.at,
	    .bytes = bytes - a->bytes,
	    .cpu_ns = a->last.stages - was.stages,
	    .queued = budget_used(&c->budget, BUDGET_DIRTY),
	};
	s.memory = mille(s.queued, c->dirty_limit);
	s.io = mille(a->last.io - was.io, s.ns);
	s.scarce = scarcity(c, &s, a->last.process - was.process);
	a->bytes = bytes;
	return s;
}

/* Under the lock. */
static void hold_to(struct core *c, const struct controller_state *st)
{
	atomic_store(&c->level, st->level);
	atomic_store(&c->shrink, st->shrink);
	pipeline_workers_set(c->pipeline, st->workers);
	metrics_set(c->metrics, METRIC_FEEDBACK_LEVEL, (uint64_t)(int64_t)st->level);
	metrics_set(c->metrics, METRIC_FEEDBACK_SHRINK, st->shrink);
	metrics_set(c->metrics, METRIC_FEEDBACK_WORKERS, st->workers);
}

void adapt_tick(struct core *c)
{
	struct adapt *a = c->adapt;
	uint64_t now = a ? core_monotonic(c) : 0;

	if (!a || now < atomic_load(&a->next) || pthread_mutex_trylock(&a->lock))
		return;
	if (now >= atomic_load(&a->next)) { /* nobody else was quicker */
		struct controller_sample s = sample(c, a);

		atomic_store(&a->next, s.at + CONTROLLER_INTERVAL);
		if (controller_step(&a->controller, &s)) {
			metrics_add(c->metrics, METRIC_FEEDBACK_DECISIONS, 1);
			hold_to(c, &a->controller.state);
		}
	}
	(void)pthread_mutex_unlock(&a->lock);
}

int adapt_new(struct core *c)
{
	struct adapt *a = calloc(1, sizeof(*a));
	unsigned workers = pipeline_workers(c->pipeline);
	const struct controller_limits limits = {
	    .lowest = policy_level_lowest(c->opt.compress, c->opt.priority),
	    .highest = policy_level_highest(c->opt.compress, c->opt.priority),
	    .shrink = c->opt.chunk_size ? 0 : POLICY_SHRINK_MAX,
	    .least = c->opt.workers ? workers : 1,
	    .workers = workers,
	    .tokens = governor_cpu_threads(c->governor, c->policy.cores),
	};

	if (!a)
		return -ENOMEM;
	(void)pthread_mutex_init(&a->lock, NULL);
	controller_init(&a->controller, &limits);
	effort_look(c, &a->last);
	atomic_init(&a->next, a->last.at + CONTROLLER_INTERVAL);
	c->adapt = a;
	hold_to(c, &a->controller.state);
	return 0;
}

void adapt_free(struct core *c)
{
	if (!c->adapt)
		return;
	(void)pthread_mutex_destroy(&c->adapt->lock);
	free(c->adapt);
}

static void print_state(FILE *f, const struct controller_state *st)
{
	(void)fprintf(f, "level %+d, large chunks 1/%u, %u workers", st->level, 1u << st->shrink, st->workers);
}

void adapt_print(struct core *c, FILE *f, bool decisions)
{
	struct adapt *a = c->adapt;

	(void)fprintf(f, "%-16s ", "feedback:");
	if (!a) {
		(void)fprintf(f, "off\n");
		return;
	}
	SCOPED_LOCK(&a->lock);
	uint64_t n = a->controller.decisions, shown = n < SHOWN ? n : SHOWN, now = core_monotonic(c);

	print_state(f, &a->controller.state);
	(void)fprintf(f, "; moved %" PRIu64 " times\n", n);
	for (uint64_t i = n - (decisions ? shown : 0); i < n; i++) {
		const struct controller_decision *d = &a->controller.ring[i % CONTROLLER_RING];

		(void)fprintf(f, "  %6" PRIu64 " s ago   ", (now - d->at) / 1000000000);
		print_state(f, &d->state);
		(void)fprintf(f, ": %s\n", controller_reason_text(d->reason));
	}
}
