#include "tools/progress.h"
#include "base/clock.h"
#include "base/option.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define INTERVAL   200000000u /* ns between drawings */
#define SETTLED    2.0        /* seconds after which a time left is worth showing */
#define RATE_SHARE 0.15       /* how much of the last interval enters the rate */
#define BAR_MAX    40
#define WIDTH_MAX  200

void progress_begin(struct progress *p, const char *what, bool bytes)
{
	*p = (struct progress){.what = what, .bytes = bytes, .shown = isatty(STDERR_FILENO) == 1};
	p->began = clock_system.monotonic(&clock_system);
	p->drawn_at = p->began;
}

static size_t terminal_width(void)
{
	struct winsize w;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) || !w.ws_col)
		return 80;
	return w.ws_col < WIDTH_MAX ? w.ws_col : WIDTH_MAX;
}

static void rate_update(struct progress *p, uint64_t done, uint64_t now)
{
	double seconds = (double)(now - p->drawn_at) / 1e9;
	double last = done > p->drawn_done && seconds > 0 ? (double)(done - p->drawn_done) / seconds : 0;

	if (done < p->drawn_done || p->rate <= 0)
		p->rate = last;
	else
		p->rate += RATE_SHARE * (last - p->rate);
}

/* Hours and minutes as people read them. */
static void time_left(char *out, size_t len, double seconds)
{
	unsigned long s = seconds < 1e8 ? (unsigned long)seconds : 99999999;

	if (s >= 3600)
		(void)snprintf(out, len, "  %lu:%02lu:%02lu left", s / 3600, s / 60 % 60, s % 60);
	else
		(void)snprintf(out, len, "  %lu:%02lu left", s / 60, s % 60);
}

static void draw(const struct progress *p, uint64_t done, uint64_t total, uint64_t now)
{
	char text[WIDTH_MAX + 1], size[32], rate[32] = "", left[32] = "", bar[BAR_MAX + 1];
	size_t width = terminal_width(), cells;
	double share = total ? (double)done / (double)total : 0;
	char per[32];

	share = share > 1 ? 1 : share;
	if (p->bytes && p->rate > 0)
		(void)snprintf(rate, sizeof(rate), "  %s/s", option_format_size((uint64_t)p->rate, per, sizeof(per)));
	if (total && p->rate > 0 && (double)(now - p->began) / 1e9 > SETTLED)
		time_left(left, sizeof(left), total > done ? (double)(total - done) / p->rate : 0);
	(void)snprintf(text, sizeof(text), "%s %3u%%%s%s", p->what, (unsigned)(share * 100), rate, left);
	if (!total)
		(void)snprintf(text, sizeof(text), "%s  %s%s", p->what,
		               p->bytes ? option_format_size(done, size, sizeof(size)) : "", rate);
	cells = strlen(text) + 6 < width ? width - strlen(text) - 6 : 0;
	cells = !total ? 0 : cells > BAR_MAX ? BAR_MAX : cells;
	memset(bar, '.', cells);
	memset(bar, '#', (size_t)(share * (double)cells));
	bar[cells] = 0;
	if (cells)
		(void)fprintf(stderr, "\r%.*s  [%s]\033[K", (int)width, text, bar);
	else
		(void)fprintf(stderr, "\r%.*s\033[K", (int)width - 1, text);
	(void)fflush(stderr);
}

void progress_update(struct progress *p, uint64_t done, uint64_t total)
{
	uint64_t now;

	if (!p->shown)
		return;
	now = clock_system.monotonic(&clock_system);
	if (now - p->drawn_at < INTERVAL)
		return;
	rate_update(p, done, now);
	draw(p, done, total, now);
	p->drawn = true;
	p->drawn_at = now;
	p->drawn_done = done;
}

void progress_clear(struct progress *p)
{
	if (p->drawn)
		(void)fprintf(stderr, "\r\033[K");
	p->drawn = false;
}
