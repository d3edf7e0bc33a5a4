/* Input: u8 which parser, then its text. The parsers of mount options end the process: here they come back. */
#include "tests/fuzz/fuzz.h"

#include "base/option.h"
#include "pipeline/cipher.h"
#include "pipeline/codec.h"

#include <argp.h>
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static jmp_buf ended;
static FILE *nowhere;

static _Noreturn void fuzz_exit(int status)
{
	must(status >= 0 && status < 128);
	longjmp(ended, 1);
}

#define exit fuzz_exit
#undef stderr
#define stderr nowhere
#include "tools/mount_options.c"

static void mount_input(const char *text)
{
	static struct mount_options o;
	char program[] = "mount.fuse.apfs", store[] = "store", mountpoint[] = "mountpoint", flag[] = "-o";
	char *words = strdup(text);
	char *argv[] = {program, store, mountpoint, flag, words, NULL};

	must(words);
	optind = 0;
	opterr = 0;
	if (!setjmp(ended))
		mount_options_parse(&o, 5, argv);
	mount_options_release(&o);
	free(words);
}

/* A configuration file. What it sets is within limits. */
static void file_input(const char *text)
{
	FILE *f = fmemopen((void *)(uintptr_t)text, strlen(text) + 1, "r");
	struct settings s;
	struct err e = {0};

	must(f);
	settings_init(&s);
	int ret = settings_read_stream(&s, f, "fuzz", &e);
	must(!ret || (ret == -EINVAL && *e.text));
	for (int id = 0; id < SETTING_COUNT; id++) {
		const struct setting_def *d = &setting_defs[id];

		if (s.v[id].given && d->high)
			must(s.v[id].number >= d->low && s.v[id].number <= d->high);
	}
	settings_print(&s, nowhere);
	settings_release(&s);
	(void)fclose(f);
}

/* Each setting takes a value or says what is wrong with it. */
static void setting_input(const char *text)
{
	struct settings s;

	settings_init(&s);
	for (int id = 0; id < SETTING_COUNT; id++) {
		struct err e = {0};
		int ret = settings_set(&s, (enum setting_id)id, text, SETTING_FROM_COMMAND, NULL, &e);

		must(!ret || (ret == -EINVAL && *e.text));
	}
	settings_release(&s);
}

static void value_input(const char *text)
{
	struct codec_choice choice;
	enum cipher_suite suite;
	uint64_t value = 0;
	char buf[32];

	if (!option_parse_size(text, &value))
		must(strlen(option_format_size(value, buf, sizeof(buf))) < sizeof(buf));
	must(option_parse_duration(text, &value) <= 0);
	if (!codec_choice_parse(text, &choice)) {
		struct codec_choice again;

		must(!codec_choice_parse(codec_choice_format(choice, buf, sizeof(buf)), &again));
		must(again.codec == choice.codec && again.level == choice.level);
	}
	if (!cipher_suite_parse(text, &suite))
		must(!strcmp(cipher_suite_name(suite), text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cursor in = cursor_reader(data, len);
	size_t n;

	fuzz_begin();
	if (!nowhere)
		nowhere = fopen("/dev/null", "w");
	must(nowhere);
	uint8_t which = cursor_get8(&in);
	uint8_t *bytes = fuzz_take(&in, 4096, &n);
	char *text = strndup((const char *)bytes, n);

	must(text);
	switch (which % 4) {
	case 0:
		value_input(text);
		break;
	case 1:
		setting_input(text);
		break;
	case 3:
		file_input(text);
		break;
	default:
		mount_input(text);
	}
	free(bytes);
	free(text);
	return 0;
}
