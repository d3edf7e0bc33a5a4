/* Labels of key slots: up to LABEL_MAX bytes of UTF-8 for people to read, kept where anybody can read and change them.
 */
#ifndef APFS_PIPELINE_LABEL_H
#define APFS_PIPELINE_LABEL_H

#include "base/err.h"

#include <stddef.h>

#define LABEL_MAX        63                  /* bytes, without the zero */
#define LABEL_SHOWN_SIZE (4 * LABEL_MAX + 1) /* room for any label, escaped */

/* -EINVAL: not UTF-8, too long, or with characters that control what is around them. */
int label_check(const char *label, struct err *e) MUST_CHECK;

/* A label of whatever bytes as it can be shown: what label_check refuses, and backslashes, become \xNN. */
const char *label_escape(const char *label, char out[LABEL_SHOWN_SIZE]);

#endif
