/*
 * Runs the inputs of a corpus through a fuzz target, where there is no libFuzzer: each file of the directories, and
 * each with some bytes changed. usage: fuzz_NAME [-runs=CHANGED] DIRECTORY|FILE...
 */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define INPUT_MAX 65536

static uint64_t rng = 0x9E3779B97F4A7C15u;
static unsigned long changed = 20, inputs;

static uint64_t next(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % below;
}

/* What is run is written here first: an input that crashes can be found again. */
static void run(const uint8_t *data, size_t len)
{
	uint8_t *exact = malloc(len ? len : 1);

	must(exact);
	if (len)
		memcpy(exact, data, len);
	if (getenv("APFS_FUZZ_LAST")) {
		FILE *f = fopen(getenv("APFS_FUZZ_LAST"), "wb");

		must(f && fwrite(exact, 1, len, f) == len && !fclose(f));
	}
	(void)LLVMFuzzerTestOneInput(exact, len);
	inputs++;
	free(exact);
}

static size_t change(uint8_t *data, size_t len)
{
	static const uint8_t edge[] = {0, 1, 0x7f, 0x80, 0xff};

	for (unsigned n = 1 + (unsigned)next(4); n; n--) {
		size_t at = len ? (size_t)next(len) : 0;

		switch (len ? next(4) : 3) {
		case 0:
			data[at] ^= (uint8_t)(1u << next(8));
			break;
		case 1:
			data[at] = edge[next(sizeof(edge))];
			break;
		case 2:
			memmove(data + at, data + at + 1, --len - at);
			break;
		default:
			if (len == INPUT_MAX)
				break;
			memmove(data + at + 1, data + at, len++ - at);
			data[at] = (uint8_t)next(256);
		}
	}
	return len;
}

static void replay_file(const char *path)
{
	static uint8_t data[INPUT_MAX], copy[INPUT_MAX];
	FILE *f = fopen(path, "rb");

	if (!f) {
		(void)fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(1);
	}
	size_t len = fread(data, 1, sizeof(data), f);
	must(!fclose(f));
	run(data, len);
	for (unsigned long i = 0; i < changed; i++) {
		memcpy(copy, data, len);
		run(copy, change(copy, len));
	}
}

static void replay(const char *path)
{
	struct dirent **entry;
	struct stat st;
	char name[4096];

	if (stat(path, &st) || !S_ISDIR(st.st_mode)) {
		replay_file(path);
		return;
	}
	int n = scandir(path, &entry, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		(void)snprintf(name, sizeof(name), "%s/%s", path, entry[i]->d_name);
		if (entry[i]->d_name[0] != '.')
			replay(name);
		free(entry[i]);
	}
	if (n >= 0)
		free(entry);
}

int main(int argc, char **argv)
{
	run(NULL, 0);
	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "-runs=", 6))
			changed = strtoul(argv[i] + 6, NULL, 10);
		else
			replay(argv[i]);
	}
	printf("%lu inputs\n", inputs);
	return 0;
}
