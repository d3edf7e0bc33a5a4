#include "pipeline/codec.h"

#include "pipeline/codec_ops.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNIT_MAX 65536u /* what the header promises */

static const struct codec_ops *const registry[CODEC_COUNT] = {
    [CODEC_STORED] = NULL,
    [CODEC_LZ4] = &codec_ops_lz4,
    [CODEC_ZSTD] = &codec_ops_zstd,
    [CODEC_BROTLI] = &codec_ops_brotli,
};

struct codec_ctx {
	void *state[CODEC_COUNT];
};

static const struct codec_ops *ops_get(enum codec_id codec)
{
	return (unsigned)codec < CODEC_COUNT ? registry[codec] : NULL;
}

const char *codec_name(enum codec_id codec)
{
	const struct codec_ops *ops = ops_get(codec);

	if (codec == CODEC_STORED || codec == CODEC_AUTO)
		return codec == CODEC_AUTO ? "auto" : "off";
	return ops ? ops->name : NULL;
}

static int level_parse(const struct codec_ops *ops, const char *text, int *level)
{
	char *end;
	long v;

	errno = 0;
	v = strtol(text, &end, 10);
	if (errno || end == text || *end || strchr(" \t\n\v\f\r+", *text))
		return -EINVAL;
	if (v < ops->level_min || v > ops->level_max || !v)
		return -ERANGE;
	*level = (int)v;
	return 0;
}

/* The codec that a choice begins with; CODEC_COUNT: none that has levels. */
static int codec_named(const char *text)
{
	size_t len = strcspn(text, ":");
	int i = CODEC_STORED + 1;

	while (i < CODEC_COUNT && (strlen(registry[i]->name) != len || strncmp(text, registry[i]->name, len) != 0))
		i++;
	return i;
}

int codec_choice_parse(const char *text, struct codec_choice *out)
{
	const char *colon = strchr(text, ':');
	struct codec_choice choice = {CODEC_STORED, 0};
	int codec = codec_named(text), ret = 0;

	if (!strcmp(text, "off") || !strcmp(text, "auto")) {
		choice.codec = *text == 'a' ? CODEC_AUTO : CODEC_STORED;
		*out = choice;
		return 0;
	}
	if (codec == CODEC_COUNT)
		return -EINVAL;
	choice.codec = (enum codec_id)codec;
	if (colon)
		ret = level_parse(registry[codec], colon + 1, &choice.level);
	if (!ret)
		*out = choice;
	return ret;
}

const char *codec_choice_rule(const char *text, char *buf, size_t len)
{
	int codec = codec_named(text);
	const struct codec_ops *ops = codec == CODEC_COUNT ? NULL : registry[codec];

	if (!ops)
		(void)snprintf(buf, len, "auto, off, lz4, zstd and brotli are known");
	else
		(void)snprintf(buf, len, "the levels of %s are %d to %d%s", ops->name, ops->level_min, ops->level_max,
		               ops->level_min < 0 ? ", without 0" : "");
	return buf;
}

const char *codec_choice_format(struct codec_choice choice, char *buf, size_t len)
{
	const char *name = codec_name(choice.codec);

	if (!choice.level || choice.codec == CODEC_STORED)
		(void)snprintf(buf, len, "%s", name ? name : "unknown");
	else
		(void)snprintf(buf, len, "%s:%d", name ? name : "unknown", choice.level);
	return buf;
}

int codec_ctx_new(struct codec_ctx **out)
{
	struct codec_ctx *ctx = calloc(1, sizeof(*ctx));

	if (!ctx)
		return -ENOMEM;
	for (int i = 0; i < CODEC_COUNT; i++) {
		int ret = registry[i] ? registry[i]->state_new(&ctx->state[i]) : 0;

		if (ret) {
			codec_ctx_free(ctx);
			return ret;
		}
	}
	*out = ctx;
	return 0;
}

void codec_ctx_free(struct codec_ctx *ctx)
{
	if (!ctx)
		return;
	for (int i = 0; i < CODEC_COUNT; i++) {
		if (registry[i])
			registry[i]->state_free(ctx->state[i]);
	}
	free(ctx);
}

int codec_compress(struct codec_ctx *ctx, struct codec_choice choice, const void *in, size_t len, void *out, size_t cap)
{
	const struct codec_ops *ops = ops_get(choice.codec);
	int level;

	if (!len || len > UNIT_MAX || (!ops && choice.codec != CODEC_STORED))
		return -EINVAL;
	if (!ops || !cap)
		return 0;
	level = choice.level ? choice.level : ops->level_default;
	if (level < ops->level_min || level > ops->level_max)
		return -EINVAL;
	return ops->compress(ctx->state[choice.codec], level, in, len, out, cap);
}

int codec_decompress(struct codec_ctx *ctx, enum codec_id codec, const void *in, size_t len, void *out,
                     size_t plain_len)
{
	const struct codec_ops *ops = ops_get(codec);

	if (codec == CODEC_STORED) {
		if (len != plain_len)
			return -EBADMSG;
		memcpy(out, in, len);
		return 0;
	}
	if (!ops || !plain_len || plain_len > UNIT_MAX)
		return -EBADMSG;
	return ops->decompress(ctx->state[codec], in, len, out, plain_len);
}

#define STRIPS      ((size_t)32)
#define STRIP       ((size_t)64)
#define SAMPLE      (STRIPS * STRIP)
#define PROBE       8u   /* bytes compared where repeats are sought */
#define PROBE_SLOTS 512u /* 2^9 */

size_t codec_sample(const void *data, size_t len, uint32_t count[256])
{
	const uint8_t *in = data;
	size_t step = (len - STRIP) / (STRIPS - 1);

	if (len <= SAMPLE) {
		for (size_t i = 0; i < len; i++)
			count[in[i]]++;
		return len;
	}
	for (size_t s = 0; s < STRIPS; s++) {
		for (size_t i = 0; i < STRIP; i++)
			count[in[s * step + i]]++;
	}
	return SAMPLE;
}

/* Whether what follows one byte value is often what followed it before: uniform bytes may still repeat. */
static bool repeats(const uint8_t *in, size_t len, uint8_t value)
{
	uint64_t seen[PROBE_SLOTS] = {0};
	const uint8_t *p = in, *end = in + len - PROBE;
	unsigned hits = 0, same = 0;

	while (p < end && (p = memchr(p, value, (size_t)(end - p)))) {
		uint64_t v, *slot;

		memcpy(&v, ++p, sizeof(v));
		slot = &seen[(v * 0x9E3779B97F4A7C15u) >> 55];
		hits++;
		same += *slot == v;
		*slot = v;
	}
	return same * 16 > hits;
}

bool codec_looks_incompressible(const void *in, size_t len)
{
	uint32_t count[256] = {0};
	uint64_t n, squares = 0, uniform;
	unsigned most = 0;

	if (len < CODEC_SAMPLE_MIN)
		return false;
	n = codec_sample(in, len, count);
	for (unsigned i = 0; i < 256; i++) {
		squares += (uint64_t)count[i] * count[i];
		if (count[i] > count[most])
			most = i;
	}
	/* For uniform bytes the sum of squares is n + n(n-1)/256 with a deviation of about n/11. An eighth more means
	 * an entropy of 7.8 bits: an order-0 coder would gain less than 3 %. */
	uniform = n + n * (n - 1) / 256;
	if (squares > uniform + n * n / 256 / 8 + n / 4)
		return false;
	return !repeats(in, len, (uint8_t)most);
}
