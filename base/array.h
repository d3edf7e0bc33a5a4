/* Arrays that grow. */
#ifndef APFS_BASE_ARRAY_H
#define APFS_BASE_ARRAY_H

#include "base/err.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

/* Makes room for one more element of `size` bytes beyond the `used` ones: array points to a pointer to malloc'd memory
 * (NULL at first), *room is how many elements it holds. -ENOMEM leaves all as it was. */
static inline MUST_CHECK int array_grow(void *array, size_t *room, size_t used, size_t size)
{
	void **a = array, *bigger;
	size_t want = *room ? 2 * *room : 64;

	if (used < *room)
		return 0;
	bigger = reallocarray(*a, want, size);
	if (!bigger)
		return -ENOMEM;
	*a = bigger;
	*room = want;
	return 0;
}

#endif
