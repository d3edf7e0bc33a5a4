/* Input: u32 mode, then an extended attribute system.posix_acl_*. */
#include "tests/fuzz/fuzz.h"

#include "fs/core/volume.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cursor in = cursor_reader(data, len);
	bool trivial = false;
	size_t n;

	fuzz_begin();
	uint32_t mode = cursor_get32(&in), before = mode;
	uint8_t *acl = fuzz_take(&in, 65536, &n);
	int valid = acl_check(acl, n);

	must(acl_to_mode(acl, n, &mode, &trivial) == valid);
	must((mode & ~0777u) == (before & ~0777u) && (!valid || mode == before));
	must(acl_chmod(acl, n, before) == valid);
	if (!valid) {
		must(!acl_check(acl, n) && !acl_to_mode(acl, n, &mode, &trivial));
		must(mode == before); /* what chmod set is what is read */
	}
	free(acl);
	return 0;
}
