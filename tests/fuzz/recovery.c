/* Input: what somebody types as a recovery key, or a label. */
#include "tests/fuzz/fuzz.h"

#include "pipeline/label.h"
#include "pipeline/recovery.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint8_t key[KEYS_LEN], again[KEYS_LEN];
	char text[RECOVERY_TEXT_SIZE], shown[LABEL_SHOWN_SIZE];
	char *label = strndup((const char *)data, len);

	fuzz_begin();
	must(label);
	if (!recovery_decode((const char *)data, len, key, NULL)) {
		recovery_encode(key, text);
		must(strlen(text) == RECOVERY_TEXT_SIZE - 1);
		must(!recovery_decode(text, strlen(text), again, NULL) && !memcmp(key, again, KEYS_LEN));
	}
	memset(key, 0, sizeof(key));
	memcpy(key, data, len < KEYS_LEN ? len : KEYS_LEN);
	recovery_encode(key, text);
	must(!recovery_decode(text, strlen(text), again, NULL) && !memcmp(key, again, KEYS_LEN));

	bool fine = !label_check(label, NULL);
	(void)label_escape(label, shown);
	must(strlen(shown) < sizeof(shown));
	must(!fine || strchr(label, '\\') || !strcmp(label, shown)); /* what may be written is shown as it is */
	free(label);
	return 0;
}
