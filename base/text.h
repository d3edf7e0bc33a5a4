/* Bytes that somebody else chose, as they may be shown. */
#ifndef APFS_BASE_TEXT_H
#define APFS_BASE_TEXT_H

#include <stddef.h>
#include <stdio.h>

#define TEXT_SHOWN 5 /* bytes that text_show may write, the zero included */

/* How many bytes the UTF-8 character at the beginning of s has; 0 if there is none, or one that controls what is around
 * it: control characters, line and paragraph separators, what changes the direction of writing. */
size_t text_character(const char *s);

/* Writes the first character of s as a terminal may get it, or \xNN for its first byte where text_character refuses it
 * or it is a backslash. Returns how many bytes of s that was: not for an empty string. */
size_t text_show(const char *s, char out[TEXT_SHOWN]);

/* Writes a string of JSON. Bytes that are no UTF-8 become lone surrogates, as Python's "surrogateescape" reads them:
 * JSON libraries have no way to say them, and names of files may have them. */
void text_json(FILE *f, const char *s);

#endif
