/*
 * Superblock and key slots. Input: u8 flags, then edits (fuzz_edit) of a superblock, or with flag 1 all of its bytes.
 * Flag 2: the checksum, flag 4: the MAC is made to fit, flag 8: the other copy is there, whole, flag 16: it is opened
 * with a passphrase. What can be opened is changed, repaired and opened again.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/mem_io.h"

#include "pipeline/keyring.h"
#include "pipeline/slot.h"
#include "pipeline/superblock.h"

#include <sodium.h>
#include <string.h>

#define SIZE       8192u
#define SLOTS_AT   512u
#define MAC_AT     8128u
#define SUM_AT     8160u
#define MEM        ((uint64_t)8 << 20)
#define DERIVATION 4u /* of a slot */

static const struct secret passphrase = {SECRET_PASSPHRASE, "pass", 4};
static const struct secret recovery = {SECRET_RECOVERY, "a recovery key has just 32 bytes", KEYS_LEN};

static struct {
	uint8_t image[SIZE];
	uint8_t mac_key[KEYS_LEN];
} good;

static void begin(void)
{
	const struct superblock_slot first = {&recovery, {0, 0}, "on paper"}, second = {&passphrase, {1, MEM}, NULL};
	struct io *io = mem_new();
	struct superblock *sb;
	struct keyring *k;
	unsigned number;
	size_t len;

	must(!superblock_new(io, CIPHER_CHACHA20_POLY1305, 4096, &first, &sb, &k, NULL));
	must(!superblock_write(io, sb, NULL));
	keyring_free(k);
	must(!superblock_unlock(sb, &recovery, &k, NULL));
	must(!superblock_slot_add(io, sb, k, &second, &number, NULL) && number == 1);
	const uint8_t *image = mem_get(io, "superblock", &len);
	must(len == SIZE);
	memcpy(good.image, image, SIZE);
	keys_derive(keyring_root(k), KEY_SUPERBLOCK, 0, "mac", 3, good.mac_key);
	keyring_free(k);
	superblock_free(sb);
	io_free(io);
}

/* Argon2id is not what is tested: the cost stays low, and one slot at most has it. */
static void cheapen(uint8_t *image)
{
	struct superblock_slot_info info;
	bool one = false;

	for (unsigned i = 0; i < SUPERBLOCK_SLOTS; i++) {
		uint8_t *slot = image + SLOTS_AT + (size_t)i * SLOT_SIZE;
		struct cursor c = cursor_writer(slot + 8, 16);

		slot_describe(slot, &info);
		if (info.type != SECRET_PASSPHRASE || !info.kdf.mem)
			continue;
		if (one)
			slot[DERIVATION] = 77;
		one = true;
		if (info.kdf.mem < MEM || !info.kdf.ops)
			continue;
		cursor_put32(&c, 1);
		cursor_put32(&c, 0);
		cursor_put64(&c, MEM);
	}
}

static void finish(uint8_t *image, uint8_t flags)
{
	cheapen(image);
	if (flags & 4)
		must(!crypto_generichash(image + MAC_AT, 32, image, MAC_AT, good.mac_key, KEYS_LEN));
	if (flags & 2)
		must(!crypto_generichash(image + SUM_AT, 32, image, SUM_AT, NULL, 0));
}

static void put_copies(struct io *io, struct cursor *in, uint8_t flags)
{
	uint8_t *image;
	size_t n = SIZE;

	if (flags & 1) {
		image = fuzz_take(in, 3 * (size_t)SIZE, &n);
	} else {
		image = malloc(SIZE);
		must(image);
		memcpy(image, good.image, SIZE);
		fuzz_edit(in, image, SIZE);
	}
	if (n == SIZE)
		finish(image, flags);
	mem_put(io, "superblock", image, n);
	if (flags & 8)
		mem_put(io, "superblock.bak", good.image, SIZE);
	free(image);
}

static void look(const struct superblock_info *info)
{
	char shown[LABEL_SHOWN_SIZE];

	must(info->page_size >= 512 && info->page_size <= 65536 && info->slots <= SUPERBLOCK_SLOTS);
	for (unsigned i = 0; i < info->slots; i++)
		must(!label_check(label_escape(info->slot[i].label, shown), NULL) || strlen(shown) > LABEL_MAX);
}

/* The changes that an owner makes: whatever is in the other slots, what could be opened can be opened afterwards. */
static void change(struct io *io, struct superblock *sb, const struct keyring *k, const struct secret *secret)
{
	const struct secret other = {SECRET_RECOVERY, "another recovery key of 32 bytes", KEYS_LEN};
	const struct superblock_slot slot = {&other, {0, 0}, "new"};
	struct superblock *again;
	struct keyring *k2;
	unsigned number;

	must(superblock_repair(io, sb, k, NULL) <= 0);
	bool added = !superblock_slot_add(io, sb, k, &slot, &number, NULL);
	must(!superblock_open(io, &again, NULL));
	must(!superblock_unlock(again, secret, &k2, NULL));
	keyring_free(k2);
	if (added) {
		must(!superblock_unlock(again, &other, &k2, NULL) && superblock_unlocked(again) == number);
		keyring_free(k2);
		must(!superblock_slot_remove(io, sb, k, number, NULL));
	}
	superblock_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cursor in = cursor_reader(data, len);
	struct superblock *sb;
	struct keyring *k;

	fuzz_begin();
	if (!good.image[0])
		begin();
	uint8_t flags = cursor_get8(&in), key[KEYS_LEN];
	const struct secret *secret = flags & 16 ? &passphrase : &recovery;
	struct io *io = mem_new();
	put_copies(io, &in, flags);
	if (!superblock_open(io, &sb, NULL)) {
		look(superblock_info(sb));
		if (!superblock_unlock(sb, secret, &k, NULL)) {
			must(!keyring_subkey(k, keyring_epoch(k), KEY_SEGMENT, NULL, 0, key));
			must(!keyring_subkey(k, superblock_info(sb)->index_epoch, KEY_DATABASE, NULL, 0, key));
			change(io, sb, k, secret);
			keyring_free(k);
		}
		superblock_free(sb);
	}
	io_free(io);
	return 0;
}
