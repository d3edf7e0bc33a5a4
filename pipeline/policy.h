/* The policies: pure functions of what is known about a file. */
#ifndef APFS_PIPELINE_POLICY_H
#define APFS_PIPELINE_POLICY_H

#include <stdint.h>

/* Plaintext bytes of a chunk for a file of `size` bytes: a power of two, log-interpolated inside the bands < 10 MB
 * 64-256 KiB, 10-100 MB 256 KiB-1 MiB, 100 MB-1 GB 1-4 MiB, > 1 GB 4-16 MiB, and at most memory / 16. */
uint32_t policy_chunk_size(uint64_t size, uint64_t memory);

/* Worker threads for this many cores. */
unsigned policy_workers(unsigned cores);

#endif
