#include "tools/check_report.h"
#include "base/option.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const kinds[] = {"note", "spare", "data", "index"};

static void print_path(const char *text)
{
	char shown[TEXT_SHOWN];

	while (*text) {
		text += text_show(text, shown);
		(void)fputs(shown, stdout);
	}
}

/* The next member of a list. */
static FILE *member(FILE **f, char **text, size_t *len)
{
	if (!*f)
		*f = open_memstream(text, len);
	else
		(void)fputs(", ", *f);
	return *f;
}

void check_report_finding(struct check_report *c, enum check_kind kind, const char *text)
{
	if (!c->json) {
		(void)printf("%s: %s\n", kinds[kind], text);
		return;
	}
	FILE *f = member(&c->findings, &c->findings_text, &c->findings_len);
	if (!f)
		return;
	(void)fprintf(f, "{\"kind\": \"%s\", \"text\": ", kinds[kind]);
	text_json(f, text);
	(void)fputc('}', f);
}

static void file_text(const struct check_file *f)
{
	if (f->path)
		print_path(f->path);
	else
		(void)printf("inode %" PRIu64 ", which has no path", f->ino);
	(void)printf(": bytes");
	for (size_t i = 0; i < f->nranges; i++)
		(void)printf("%s %" PRIu64 "-%" PRIu64, i ? "," : "", f->range[i].off,
		             f->range[i].off + f->range[i].len - 1);
	(void)printf("%s cannot be read\n", f->more ? " and more" : "");
}

static void file_json(FILE *out, const struct check_file *f)
{
	(void)fprintf(out, "{\"path\": ");
	if (f->path)
		text_json(out, f->path);
	else
		(void)fprintf(out, "null");
	(void)fprintf(out, ", \"inode\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"ranges\": [", f->ino, f->bytes);
	for (size_t i = 0; i < f->nranges; i++)
		(void)fprintf(out, "%s[%" PRIu64 ", %" PRIu64 "]", i ? ", " : "", f->range[i].off, f->range[i].len);
	(void)fprintf(out, "], \"more\": %s}", f->more ? "true" : "false");
}

void check_report_file(struct check_report *c, const struct check_file *f)
{
	if (!c->json) {
		file_text(f);
		return;
	}
	FILE *out = member(&c->files, &c->files_text, &c->files_len);
	if (out)
		file_json(out, f);
}

static void end_text(const struct check_result *r, bool data)
{
	static const char *const verdicts[] = {
	    "in order", "all files are in order, something that is kept twice is damaged (see above)",
	    "data of files is damaged (see above)", "the index is damaged (see above)"};
	char size[32];

	(void)printf("%" PRIu64 " inodes, %" PRIu64 " names, %" PRIu64 " chunks, %" PRIu64 " segments", r->inodes,
	             r->names, r->chunks, r->segments);
	if (data)
		(void)printf(", %s of records read", option_format_size(r->read, size, sizeof(size)));
	(void)printf("\n%s%s\n", r->stopped ? "stopped before the end; up to there: " : "", verdicts[r->worst]);
}

static void end_json(const struct check_report *c, const struct check_result *r, bool data, double seconds, int status)
{
	(void)printf("{\"uuid\": \"");
	for (size_t i = 0; i < sizeof(r->uuid); i++)
		(void)printf("%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", r->uuid[i]);
	(void)printf("\", \"status\": %d, \"clean\": %s, \"worst\": \"%s\", \"stopped\": %s, \"data\": %s, "
	             "\"seconds\": %.3f,\n \"inodes\": %" PRIu64 ", \"names\": %" PRIu64 ", \"chunks\": %" PRIu64
	             ", \"segments\": %" PRIu64 ", \"orphans\": %" PRIu64 ", \"quarantine_bytes\": %" PRIu64
	             ", \"read_bytes\": %" PRIu64 ", \"damaged_files\": %" PRIu64 ",\n \"findings\": [%s],\n"
	             " \"files\": [%s]}\n",
	             status, r->worst == CHECK_NOTE && !r->stopped ? "true" : "false", kinds[r->worst],
	             r->stopped ? "true" : "false", data ? "true" : "false", seconds, r->inodes, r->names, r->chunks,
	             r->segments, r->orphans, r->quarantined, r->read, r->files,
	             c->findings_text ? c->findings_text : "", c->files_text ? c->files_text : "");
}

void check_report_end(struct check_report *c, const struct check_result *r, bool data, double seconds, int status)
{
	if (c->findings)
		(void)fflush(c->findings);
	if (c->files)
		(void)fflush(c->files);
	if (c->json)
		end_json(c, r, data, seconds, status);
	else
		end_text(r, data);
}

void check_report_release(struct check_report *c)
{
	if (c->findings)
		(void)fclose(c->findings);
	if (c->files)
		(void)fclose(c->files);
	free(c->findings_text);
	free(c->files_text);
}
