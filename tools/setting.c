#include "tools/setting.h"
#include "base/option.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MIB   ((uint64_t)1 << 20)
#define TIB   ((uint64_t)1 << 40)
#define HOUR  ((uint64_t)3600000) /* ms */
#define NOLIM UINT64_MAX

const struct setting_def setting_defs[SETTING_COUNT] = {
    [SETTING_MEMORY] = {"memory", "SIZE", SETTING_K_SIZE, SETTING_G_MOUNT, 32 * MIB, 16 * TIB, NULL, "256M",
                        "Memory for file data: in requests, not yet written, cached, and being compressed; 32M at "
                        "least, and no more than the machine has"},
    [SETTING_COMMIT_INTERVAL] = {"commit-interval", "TIME", SETTING_K_DURATION, SETTING_G_MOUNT, 10, HOUR, NULL, "5s",
                                 "Make what was written durable at least this often, 10ms to 1h"},
    [SETTING_COMPRESS] = {"compress", "CODEC", SETTING_K_CODEC, SETTING_G_MOUNT, 0, 0, NULL, "auto",
                          "auto (by priority), off, lz4, zstd or brotli, and :LEVEL for a fixed one"},
    [SETTING_PRIORITY] = {"priority", "WHAT", SETTING_K_WORD, SETTING_G_MOUNT, 0, 0, "balanced speed ratio", "balanced",
                          "What compression aims at: speed (lz4), balanced (zstd) or ratio (brotli)"},
    [SETTING_STORAGE] = {"storage", "CLASS", SETTING_K_WORD, SETTING_G_MOUNT, 0, 0, "auto hdd ssd nvme",
                         "(auto: by the device)", "What STORE lies on: auto, hdd, ssd or nvme"},
    [SETTING_CHUNK_SIZE] = {"chunk-size", "SIZE", SETTING_K_SIZE, SETTING_G_MOUNT, 1, POLICY_CHUNK_SET_MAX, NULL,
                            "(auto: by file size)",
                            "Data that is compressed, encrypted and written at once, 1 to 512M; never more than 16M"},
    [SETTING_NO_COMPACT] = {"no-compact", NULL, SETTING_K_SWITCH, SETTING_G_MOUNT, 0, 0, NULL, "no",
                            "Leave the space of overwritten data until apfs compact, or until STORE is full"},
    [SETTING_IDLE] = {"idle", "TIME", SETTING_K_DURATION, SETTING_G_MOUNT, 1000, 1000 * HOUR, NULL, "(never)",
                      "Unmount once nobody has used the mount for that long, 1s to 1000h"},
    [SETTING_THREADS] = {"threads", "N", SETTING_K_NUMBER, SETTING_G_MOUNT, 2, 32, NULL, "(auto: by the machine)",
                         "Threads that answer the kernel, 2 to 32"},
    [SETTING_WORKERS] = {"workers", "N", SETTING_K_NUMBER, SETTING_G_MOUNT, 1, 32, NULL, "(auto: by the machine)",
                         "Threads that compress and encrypt, 1 to 32"},
    [SETTING_CPU_TOKENS] = {"cpu-tokens", "N", SETTING_K_NUMBER, SETTING_G_MOUNT, 1, 1024, NULL,
                            "(auto: by the machine)",
                            "How many threads may compress, encrypt and the reverse at once, 1 to 1024"},
    [SETTING_IO_TOKENS] = {"io-tokens", "N", SETTING_K_NUMBER, SETTING_G_MOUNT, 1, 1024, NULL, "(auto: by storage)",
                           "How many may read, append to and sync segments at once, 1 to 1024"},
    [SETTING_NO_GOVERNANCE] = {"no-governance", NULL, SETTING_K_SWITCH, SETTING_G_MOUNT, 0, 0, NULL, "no",
                               "Neither is limited, and nobody waits for a turn"},
    [SETTING_NO_FEEDBACK] = {"no-feedback", NULL, SETTING_K_SWITCH, SETTING_G_MOUNT, 0, 0, NULL, "no",
                             "Levels, chunks and workers stay where they begin, whatever turns out to be slow"},
    [SETTING_MMAP] = {"mmap", "SIZE", SETTING_K_SIZE, SETTING_G_MOUNT, 0, NOLIM, NULL, "0",
                      "Map up to SIZE of STORE's segments to read them, instead of reading piece by piece"},
    [SETTING_NO_METRICS] = {"no-metrics", NULL, SETTING_K_SWITCH, SETTING_G_MOUNT, 0, 0, NULL, "no",
                            "Measure nothing: no apfs stats, no alerts, no feedback"},
    [SETTING_METRICS_LISTEN] = {"metrics-listen", "ADDRESS:PORT", SETTING_K_TEXT, SETTING_G_MOUNT, 0, 0, NULL, "(off)",
                                "Serve metrics to Prometheus there, as in 127.0.0.1:9750, to whoever asks"},
    [SETTING_CIPHER] =
	{"cipher", "SUITE", SETTING_K_WORD, SETTING_G_STORE, 0, 0,
         "auto aes-256-gcm chacha20-poly1305 xchacha20-poly1305", "auto",
         "What a new store is sealed with: auto (AES where the CPU has it), aes-256-gcm, chacha20-poly1305 or "
         "xchacha20-poly1305"},
    [SETTING_KDF_OPS] = {"kdf-ops", "N", SETTING_K_NUMBER, SETTING_G_STORE, 1, UINT32_MAX, NULL, "(3)",
                         "Argon2id's passes for a new store"},
    [SETTING_KDF_MEM] = {"kdf-mem", "SIZE", SETTING_K_SIZE, SETTING_G_STORE, 8192, NOLIM, NULL, "(256M)",
                         "Argon2id's memory for a new store"},
    [SETTING_LOG] = {"log", "WHERE", SETTING_K_TEXT, SETTING_G_MESSAGES, 0, 0, NULL,
                     "(auto: journal; in the foreground stderr)", "journal, stderr or a file"},
    [SETTING_LOG_LEVEL] = {"log-level", "LEVEL", SETTING_K_WORD, SETTING_G_MESSAGES, 0, 0, "error warn info debug",
                           "info", "error, warn, info or debug"},
};

