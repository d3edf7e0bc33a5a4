/* Pages and WAL slots as they lie in the files, sealed; docs/FORMAT.md, section Index, has the layout. */
#ifndef APFS_INDEX_SEALED_H
#define APFS_INDEX_SEALED_H

#include "index/vfs.h"

/* Seals page `number` as SQLite has it to `out`, size bytes each; in == out is allowed. -EUCLEAN: its reserved bytes,
 * which are not kept, are not zero. */
int page_seal(const struct index_sealer *s, uint32_t size, uint32_t number, const uint8_t *in, uint8_t *out) MUST_CHECK;

/* xRead of the database, and xWrite: SQLite's code; 0 or -errno. */
int page_read(struct vfs *v, void *buf, size_t len, uint64_t off) MUST_CHECK;
int page_write(struct vfs *v, const void *buf, size_t len, uint64_t off) MUST_CHECK;

/* The same of the WAL. */
int slot_read(struct vfs *v, void *buf, size_t len, uint64_t off) MUST_CHECK;
int slot_write(struct vfs *v, const void *buf, size_t len, uint64_t off) MUST_CHECK;

/* Looks at a WAL that was opened, before SQLite reads it. SQLITE_OK, or SQLite's code for an error or damage. */
int slot_recover(struct vfs *v) MUST_CHECK;

/* The size of the WAL as SQLite sees it when the file has `size` bytes; and the file's for SQLite's. */
uint64_t slot_size_seen(const struct vfs *v, uint64_t size);
uint64_t slot_size_stored(const struct vfs *v, uint64_t size);
/* Where slot n begins in the file. */
uint64_t slot_offset(const struct vfs *v, uint64_t number);

#endif
