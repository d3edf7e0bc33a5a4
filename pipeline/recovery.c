#include "pipeline/recovery.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#define SUM_LEN    3
#define BYTES      (KEYS_LEN + SUM_LEN)
#define CHARACTERS (BYTES * 8 / 5)
#define GROUP      4

_Static_assert(BYTES * 8 % 5 == 0, "no bits are left over");
_Static_assert(CHARACTERS + CHARACTERS / GROUP == RECOVERY_TEXT_SIZE, "dashes and a zero");

static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

static void checksum(const uint8_t key[KEYS_LEN], uint8_t sum[SUM_LEN])
{
	static const uint8_t person[crypto_generichash_blake2b_PERSONALBYTES] = "apfs-recovery";
	uint8_t hash[KEYS_LEN];

	(void)crypto_generichash_blake2b_salt_personal(hash, sizeof(hash), key, KEYS_LEN, NULL, 0, NULL, person);
	memcpy(sum, hash, SUM_LEN);
	keys_wipe(hash, sizeof(hash));
}

void recovery_encode(const uint8_t key[KEYS_LEN], char text[RECOVERY_TEXT_SIZE])
{
	uint8_t bytes[BYTES];
	char *out = text;

	memcpy(bytes, key, KEYS_LEN);
	checksum(key, bytes + KEYS_LEN);
	for (size_t i = 0; i < CHARACTERS; i++) {
		unsigned value = 0;

		for (size_t bit = 5 * i; bit < 5 * i + 5; bit++)
			value = value << 1 | ((unsigned)bytes[bit / 8] >> (7 - bit % 8) & 1u);
		if (i && i % GROUP == 0)
			*out++ = '-';
		*out++ = alphabet[value];
	}
	*out = 0;
	keys_wipe(bytes, sizeof(bytes));
}

/* The five bits of a character; -1 for one that is to be passed over, -2 for one that cannot be. */
static int value_of(char c)
{
	const char *at;

	if (c == ' ' || c == '-' || c == '\t' || c == '\r')
		return -1;
	if (c >= 'a' && c <= 'z')
		c = (char)(c - 'a' + 'A');
	if (c == 'O')
		c = '0';
	if (c == 'I' || c == 'L')
		c = '1';
	if (c == 'U')
		c = 'V';
	at = c ? strchr(alphabet, c) : NULL;
	return at ? (int)(at - alphabet) : -2;
}

static int bytes_decode(const char *text, size_t len, uint8_t bytes[BYTES], struct err *e)
{
	size_t n = 0;

	memset(bytes, 0, BYTES);
	for (size_t i = 0; i < len; i++) {
		int value = value_of(text[i]);

		if (value == -1)
			continue;
		if (value < 0)
			return err_set(e, -EINVAL, ERR_KEY, "the recovery key has a character that belongs to none");
		for (unsigned bit = 0; bit < 5 && n < CHARACTERS; bit++) {
			if ((unsigned)value >> (4 - bit) & 1u)
				bytes[(5 * n + bit) / 8] |= (uint8_t)(0x80u >> (5 * n + bit) % 8);
		}
		n++;
	}
	if (n != CHARACTERS)
		return err_set(e, -EINVAL, ERR_KEY, "the recovery key has %zu characters, not %d", n, CHARACTERS);
	return 0;
}

int recovery_decode(const char *text, size_t len, uint8_t key[KEYS_LEN], struct err *e)
{
	uint8_t bytes[BYTES], sum[SUM_LEN];
	int ret = bytes_decode(text, len, bytes, e);

	if (!ret) {
		checksum(bytes, sum);
		if (sodium_memcmp(sum, bytes + KEYS_LEN, SUM_LEN) != 0)
			ret = err_set(e, -EINVAL, ERR_KEY, "the recovery key is mistyped: its checksum does not match");
		else
			memcpy(key, bytes, KEYS_LEN);
	}
	keys_wipe(bytes, sizeof(bytes));
	return ret;
}
