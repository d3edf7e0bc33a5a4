/* The thread that looks at how busy the volume is, and the gauges that are read off it. */
#include "fs/core/alerts.h"
#include "fs/core/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

/* Operations on STORE, and waiting for one's turn. */
static const enum metric io_metric[] = {METRIC_IO_WAIT, METRIC_APPEND_SECONDS, METRIC_SYNC_SECONDS,
                                        METRIC_FETCH_SECONDS, METRIC_INDEX_SYNC_SECONDS};
#define IO_METRICS (sizeof(io_metric) / sizeof(io_metric[0]))

static const enum metric cpu_metric[] = {METRIC_COMPRESS_SECONDS, METRIC_SEAL_SECONDS, METRIC_OPEN_SECONDS,
                                         METRIC_DECOMPRESS_SECONDS};
#define CPU_METRICS (sizeof(cpu_metric) / sizeof(cpu_metric[0]))

/* As of the last look. */
struct look {
	struct effort effort;
	struct metrics_histogram io[IO_METRICS], memory;
};

struct sampler {
	struct core *core;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake; /* CLOCK_MONOTONIC */
	bool stop;
	struct alerts alerts;
	struct look last, now;
};

static uint64_t ns_of(struct timeval t)
{
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_usec * 1000;
}

void effort_look(const struct core *c, struct effort *e)
{
	struct rusage u;

	e->at = core_monotonic(c);
	(void)getrusage(RUSAGE_SELF, &u);
	e->process = ns_of(u.ru_utime) + ns_of(u.ru_stime);
	e->stages = 0;
	for (size_t i = 0; i < CPU_METRICS; i++)
		e->stages += metrics_sum(c->metrics, cpu_metric[i]);
	e->io = metrics_io_busy(c->metrics);
}

static void look(const struct core *c, struct look *l)
{
	effort_look(c, &l->effort);
	for (size_t i = 0; i < IO_METRICS; i++)
		metrics_histogram_get(c->metrics, io_metric[i], &l->io[i]);
	metrics_histogram_get(c->metrics, METRIC_MEMORY_WAIT, &l->memory);
}

static double share(uint64_t part, double whole)
{
	return part < whole ? (double)part / whole : 1;
}

static uint64_t p95_of(const struct metrics_histogram *now, const struct metrics_histogram *last)
{
	struct metrics_histogram d = *now;

	metrics_histogram_since(&d, last);
	return metrics_histogram_percentile(&d, 0.95);
}

/* The processors are as busy as this process keeps them or, where it has to share them with others, as long as codecs
 * and ciphers take of all the time that they could run. */
static struct load load_of(struct sampler *s)
{
	struct core *c = s->core;
	const struct effort *now = &s->now.effort, *last = &s->last.effort;
	double time = (double)(now->at - last->at);
	double process = share(now->process - last->process, time * c->policy.cores);
	double stages = share(now->stages - last->stages, time * governor_cpu_threads(c->governor, c->policy.cores));
	struct load l = {.cpu = process > stages ? process : stages, .io = share(now->io - last->io, time)};

	for (size_t i = 0; i < IO_METRICS; i++) {
		uint64_t p95 = p95_of(&s->now.io[i], &s->last.io[i]);

		l.io_p95 = p95 > l.io_p95 ? p95 : l.io_p95;
	}
	l.wait_p95 = p95_of(&s->now.memory, &s->last.memory);
	l.memory = share(budget_used(&c->budget, BUDGET_DIRTY), (double)c->dirty_limit);
	return l;
}

static void sample(struct sampler *s)
{
	struct core *c = s->core;
	unsigned raised, tell;
	char text[320];

	look(c, &s->now);
	struct load l = load_of(s);
	s->last = s->now;
	metrics_set(c->metrics, METRIC_CPU_SATURATION, (uint64_t)(l.cpu * 1e6));
	metrics_set(c->metrics, METRIC_IO_SATURATION, (uint64_t)(l.io * 1e6));
	metrics_set(c->metrics, METRIC_MEMORY_SATURATION, (uint64_t)(l.memory * 1e6));
	raised = alerts_step(&s->alerts, &l, s->now.effort.at, &tell);
	metrics_add(c->metrics, METRIC_ALERTS, (unsigned)__builtin_popcount(raised));
	for (unsigned i = 0; i < ALERT_COUNT; i++) {
		if (!(tell >> i & 1))
			continue;
		alerts_text((enum alert)i, &l, c->opt.compress, c->opt.priority, text, sizeof(text));
		log_warn("%s", text);
	}
}

static void *sampler_main(void *arg)
{
	struct sampler *s = arg;
	struct timespec until;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	(void)pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		until.tv_sec += s->core->opt.sample_ms / 1000;
		until.tv_nsec += (long)(s->core->opt.sample_ms % 1000) * 1000000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		while (!s->stop && !pthread_cond_timedwait(&s->wake, &s->lock, &until))
			;
		if (s->stop)
			break;
		(void)pthread_mutex_unlock(&s->lock);
		sample(s);
		(void)pthread_mutex_lock(&s->lock);
	}
	(void)pthread_mutex_unlock(&s->lock);
	return NULL;
}

static void sampler_free(struct sampler *s)
{
	(void)pthread_cond_destroy(&s->wake);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}

int sampler_start(struct core *c)
{
	struct sampler *s = calloc(1, sizeof(*s));
	pthread_condattr_t monotonic;
	int ret;

	if (!s)
		return -ENOMEM;
	s->core = c;
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_condattr_init(&monotonic);
	(void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&s->wake, &monotonic);
	(void)pthread_condattr_destroy(&monotonic);
	look(c, &s->last);
	ret = -pthread_create(&s->thread, NULL, sampler_main, s);
	if (ret) {
		sampler_free(s);
		return ret;
	}
	(void)pthread_setname_np(s->thread, "apfs-sampler");
	c->sampler = s;
	return 0;
}

void sampler_stop(struct core *c)
{
	struct sampler *s = c->sampler;

	if (!s)
		return;
	{
		SCOPED_LOCK(&s->lock);
		s->stop = true;
		(void)pthread_cond_signal(&s->wake);
	}
	(void)pthread_join(s->thread, NULL);
	sampler_free(s);
	c->sampler = NULL;
}

struct metrics *core_metrics(struct core *c)
{
	struct metrics *m = c->metrics;
	struct io_space space;

	if (!m)
		return NULL;
	pipeline_gauges(c->pipeline);
	metrics_set(m, METRIC_DIRTY_BYTES, budget_used(&c->budget, BUDGET_DIRTY));
	metrics_set(m, METRIC_CACHE_BYTES, budget_used(&c->budget, BUDGET_CACHE));
	metrics_set(m, METRIC_MEMORY_USED, budget_total(&c->budget));
	metrics_set(m, METRIC_MEMORY_LIMIT, c->budget.limit);
	if (!io_space(c->io, &space))
		metrics_set(m, METRIC_STORE_AVAILABLE, space.avail);
	metrics_set(m, METRIC_UPTIME, core_monotonic(c) - c->opened);
	return m;
}
