/*
 * Input: u8 flags, then edits (fuzz_edit) of a superblock, or with flag 1 all of its bytes. Flag 2: the checksum, flag
 * 4: the MAC is made to fit, flag 8: the other copy is there, whole.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/mem_io.h"

#include "pipeline/keyring.h"
#include "pipeline/slot.h"
#include "pipeline/superblock.h"

#include <sodium.h>
#include <string.h>

#define SIZE     8192u
#define SLOTS_AT 512u
#define MAC_AT   8128u
#define SUM_AT   8160u

static struct {
	uint8_t image[SIZE];
	uint8_t mac_key[KEYS_LEN];
} good;

static void begin(void)
{
	struct io *io = mem_new();
	struct superblock *sb;
	struct keyring *k;
	size_t len;

	must(!superblock_new(io, CIPHER_CHACHA20_POLY1305, 4096, (struct superblock_kdf){1, 8 << 20}, "pass", 4, &sb,
	                     &k, NULL));
	must(!superblock_write(io, sb, NULL));
	const uint8_t *image = mem_get(io, "superblock", &len);
	must(len == SIZE);
	memcpy(good.image, image, SIZE);
	keys_derive(keyring_root(k), KEY_SUPERBLOCK, 0, "mac", 3, good.mac_key);
	keyring_free(k);
	superblock_free(sb);
	io_free(io);
}

/* Argon2id is not what is tested: the cost stays low, at most one slot wants it. */
static void cheapen(uint8_t *image)
{
	bool one = false;

	for (unsigned i = 0; i < SUPERBLOCK_SLOTS; i++) {
		uint8_t *slot = image + SLOTS_AT + i * SLOT_SIZE;
		struct cursor c = cursor_writer(slot + 8, 16);

		if (slot_type(slot) == SLOT_EMPTY || slot[4] != 1)
			continue;
		if (one)
			slot[4] = 77;
		one = true;
		if (slot_kdf(slot).mem < 8 << 20)
			continue;
		cursor_put32(&c, 1);
		cursor_put32(&c, 0);
		cursor_put64(&c, 8 << 20);
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cursor in = cursor_reader(data, len);
	uint8_t image[SIZE];
	struct superblock *sb;
	struct keyring *k;

	fuzz_begin();
	if (!good.image[0])
		begin();
	uint8_t flags = cursor_get8(&in);
	struct io *io = mem_new();
	if (flags & 1) {
		size_t n;
		uint8_t *raw = fuzz_take(&in, 3 * SIZE, &n);

		if (n == SIZE)
			finish(raw, flags);
		mem_put(io, "superblock", raw, n);
		free(raw);
	} else {
		memcpy(image, good.image, SIZE);
		fuzz_edit(&in, image, SIZE);
		finish(image, flags);
		mem_put(io, "superblock", image, SIZE);
	}
	if (flags & 8)
		mem_put(io, "superblock.bak", good.image, SIZE);
	if (!superblock_open(io, &sb, NULL)) {
		const struct superblock_info *info = superblock_info(sb);

		must(info->page_size >= 512 && info->page_size <= 65536 && info->slots <= SUPERBLOCK_SLOTS);
		if (!superblock_unlock(sb, "pass", 4, &k, NULL)) {
			uint8_t key[KEYS_LEN];

			must(!keyring_subkey(k, keyring_epoch(k), KEY_SEGMENT, NULL, 0, key));
			keyring_free(k);
		}
		superblock_free(sb);
	}
	io_free(io);
	return 0;
}