/* --- values ------------------------------------------------------------------------------------------------------- */

/* What is done where nothing is set has a word of its own: its length, 0 where the default is a value. */
static size_t unset_word(const struct setting_def *d, const char **word)
{
	*word = d->unset + 1;
	return *d->unset == '(' ? strcspn(*word, ":)") : 0;
}

static bool is_default(const struct setting_def *d, const char *text)
{
	const char *word;
	size_t len = unset_word(d, &word);

	return !strcmp(text, "default") || (len && strlen(text) == len && !memcmp(word, text, len));
}

/* For a message about what is no value: "", or " or never". */
static const char *or_unset(const struct setting_def *d, char *buf, size_t size)
{
	const char *word;
	size_t len = unset_word(d, &word);

	if (*word >= '0' && *word <= '9')
		len = 0; /* is among those that the message names */
	(void)snprintf(buf, size, "%s%.*s", len ? " or " : "", (int)len, word);
	return buf;
}

static int parse_number(const struct setting_def *d, const char *text, uint64_t *out, struct err *e)
{
	char *end = NULL, other[32];

	errno = 0;
	unsigned long long v = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text < '0' || *text > '9' || v < d->low || v > d->high)
		return err_set(e, -EINVAL, ERR_USAGE, "%s: '%s' is not a number from %llu to %llu%s", d->name, text,
		               (unsigned long long)d->low, (unsigned long long)d->high,
		               or_unset(d, other, sizeof(other)));
	*out = v;
	return 0;
}

static int parse_size(const struct setting_def *d, const char *text, uint64_t *out, struct err *e)
{
	char limit[32];

	int ret = option_parse_size(text, out);
	if (ret == -ERANGE)
		*out = UINT64_MAX;
	else if (ret)
		return err_set(e, -EINVAL, ERR_USAGE, "%s: '%s' is not a size, such as 64M%s", d->name, text,
		               or_unset(d, limit, sizeof(limit)));
	if (*out < d->low)
		return err_set(e, -EINVAL, ERR_USAGE, "%s: %s is the least", d->name,
		               option_format_size(d->low, limit, sizeof(limit)));
	if (*out > d->high || ret)
		return err_set(e, -EINVAL, ERR_USAGE, "%s: %s is the most", d->name,
		               option_format_size(d->high, limit, sizeof(limit)));
	return 0;
}

static const char *format_ms(uint64_t ms, char *buf, size_t len)
{
	if (ms % HOUR == 0)
		(void)snprintf(buf, len, "%lluh", (unsigned long long)(ms / HOUR));
	else if (ms % 1000 == 0)
		(void)snprintf(buf, len, "%llus", (unsigned long long)(ms / 1000));
	else
		(void)snprintf(buf, len, "%llums", (unsigned long long)ms);
	return buf;
}

static int parse_duration(const struct setting_def *d, const char *text, uint64_t *out, struct err *e)
{
	char low[32], high[32], other[32];

	if (option_parse_duration(text, out) || *out < d->low || *out > d->high)
		return err_set(e, -EINVAL, ERR_USAGE, "%s: '%s' is not a time from %s to %s%s", d->name, text,
		               format_ms(d->low, low, sizeof(low)), format_ms(d->high, high, sizeof(high)),
		               or_unset(d, other, sizeof(other)));
	return 0;
}

/* The place of text in a list of words; -ENOENT. */
static int word_find(const char *words, const char *text, uint64_t *place)
{
	size_t len = strlen(text);

	for (*place = 0; *words; (*place)++) {
		size_t n = strcspn(words, " ");

		if (n == len && !memcmp(words, text, n))
			return 0;
		words += n;
		words += *words == ' ';
	}
	return -ENOENT;
}

static int parse_word(const struct setting_def *d, const char *text, uint64_t *out, struct err *e)
{
	return word_find(d->words, text, out)
	           ? err_set(e, -EINVAL, ERR_USAGE, "%s: '%s' is none of %s", d->name, text, d->words)
	           : 0;
}

