/* What `apfs check` prints: text as it comes, or one JSON object at the end. */
#ifndef APFS_TOOLS_CHECK_REPORT_H
#define APFS_TOOLS_CHECK_REPORT_H

#include "fs/core/check.h"

#include <stdio.h>

struct check_report {
	bool json;
	/* JSON is gathered: the members of "findings" and of "files". */
	FILE *findings, *files;
	char *findings_text, *files_text;
	size_t findings_len, files_len;
};

void check_report_finding(struct check_report *c, enum check_kind kind, const char *text);
void check_report_file(struct check_report *c, const struct check_file *f);
void check_report_end(struct check_report *c, const struct check_result *r, bool data, double seconds, int status);
void check_report_release(struct check_report *c);

#endif
