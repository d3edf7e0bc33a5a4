#include "tools/unlock.h"

#include "pipeline/recovery.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int unlock_open(struct unlocked *u, const struct secret_source *src, struct err *e)
{
	struct secret_held held = {0};

	u->type = secret_source_type(src);
	int ret = keys_init(e);
	if (!ret)
		ret = store_open_beside(u->path, &u->store, e);
	if (!ret)
		ret = superblock_open(u->store.io, &u->sb, e);
	if (!ret) {
		ret = secret_read(src, u->path, false, &held, e);
		u->asking = ret != 0;
	}
	if (!ret)
		ret = superblock_unlock(u->sb, &held.secret, &u->keys, e);
	secret_release(&held);
	return ret;
}

int unlock_read_new(struct unlocked *u, const struct secret_source *src, struct secret_held *out, struct err *e)
{
	int ret = secret_read(src, u->path, true, out, e);

	u->asking = ret != 0;
	return ret;
}

/* Past stdio, whose buffer would keep it. */
static int write_out(const char *text, size_t len)
{
	if (fflush(stdout))
		return -errno;
	while (len) {
		ssize_t n = write(STDOUT_FILENO, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

struct recovery {
	uint8_t key[KEYS_LEN];
	char text[RECOVERY_TEXT_SIZE];
};

static int recovery_make(struct unlocked *u, const char *label, struct recovery *r, struct err *e)
{
	const struct secret secret = {SECRET_RECOVERY, r->key, KEYS_LEN};
	const struct superblock_slot slot = {.secret = &secret, .label = label};
	unsigned number;

	keys_random(r->key, sizeof(r->key));
	recovery_encode(r->key, r->text);
	int ret = superblock_slot_add(u->store.io, u->sb, u->keys, &slot, &number, e);
	if (ret)
		return ret;
	(void)printf("This is the recovery key of slot %u. It is not shown again:\n\n    ", number);
	ret = write_out(r->text, strlen(r->text));
	(void)printf(
	    "\n\nWrite it down and keep it away from the store: it opens everything in it. Large and small letters,\n"
	    "blanks and dashes do not matter. Use it with --recovery-key; `apfs key test' tries it.\n");
	if (ret || fflush(stdout))
		return err_set(e, -EIO, ERR_USAGE, "the recovery key could not be printed: remove slot %u", number);
	return 0;
}

int unlock_add_recovery(struct unlocked *u, const char *label, struct err *e)
{
	struct recovery *r = keys_secret_alloc(sizeof(*r));

	if (!r)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no guarded memory for a key");
	int ret = recovery_make(u, label, r, e);
	keys_secret_free(r);
	return ret;
}

static enum exit_status status_of(const struct unlocked *u, int ret, const struct err *e)
{
	if (u->asking)
		return EXIT_NO_PASS;
	if (ret == -EPERM || ret == -ENXIO || ret == -EXFULL)
		return e->domain == ERR_USAGE ? EXIT_SLOT : EXIT_SYSTEM;
	if (ret == -EINVAL || ret == -ERANGE)
		return e->domain == ERR_USAGE ? EXIT_USAGE : EXIT_SYSTEM;
	return ret == -ESTALE ? EXIT_IN_USE : store_status(ret);
}

int unlock_end(struct unlocked *u, int ret, const struct err *e)
{
	enum exit_status status = status_of(u, ret, e);

	if (ret == -EKEYREJECTED)
		(void)fprintf(stderr, "%s: %s: wrong %s\n", u->program, u->path, secret_type_name(u->type));
	else if (ret)
		(void)fprintf(stderr, "%s: %s: %s\n", u->program, u->path, err_text(e, ret));
	keyring_free(u->keys);
	superblock_free(u->sb);
	store_release(&u->store);
	return (int)status;
}
