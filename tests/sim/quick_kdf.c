/* Linked with this, Argon2id is as quick as a hash. It derives other keys, so such a program reads only what such a
 * program made. */
#include <sodium.h>

/* The linker sends calls of f to __wrap_f. NOLINTBEGIN(bugprone-reserved-identifier) */
int __wrap_crypto_pwhash(unsigned char *out, unsigned long long out_len, const char *pass, unsigned long long pass_len,
                         const unsigned char *salt, unsigned long long ops, size_t mem, int alg);

int __wrap_crypto_pwhash(unsigned char *out, unsigned long long out_len, const char *pass, unsigned long long pass_len,
                         const unsigned char *salt, unsigned long long ops, size_t mem, int alg)
{
	crypto_generichash_state s;

	(void)crypto_generichash_init(&s, salt, crypto_pwhash_SALTBYTES, (size_t)out_len);
	(void)crypto_generichash_update(&s, (const unsigned char *)&ops, sizeof(ops));
	(void)crypto_generichash_update(&s, (const unsigned char *)&mem, sizeof(mem));
	(void)crypto_generichash_update(&s, (const unsigned char *)&alg, sizeof(alg));
	(void)crypto_generichash_update(&s, (const unsigned char *)pass, pass_len);
	return crypto_generichash_final(&s, out, (size_t)out_len);
}
/* NOLINTEND(bugprone-reserved-identifier) */
