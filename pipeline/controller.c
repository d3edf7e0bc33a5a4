#include "pipeline/controller.h"

#include <string.h>

#define STREAK     2u                        /* samples that must agree */
#define SETTLE     1u                        /* samples between a move and its judgement */
#define JUDGE      4u                        /* samples by which it is judged: a sample holds few chunks */
#define FREE       4u                        /* samples without scarcity after which a level returns */
#define HOLD_FIRST 20u                       /* samples for which a move that failed is not tried again */
#define HOLD_MAX   640u                      /* doubled up to this */
#define CALM       240u                      /* samples without a decision after which all that is forgotten */
#define RETURN     4u                        /* samples with memory to spare after which chunks grow again */
#define LOAD_MIN   ((uint64_t)1 << 20)       /* bytes a second: below there is nothing to learn */
#define GAP        (8 * CONTROLLER_INTERVAL) /* a sample as long as this is mostly a pause */

/* Per mille. */
#define BUSY        850u
#define NOT_BUSY    750u
#define OFTEN       600u
#define HALF        500u
#define AT_WORK     200u
#define SCARCE      300u
#define NOT_SCARCE  150u
#define MEMORY_HIGH 800u
#define MEMORY_LOW  700u
#define GAIN        1030u /* throughput after a move that is for throughput, against 1000 before */
#define NO_LOSS     970u  /* after one that is not */

enum { SAYS_NOTHING, SAYS_STORAGE, SAYS_CPU, SAYS_SCARCE, SAYS_FREE };

const char *controller_reason_text(enum controller_reason reason)
{
	static const char *const text[CONTROLLER_REASONS] = {
	    [CONTROLLER_STORAGE] = "storage is the bottleneck",  [CONTROLLER_CPU] = "the CPU is the bottleneck",
	    [CONTROLLER_CPU_SCARCE] = "the CPU is scarce",       [CONTROLLER_CPU_FREE] = "the CPU is free again",
	    [CONTROLLER_NO_GAIN] = "the last move did not help", [CONTROLLER_MEMORY] = "memory is short",
	    [CONTROLLER_MEMORY_FREE] = "memory is free again",
	};

	return (unsigned)reason < CONTROLLER_REASONS ? text[reason] : "unknown";
}

void controller_init(struct controller *c, const struct controller_limits *limits)
{
	memset(c, 0, sizeof(*c));
	c->limits = *limits;
	c->state.workers = limits->workers;
	for (int i = 0; i < CONTROLLER_MOVES; i++)
		c->hold[i] = HOLD_FIRST;
}

/* A move that is not tried for a while, next time for twice as long. */
static void hold_back(struct controller *c, enum controller_move m, unsigned part)
{
	unsigned wait = c->hold[m] / part;

	c->wait[m] = c->wait[m] > wait ? c->wait[m] : wait;
	c->hold[m] = c->hold[m] < HOLD_MAX ? 2 * c->hold[m] : HOLD_MAX;
}

static bool decide(struct controller *c, const struct controller_sample *s, enum controller_reason reason)
{
	c->ring[c->decisions++ % CONTROLLER_RING] = (struct controller_decision){s->at, c->state, reason};
	c->settle = SETTLE;
	c->queued = s->queued;
	c->streak = c->high = c->low = 0;
	c->calm = 0;
	c->judging = false;
	c->seen = (struct controller_sample){0};
	c->samples = 0;
	return true;
}

static double rate(const struct controller_sample *s)
{
	return (double)s->bytes * 1e9 / (double)s->ns;
}