static int parse_switch(const struct setting_def *d, const char *text, uint64_t *out, struct err *e)
{
	if (word_find("no yes off on false true 0 1", text, out))
		return err_set(e, -EINVAL, ERR_USAGE, "%s: '%s' is neither yes nor no", d->name, text);
	*out &= 1;
	return 0;
}

static int parse_codec(const struct setting_def *d, const char *text, struct codec_choice *out, struct err *e)
{
	char rule[64];

	return codec_choice_parse(text, out) ? err_set(e, -EINVAL, ERR_USAGE, "%s: '%s': %s", d->name, text,
	                                               codec_choice_rule(text, rule, sizeof(rule)))
	                                     : 0;
}

static int parse_value(const struct setting_def *d, const char *text, struct setting *v, struct err *e)
{
	switch (d->kind) {
	case SETTING_K_SIZE:
		return parse_size(d, text, &v->number, e);
	case SETTING_K_DURATION:
		return parse_duration(d, text, &v->number, e);
	case SETTING_K_NUMBER:
		return parse_number(d, text, &v->number, e);
	case SETTING_K_SWITCH:
		return parse_switch(d, text, &v->number, e);
	case SETTING_K_WORD:
		return parse_word(d, text, &v->number, e);
	case SETTING_K_CODEC:
		return parse_codec(d, text, &v->codec, e);
	default:
		return *text ? 0 : err_set(e, -EINVAL, ERR_USAGE, "%s needs a value", d->name);
	}
}

/* --- the settings ------------------------------------------------------------------------------------------------- */

enum setting_id setting_find(const char *name, size_t len)
{
	for (int id = 0; id < SETTING_COUNT; id++) {
		const char *known = setting_defs[id].name;
		size_t i = 0;

		while (i < len && known[i] && (name[i] == known[i] || (name[i] == '_' && known[i] == '-')))
			i++;
		if (i == len && !known[i])
			return (enum setting_id)id;
	}
	return SETTING_COUNT;
}

static void set_default(const struct setting_def *d, struct setting *v)
{
	if (*d->unset != '(')
		(void)parse_value(d, d->unset, v, NULL); /* a test parses them all */
}

void settings_init(struct settings *s)
{
	memset(s, 0, sizeof(*s));
	for (int id = 0; id < SETTING_COUNT; id++)
		set_default(&setting_defs[id], &s->v[id]);
}

static void setting_release(struct setting *v)
{
	free(v->text);
	free(v->effective);
	free(v->where);
	v->text = v->effective = v->where = NULL;
}

void settings_release(struct settings *s)
{
	for (int id = 0; id < SETTING_COUNT; id++)
		setting_release(&s->v[id]);
}

int settings_set(struct settings *s, enum setting_id id, const char *text, enum setting_source source,
                 const char *where, struct err *e)
{
	const struct setting_def *d = &setting_defs[id];
	struct setting v = {.source = source};
	int ret = 0;

	if (!text && d->kind != SETTING_K_SWITCH)
		return err_set(e, -EINVAL, ERR_USAGE, "%s needs a value", d->name);
	text = text ? text : "yes";
	v.given = !is_default(d, text);
	if (v.given)
		ret = parse_value(d, text, &v, e);
	else
		set_default(d, &v);
	if (ret || s->v[id].source > source)
		return ret;
	v.text = v.given ? strdup(text) : NULL;
	v.where = where ? strdup(where) : NULL;
	if ((v.given && !v.text) || (where && !v.where)) {
		setting_release(&v);
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for settings");
	}
	setting_release(&s->v[id]);
	s->v[id] = v;
	return 0;
}

enum cipher_suite settings_cipher(const struct settings *s)
{
	enum cipher_suite suite = CIPHER_AUTO;
	const char *name = settings_text(s, SETTING_CIPHER);

	return name && !cipher_suite_parse(name, &suite) ? suite : CIPHER_AUTO;
}

int settings_effective(struct settings *s, enum setting_id id, const char *text)
{
	struct setting *v = &s->v[id];

	free(v->effective);
	v->effective = NULL;
	if (v->given && !strcmp(v->text, text))
		return 0;
	v->effective = strdup(text);
	return v->effective ? 0 : -ENOMEM;
}

void settings_print(const struct settings *s, FILE *f)
{
	static const char *const source[] = {
	    [SETTING_FROM_DEFAULT] = "default", [SETTING_FROM_FILE] = "", [SETTING_FROM_COMMAND] = "command line"};

	for (int id = 0; id < SETTING_COUNT; id++) {
		const struct setting *v = &s->v[id];

		if (setting_defs[id].group == SETTING_G_STORE)
			continue; /* the store is made */
		const char *value = v->effective ? v->effective : v->text ? v->text : setting_defs[id].unset;
		bool other = v->given && v->effective;
		(void)fprintf(f, "%-16s %-24s %s%s%s\n", setting_defs[id].name, value,
		              v->where ? v->where : source[v->source], other ? "; asked for " : "",
		              other ? v->text : "");
	}
}
