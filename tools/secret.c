#include "tools/secret.h"

#include "base/option.h"
#include "pipeline/recovery.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum key {
	KEY_PASSFILE = 512,
	KEY_EXTPASS,
	KEY_KEYFILE,
	KEY_RECOVERY,
	KEY_NEW_PASSFILE,
	KEY_NEW_EXTPASS,
	KEY_NEW_KEYFILE,
	KEY_KDF_OPS,
	KEY_KDF_MEM
};

/* --- options ------------------------------------------------------------------------------------------------------ */

const char *secret_source_check(const struct secret_source *src)
{
	if (src->pass.file && src->pass.command)
		return "passfile and extpass exclude each other";
	if (src->keyfile && (src->pass.file || src->pass.command || src->recovery))
		return "keyfile excludes passfile, extpass and recovery-key";
	return NULL;
}

enum secret_type secret_source_type(const struct secret_source *src)
{
	return src->keyfile ? SECRET_KEY_FILE : src->recovery ? SECRET_RECOVERY : SECRET_PASSPHRASE;
}

static error_t parse_secret(int key, char *arg, struct argp_state *state)
{
	struct secret_source *s = state->input;
	const char *wrong;

	switch (key) {
	case KEY_PASSFILE:
	case KEY_NEW_PASSFILE:
		s->pass.file = arg;
		return 0;
	case KEY_EXTPASS:
	case KEY_NEW_EXTPASS:
		s->pass.command = arg;
		return 0;
	case KEY_KEYFILE:
	case KEY_NEW_KEYFILE:
		s->keyfile = arg;
		return 0;
	case KEY_RECOVERY:
		s->recovery = true;
		return 0;
	case ARGP_KEY_END:
		wrong = secret_source_check(s);
		if (wrong)
			argp_error(state, "%s", wrong);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_option secret_options[] = {
    {NULL, 0, NULL, 0,
     "What opens the store (a passphrase, asked for at the terminal, or a line of standard input):", 1},
    {"passfile", KEY_PASSFILE, "FILE", 0, "The passphrase is the first line of FILE", 1},
    {"extpass", KEY_EXTPASS, "COMMAND", 0, "It is the first line that COMMAND prints", 1},
    {"keyfile", KEY_KEYFILE, "FILE", 0, "A key file instead of a passphrase", 1},
    {"recovery-key", KEY_RECOVERY, NULL, 0, "A recovery key instead, read as a passphrase is", 1},
    {0},
};

static const struct argp_option new_options[] = {
    {NULL, 0, NULL, 0, "The new secret (a passphrase, asked for twice, or the next line of standard input):", 2},
    {"new-passfile", KEY_NEW_PASSFILE, "FILE", 0, "The new passphrase is the first line of FILE", 2},
    {"new-extpass", KEY_NEW_EXTPASS, "COMMAND", 0, "It is the first line that COMMAND prints", 2},
    {"new-keyfile", KEY_NEW_KEYFILE, "FILE", 0, "A key file of 32 bytes to 8 MiB instead", 2},
    {0},
};

const struct argp secret_argp = {secret_options, parse_secret, NULL, NULL, NULL, NULL, NULL};
const struct argp secret_new_argp = {new_options, parse_secret, NULL, NULL, NULL, NULL, NULL};

static error_t parse_kdf(int key, char *arg, struct argp_state *state)
{
	struct superblock_kdf *kdf = state->input;
	char *end = NULL;

	if (key == KEY_KDF_MEM) {
		if (option_parse_size(arg, &kdf->mem))
			argp_error(state, "kdf-mem: '%s' is not a size, such as 64M", arg);
		return 0;
	}
	if (key != KEY_KDF_OPS)
		return ARGP_ERR_UNKNOWN;
	unsigned long n = strtoul(arg, &end, 10);
	if (end == arg || *end || *arg == '-' || n < 1 || n > UINT32_MAX)
		argp_error(state, "kdf-ops: '%s' is not a number from 1", arg);
	kdf->ops = (uint32_t)n;
	return 0;
}

static const struct argp_option kdf_options[] = {
    {"kdf-ops", KEY_KDF_OPS, "N", 0, "Argon2id's passes", 3},
    {"kdf-mem", KEY_KDF_MEM, "SIZE", 0, "Argon2id's memory", 3},
    {0},
};

const struct argp secret_kdf_argp = {kdf_options, parse_kdf, NULL, NULL, NULL, NULL, NULL};

/* --- reading ------------------------------------------------------------------------------------------------------ */

static ssize_t read_all(int fd, uint8_t *buf, size_t room)
{
	size_t done = 0;

	while (done < room) {
		ssize_t n = read(fd, buf + done, room - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : (ssize_t)done;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* One byte more than fits shows what is too long; what is no regular file has no length beforehand. */
static int keyfile_load(int fd, const char *path, struct secret_held *out, struct err *e)
{
	size_t room = SECRET_KEY_FILE_MAX + 1;
	struct stat st;

	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size < (off_t)room)
		room = (size_t)st.st_size + 1;
	out->memory = keys_secret_alloc(room);
	if (!out->memory)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no guarded memory for a key file");
	ssize_t n = read_all(fd, out->memory, room);
	if (n < 0)
		return err_set(e, (int)n, ERR_KEY, "cannot read the key file %s: %s", path, strerror((int)-n));
	if ((size_t)n < SECRET_KEY_FILE_MIN || (size_t)n > SECRET_KEY_FILE_MAX)
		return err_set(e, -EINVAL, ERR_KEY, "the key file %s does not have %zu bytes to %zu MiB", path,
		               SECRET_KEY_FILE_MIN, SECRET_KEY_FILE_MAX >> 20);
	out->secret = (struct secret){SECRET_KEY_FILE, out->memory, (size_t)n};
	return 0;
}

static int keyfile_read(const char *path, struct secret_held *out, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

	if (fd < 0)
		return err_set(e, -errno, ERR_KEY, "cannot open the key file %s: %s", path, strerror(errno));
	int ret = keyfile_load(fd, path, out, e);
	(void)close(fd);
	return ret;
}

static int recovery_read(const struct passphrase_source *src, const char *prompt, struct secret_held *out,
                         struct err *e)
{
	struct passphrase text = {0};
	int ret = passphrase_read(src, prompt, false, &text, e);

	if (!ret) {
		out->memory = keys_secret_alloc(KEYS_LEN);
		ret = out->memory ? recovery_decode(text.data, text.len, out->memory, e)
		                  : err_set(e, -ENOMEM, ERR_MEMORY, "no guarded memory for a key");
	}
	out->secret = (struct secret){SECRET_RECOVERY, out->memory, KEYS_LEN};
	passphrase_release(&text);
	return ret;
}

int secret_read(const struct secret_source *src, const char *store, bool fresh, struct secret_held *out, struct err *e)
{
	struct passphrase pass = {0};
	char prompt[512];

	*out = (struct secret_held){0};
	if (src->keyfile)
		return keyfile_read(src->keyfile, out, e);
	(void)snprintf(prompt, sizeof(prompt), "%s for %s: ",
	               src->recovery ? "Recovery key"
	               : fresh       ? "New passphrase"
	                             : "Passphrase",
	               store);
	if (src->recovery)
		return recovery_read(&src->pass, prompt, out, e);
	int ret = passphrase_read(&src->pass, prompt, fresh, &pass, e);
	out->memory = pass.data;
	out->secret = (struct secret){SECRET_PASSPHRASE, pass.data, pass.len};
	return ret;
}

void secret_release(struct secret_held *s)
{
	keys_secret_free(s->memory);
	*s = (struct secret_held){0};
}