static bool may(const struct controller *c, enum controller_move m)
{
	const struct controller_state *st = &c->state;

	if (c->wait[m])
		return false;
	switch (m) {
	case CONTROLLER_LEVEL_UP:
		return st->level < c->limits.highest;
	case CONTROLLER_LEVEL_DOWN:
		return st->level > c->limits.lowest;
	case CONTROLLER_WORKERS_UP:
		return st->workers < c->limits.workers;
	default:
		return st->workers > c->limits.least;
	}
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

static void look_memory(struct controller *c, const struct controller_sample *s)
{
	c->high = s->memory > MEMORY_HIGH ? c->high + 1 : 0;
	c->low = s->memory < MEMORY_LOW ? c->low + 1 : 0;
}

static bool step_memory(struct controller *c, const struct controller_sample *s)
{
	/* Where the CPU is slow, workers are what frees memory. */
	bool fewer = s->io >= BUSY && may(c, CONTROLLER_WORKERS_DOWN), smaller = c->state.shrink < c->limits.shrink;

	if (c->high >= STREAK && (fewer || smaller)) {
		c->state.shrink += smaller;
		c->state.workers -= fewer;
		c->lost += fewer;
		return decide(c, s, CONTROLLER_MEMORY);
	}
	if (c->low >= RETURN && (c->state.shrink || c->lost)) {
		c->state.shrink -= c->state.shrink > 0;
		c->state.workers += c->lost > 0;
		c->lost -= c->lost > 0;
		return decide(c, s, CONTROLLER_MEMORY_FREE);
	}
	return false;
}

/* --- throughput --------------------------------------------------------------------------------------------------- */

static void apply(struct controller *c, enum controller_move move, int sign)
{
	bool up = move == CONTROLLER_LEVEL_UP || move == CONTROLLER_WORKERS_UP;
	int by = up ? sign : -sign;

	if (move == CONTROLLER_LEVEL_UP || move == CONTROLLER_LEVEL_DOWN)
		c->state.level += by;
	else
		c->state.workers += (unsigned)by;
	if (c->state.workers + c->lost > c->limits.workers)
		c->lost--; /* taken back */
}

static const enum controller_move opposite[CONTROLLER_MOVES] = {
    [CONTROLLER_LEVEL_UP] = CONTROLLER_LEVEL_DOWN,
    [CONTROLLER_LEVEL_DOWN] = CONTROLLER_LEVEL_UP,
    [CONTROLLER_WORKERS_UP] = CONTROLLER_WORKERS_DOWN,
    [CONTROLLER_WORKERS_DOWN] = CONTROLLER_WORKERS_UP,
};

static bool move(struct controller *c, const struct controller_sample *s, enum controller_move m,
                 enum controller_reason reason)
{
	c->before = rate(&c->seen);
	apply(c, m, 1);
	hold_back(c, opposite[m], 4);
	c->move = m;
	(void)decide(c, s, reason);
	c->judging = true;
	return true;
}

/* A higher level saves space, fewer workers save work: they need only cost nothing. */
static bool helped(const struct controller *c)
{
	bool gains = c->move == CONTROLLER_LEVEL_DOWN || c->move == CONTROLLER_WORKERS_UP;

	return rate(&c->seen) * 1000 >= c->before * (gains ? GAIN : NO_LOSS);
}

static bool judge(struct controller *c, const struct controller_sample *s)
{
	c->judging = false;
	if (helped(c))
		return false;
	hold_back(c, c->move, 1);
	apply(c, c->move, -1);
	return decide(c, s, CONTROLLER_NO_GAIN);
}

static int says(const struct controller *c, const struct controller_sample *s)
{
	unsigned threads = c->state.workers < c->limits.tokens ? c->state.workers : c->limits.tokens;
	uint64_t cpu = s->cpu_ns * 1000 / (s->ns * (threads ? threads : 1));

	if (s->scarce >= SCARCE && cpu >= AT_WORK && s->io < HALF)
		return SAYS_SCARCE; /* those who bring data have none either, so the pipeline need not be busy */
	if (s->scarce < NOT_SCARCE && c->state.level < 0)
		return SAYS_FREE;
	if ((s->io >= BUSY && cpu <= NOT_BUSY) || (s->io >= OFTEN && s->io >= 2 * cpu)) /* one writer waits for each */
		return SAYS_STORAGE;
	return cpu >= BUSY && s->io < BUSY ? SAYS_CPU : SAYS_NOTHING;
}

static bool attempt(struct controller *c, const struct controller_sample *s, enum controller_move m,
                    enum controller_reason reason)
{
	return may(c, m) && move(c, s, m, reason);
}

/* Not judged: what others leave of the CPU varies too much. */
static bool level_step(struct controller *c, const struct controller_sample *s, int by, enum controller_reason reason)
{
	c->state.level += by;
	return decide(c, s, reason);
}

static bool act(struct controller *c, const struct controller_sample *s, int what)
{
	switch (what) {
	case SAYS_STORAGE:
		return attempt(c, s, CONTROLLER_LEVEL_UP, CONTROLLER_STORAGE) ||
		       attempt(c, s, CONTROLLER_WORKERS_DOWN, CONTROLLER_STORAGE);
	case SAYS_CPU:
		return attempt(c, s, CONTROLLER_WORKERS_UP, CONTROLLER_CPU) ||
		       (c->state.level > 0 && attempt(c, s, CONTROLLER_LEVEL_DOWN, CONTROLLER_CPU));
	case SAYS_SCARCE:
		return may(c, CONTROLLER_LEVEL_DOWN) && level_step(c, s, -1, CONTROLLER_CPU_SCARCE);
	case SAYS_FREE:
		return c->streak >= FREE && level_step(c, s, 1, CONTROLLER_CPU_FREE);
	default:
		return false;
	}
}

bool controller_step(struct controller *c, const struct controller_sample *s)
{
	if (!s->ns)
		return false;
	for (int i = 0; i < CONTROLLER_MOVES; i++)
		c->wait[i] -= c->wait[i] > 0;
	if (++c->calm == CALM)
		for (int i = 0; i < CONTROLLER_MOVES; i++)
			c->hold[i] = HOLD_FIRST;
	look_memory(c, s);
	if (s->ns >= GAP || rate(s) < LOAD_MIN) {
		c->streak = 0;
		c->queued = 0;
		c->judging = false;
		c->seen = (struct controller_sample){0};
		return step_memory(c, s);
	}
	if (c->settle || c->queued) {
		c->settle -= c->settle > 0;
		c->queued -= c->queued < s->bytes ? c->queued : s->bytes;
		return false;
	}
	c->seen.bytes += s->bytes;
	c->seen.ns += s->ns;
	if (c->judging && ++c->samples < JUDGE)
		return false;
	if (c->judging && judge(c, s))
		return true;
	int what = says(c, s);
	c->streak = what == c->last ? c->streak + 1 : 1;
	c->last = what;
	return c->streak >= STREAK && (act(c, s, what) || step_memory(c, s));
}
