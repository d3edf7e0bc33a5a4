/* Input: u8 which, then the bytes of STORE's note `lock`, or a line of /proc/self/mountinfo, in which others choose
 * names. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/mem_io.h"

#include "fs/fuse/mountinfo.c"
#include "tools/store.c"

static void note_input(const uint8_t *data, size_t len)
{
	struct store s = {.io = mem_new()};
	struct err e = {0};

	mem_put(s.io, NOTE, data, len);
	must(busy(&s, &e) == -EBUSY);
	for (const char *p = e.text; *p; p++)
		must((unsigned char)*p >= ' '); /* one line, whatever the note is */
	io_free(s.io);
}

static void line_input(const char *text)
{
	char *line = strdup(text);
	struct mountinfo out;

	must(line);
	if (parse_line(line, "/mnt", &out))
		must(strnlen(out.type, sizeof(out.type)) < sizeof(out.type));
	free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cursor in = cursor_reader(data, len);
	size_t n;

	fuzz_begin();
	uint8_t which = cursor_get8(&in);
	uint8_t *bytes = fuzz_take(&in, 4096, &n);
	char *text = strndup((const char *)bytes, n);

	must(text);
	if (which & 1)
		note_input(bytes, n);
	else
		line_input(text);
	free(bytes);
	free(text);
	return 0;
}
