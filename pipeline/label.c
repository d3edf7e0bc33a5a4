#include "pipeline/label.h"

#include "base/text.h"

#include <errno.h>
#include <string.h>

int label_check(const char *label, struct err *e)
{
	if (strlen(label) > LABEL_MAX)
		return err_set(e, -EINVAL, ERR_USAGE, "the label is longer than %d bytes", LABEL_MAX);
	while (*label) {
		size_t n = text_character(label);

		if (!n)
			return err_set(e, -EINVAL, ERR_USAGE, "the label is not UTF-8, or has control characters");
		label += n;
	}
	return 0;
}

const char *label_escape(const char *label, char out[LABEL_SHOWN_SIZE])
{
	char *to = out;

	for (size_t i = 0; i < LABEL_MAX && label[i];) {
		i += text_show(label + i, to);
		to += strlen(to);
	}
	*to = 0;
	return out;
}
