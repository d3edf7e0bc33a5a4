/*
 * What the files of fs/core share: the volume and its nodes.
 *
 * Locks, in the order in which they may be taken (see docs/ARCHITECTURE.md):
 *   ns       every change of names, modes, extended attributes and the existence of inodes, and the final part of a cut
 *   node     one inode's attributes and map; two nodes only under ns
 *   table    the node table, lookup counts, dirty list
 *   chunks, cache, memory, kick: leaves, held for a few instructions (kick below memory)
 *   sync     who waits for a cut; taken with no other lock held, `node` and `table` may follow
 * The index has its own mutex, below `node`. Nobody holds any of these over a codec, and only `sync`'s leader waits
 * for the disk.
 */
#ifndef APFS_FS_CORE_VOLUME_H
#define APFS_FS_CORE_VOLUME_H

#include "base/budget.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/pool.h"
#include "fs/core/buffer.h"
#include "fs/core/core.h"
#include "fs/core/index_seal.h"
#include "fs/core/map.h"
#include "index/index.h"
#include "pipeline/pipeline.h"
#include "pipeline/policy.h"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/queue.h>

#define uthash_fatal(msg) ((void)0)
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

/* Bits of index_inode.flags beside INDEX_INODE_XATTRS. */
enum {
	NODE_CAPABILITY = 2, /* may have security.capability */
	NODE_PREFERS = 4,    /* may have the attributes of struct preference */
	NODE_CLONED = 8      /* may map bytes of chunks whose records name another file */
};

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Why every cut must include an inode's data. */
enum {
	DUE_ALL = 1,   /* renamed over a file: all of it */
	DUE_CLONES = 2 /* cloned: the extents of other files' chunks */
};

/* How the data of a file is to be stored, as far as users have a say. */
struct preference {
	struct codec_choice compress;
	enum policy_priority priority;
	bool own_compress, own_priority; /* said by its own extended attributes, not by the mount */
};

struct node {
	UT_hash_handle hh;          /* table */
	TAILQ_ENTRY(node) lru;      /* table: while refs is 0 */
	TAILQ_ENTRY(node) on_dirty; /* table: while listed */
	uint64_t ino;
	unsigned refs;  /* table: threads that use it, open files, the dirty list */
	unsigned opens; /* table: open files */
	bool listed;    /* table: on the dirty list */
	size_t held;    /* memory: bytes of its buffers, and of writes that may fill some */

	pthread_mutex_t lock; /* all below */
	struct index_inode attr;
	uint64_t cut_size;      /* size as the index has it or the cut under way will write it */
	uint64_t cut_bytes;     /* the same for what is stored, an estimate */
	uint64_t pending_bytes; /* plaintext bytes of data that no cut has counted into attr.blocks */
	uint64_t read_next;     /* where a sequential reader would go on */
	uint64_t full_from;     /* sequential writer: whole buffers from here on may be sealed */
	struct map map;
	struct preference prefers; /* if prefers_known: prefer_node() */
	unsigned writers;          /* open files that may write */
	unsigned inflight;         /* batches with items of this node */
	uint32_t unsealed;         /* bytes in whole, unsealed buffers */
	uint32_t streak;           /* successive reads that continued at read_next */
	bool nameless;             /* made without a name, and has had none yet */
	bool dense_name;           /* it was created with a name that makes dense data likely */
	bool loaded;               /* attr is filled */
	bool prefers_known;
	bool in_index;   /* the index has a row or extents */
	bool attr_dirty; /* attr differs from the row */
	atomic_uint due; /* DUE_* */
	bool cutting;    /* a cut is taking its snapshot: no batch may start */
	bool in_cut;     /* a cut holds a snapshot of it */
	bool gone;       /* deleted for good */
};

TAILQ_HEAD(node_list, node);

struct adapt;
struct chunk_table;
struct compact;
struct copy;
struct frame_cache;
struct lookup_page;
struct sampler;

/* One waiter for a cut. */
struct sync_request {
	STAILQ_ENTRY(sync_request) link;
	struct node *node; /* NULL: everything */
	struct copy *copy; /* NULL, or what compaction has copied: then it is all that is waited for */
	bool done;
	int ret;
};
STAILQ_HEAD(sync_queue, sync_request);

struct memory_waiter;
TAILQ_HEAD(memory_queue, memory_waiter);

enum space_failure { SPACE_FOUND, SPACE_NO_DATA, SPACE_NO_NAMES };

/* See space.c. */
struct space {
	uint64_t margin, slack, checkpoint, segment; /* bytes, fixed */
	atomic_bool is_short, freed;                 /* freed: a cut of everything may give something back */
	atomic_bool purging;                         /* quarantine/: the log says so */
	bool was_short, cut_freed;                   /* the cut's leader: what the last one began with */
	_Atomic uint64_t quarantine;                 /* bytes */
	/* memory_lock: */
	uint64_t claimed;          /* bytes of accepted writes that are not in buffers yet */
	uint64_t avail, asked;     /* of STORE, and when it was asked (monotonic ns) */
	enum space_failure failed; /* what the last cut could not store */
	uint64_t failed_at, told_at;
};

struct core {
	struct core_options opt;
	struct policy policy;
	const struct clock *clock;
	struct io *io; /* over opt.io: with the reserve or, read-only, with what changes in memory */
	struct superblock *sb;
	struct keyring *keyring;
	struct index_seal seal; /* the index's */
	struct index *index;
	struct governor *governor; /* NULL: off */
	struct pipeline *pipeline;
	struct budget budget;
	struct pool *pool;
	struct metrics *metrics; /* NULL: off */
	struct sampler *sampler; /* NULL: none */
	struct adapt *adapt;     /* NULL: no feedback; and what it has come to: */
	atomic_int level;        /* steps from where the policy begins */
	atomic_uint shrink;      /* halvings of a chunk */
	uint64_t opened;         /* monotonic ns */
	struct chunk_table *chunks;
	struct frame_cache *cache;

	pthread_mutex_t ns;
	atomic_bool ns_dirty;   /* the open transaction holds changes of names, or what a failed commit left in it */
	atomic_uint clone_rows; /* extents of clones that no cut has taken yet */
	uint64_t *reaping;      /* ns: inodes of which the extents are being deleted */
	size_t nreaping;

	pthread_mutex_t table_lock;
	struct node *table;
	struct node_list lru, dirty;
	size_t idle_nodes, dirty_nodes;
	atomic_size_t pieces; /* of all maps */
	struct lookup_page *lookups;

	/* Numbers given out, and the ceilings that the index promises never to have been reached (see ids.c). */
	atomic_uint_fast64_t next_ino, next_cookie, next_chunk, next_sequence;
	uint64_t ino_ceiling, cookie_ceiling, chunk_ceiling, sequence_ceiling;

	pthread_mutex_t memory_lock;
	struct memory_queue memory_queue; /* writes that wait */
	size_t memory_admitted;           /* bytes of writes that wait no more and are not in buffers yet */
	size_t dirty_buffers;
	size_t dirty_limit; /* bytes of buffers, in their whole capacity */
	struct space space;
	unsigned cut_failures; /* so far; cut_error is the last one's */
	int cut_error;
	unsigned batches; /* under way */
	uint64_t batches_ended;
	pthread_cond_t batch_cond;

	pthread_mutex_t sync_lock;
	pthread_cond_t sync_cond;
	struct sync_queue sync_queue;
	bool cut_running;
	bool cut_passed;          /* the last cut has passed over those who wait for one of everything */
	uint64_t cut_from;        /* the cut's leader: the stream that goes first is this inode or the next above */
	bool retry_full;          /* the cut's leader: the last one failed with something sealed or entered */
	bool half_entered;        /* the same: its extents are in the transaction, perhaps without their sizes */
	atomic_uint_fast64_t cut; /* number of the cut under way or last made */
	atomic_uint_fast64_t last_segment; /* highest id that the index knows */
	uint64_t growing_segment;          /* lowest id whose row may still change */

	struct compact *compact;
	atomic_uint_fast64_t requests; /* see core_busy */

	pthread_t committer;
	bool committer_running;
	pthread_mutex_t kick_lock;
	pthread_cond_t kick_cond;                   /* CLOCK_MONOTONIC */
	bool stopping, kicked;                      /* kick_lock */
	atomic_int failed;                          /* -errno once the volume has stopped */
	atomic_uint_fast64_t bad_read, bad_read_at; /* the damage that was logged last, and when */
};

/* --- node.c ------------------------------------------------------------------------------------------------------- */

/* The node of ino with a reference; -ENOENT. node_put gives it back. */
int node_get(struct core *c, uint64_t ino, struct node **out) MUST_CHECK;
/* The node if it is in memory already, else NULL. */
struct node *node_peek(struct core *c, uint64_t ino);
void node_put(struct core *c, struct node *n);
static inline void node_ref(struct core *c, struct node *n)
{
	SCOPED_LOCK(&c->table_lock);
	n->refs++;
}
/* A fresh node for a new inode, loaded, not in the index, with a reference. */
int node_create(struct core *c, const struct index_inode *attr, struct node **out) MUST_CHECK;
/* Puts the node on the dirty list. */
void node_dirty(struct core *c, struct node *n);
/* The index, as of the last commit, says the same as this node. Under n->lock. */
bool node_durable(const struct node *n);
/* Takes it off if it is durable. Under n->lock. */
void node_clean(struct core *c, struct node *n);
/* All on the dirty list, with references, malloc'd. */
int node_list_dirty(struct core *c, struct node ***list, size_t *n) MUST_CHECK;
/* Under ns: deletes the inode for good if it has no name, no reference of the kernel's and no open file. */
int node_reap(struct core *c, struct node *n) MUST_CHECK;
/* A failure is logged, and the orphan found at the next mount. */
void node_reap_or_leave(struct core *c, struct node *n);
/* The same, and takes ns. */
void node_reap_logged(struct core *c, struct node *n);
/* Frees every node, whatever its state. */
void node_table_release(struct core *c);

void lookup_add(struct core *c, uint64_t ino, uint32_t count);
/* Returns what is left. */
uint32_t lookup_sub(struct core *c, uint64_t ino, uint64_t count);

/* Fills *out from n. Under n->lock. */
void node_attr(const struct node *n, struct core_attr *out);
/* The st_blocks that belong to cut_bytes. */
static inline uint64_t node_cut_blocks(const struct node *n)
{
	return n->cut_bytes / 512 + (n->cut_bytes % 512 != 0);
}
/* Called when nlink becomes 0: keeps the node in memory until node_reap. Under n->lock. */
void node_orphan(struct core *c, struct node *n);
/* The opposite: n was made without a name and gets its first one. */
void node_named(struct core *c, struct node *n);
/* The access time of something that is read, as relatime has it. Under n->lock. */
void node_accessed(struct core *c, struct node *n);
/* Marks the attributes changed. Under n->lock. */
void node_touch(struct core *c, struct node *n);

/* Counts a request, for whoever wants to know whether there are any. Some may go uncounted. */
static inline void core_busy(struct core *c)
{
	uint64_t n = atomic_load_explicit(&c->requests, memory_order_relaxed);

	atomic_store_explicit(&c->requests, n + 1, memory_order_relaxed);
}

struct clock_time core_now(const struct core *c);
uint64_t core_monotonic(const struct core *c);
/* Stops the volume for good: later changes fail with ret. Logs why. Returns ret. */
int core_stop(struct core *c, int ret, const struct err *e, const char *what);
/* Passes ret on. A transaction that the index has lost stops the volume; otherwise (no space, no memory) what entered
 * it stays, and entering it again with the next cut changes nothing. */
int core_index_result(struct core *c, int ret, const struct err *e, const char *what);
/* 0, -EROFS or what stopped the volume: checked before every change. */
int core_may_write(struct core *c) MUST_CHECK;

/* --- ids.c -------------------------------------------------------------------------------------------------------- */

int ids_load(struct core *c) MUST_CHECK;
/* Under ns, before a commit: raises the ceilings that are near. */
int ids_reserve(struct core *c) MUST_CHECK;

/* --- chunks.c: what is known of chunks ---------------------------------------------------------------------------- */

/* A chunk in memory. Fresh ones (sealed, not in the index) stay until a cut installs or drops them. */
struct chunk {
	UT_hash_handle hh;
	TAILQ_ENTRY(chunk) lru;
	TAILQ_ENTRY(chunk) on_fresh;
	uint64_t id, sequence, born; /* born: the cut that was current when it was submitted */
	unsigned refs;
	bool fresh;
	bool shared; /* fresh: holds data of several inodes */
	bool in_row; /* inline, and its record must be fetched from the index */
	struct pipeline_chunk *p;
	uint32_t start[]; /* plaintext offset of each frame, and the end: nframes + 1 */
};

#define CHUNK_ROW_FRAMES ((size_t)10 + (size_t)8192 * 11) /* bytes of a frame table at most */
/* What a row says of a chunk: malloc'd. -EBADMSG: a malformed frame table. */
int chunk_row_decode(const struct index_chunk *row, struct pipeline_chunk **out) MUST_CHECK;
int chunk_table_new(struct chunk_table **out) MUST_CHECK;
void chunk_table_free(struct chunk_table *t);
/* Takes p over. born UINT64_MAX: it stays until chunk_forget. */
int chunk_add_fresh(struct core *c, struct pipeline_chunk *p, uint64_t sequence, uint64_t born, bool shared) MUST_CHECK;
/* With a reference; from the index if need be. -ENOENT. */
int chunk_get(struct core *c, uint64_t id, struct chunk **out) MUST_CHECK;
void chunk_put(struct core *c, struct chunk *k);
/* Writes a fresh chunk's row if it has none yet. Cut only. */
int chunk_install(struct core *c, uint64_t id) MUST_CHECK;
/* After a full cut: forgets fresh chunks born before it that nothing refers to. */
void chunk_drop_stale(struct core *c, uint64_t cut);
/* Drops a fresh chunk that nothing refers to; one that is installed stays. */
void chunk_forget(struct core *c, uint64_t id);
/* The frame that holds plaintext byte pos. */
uint32_t chunk_frame_at(const struct chunk *k, uint32_t pos);
/* The chunk is fresh and holds data of several inodes. */
bool chunk_is_joint(struct core *c, uint64_t id);
/* Does a fresh chunk live in this segment? */
bool chunk_fresh_in(struct core *c, uint64_t segment);
/* Copies len bytes at pos of the chunk's plaintext to dst. */
int chunk_copy(struct core *c, uint64_t id, uint32_t pos, uint32_t len, uint8_t *dst, struct err *e) MUST_CHECK;
/* Reads, opens and decompresses frames [frame, frame + count) to consecutive places of out, past the cache. */
int frame_read(struct core *c, struct chunk *k, uint32_t frame, uint32_t count, void *out, struct err *e) MUST_CHECK;
/* Decodes the frames that hold [pos, pos + len) into the cache, without waiting for those under way. */
void chunk_prefetch(struct core *c, uint64_t id, uint32_t pos, uint32_t len);
/* The extents that map bytes of a chunk, in the order of their places in it; none further once there are `most`. After
 * a failure those that were read before. The caller frees *out. */
int chunk_extents(struct index *ix, uint64_t id, size_t most, struct index_owned_extent **out, size_t *n) MUST_CHECK;

/* --- cache.c: decoded frames -------------------------------------------------------------------------------------- */

struct cached_frame;

int frame_cache_new(struct core *c, struct frame_cache **out) MUST_CHECK;
void frame_cache_free(struct frame_cache *f);
/* The frame's plaintext, pinned until frame_cache_put: from memory, or read, opened and decompressed now. */
int frame_cache_get(struct core *c, struct chunk *k, uint32_t frame, struct cached_frame **out, const uint8_t **data,
                    struct err *e) MUST_CHECK;
/* The same where it is in memory: false if not. No hit, no miss. */
bool frame_cache_peek(struct core *c, uint64_t chunk, uint32_t frame, struct cached_frame **out,
                      const uint8_t **data) MUST_CHECK;
void frame_cache_put(struct core *c, struct cached_frame *f);
bool frame_cache_has(struct core *c, uint64_t chunk, uint32_t frame);
/* Gives memory back to the pool: false when nothing can be evicted. */
bool frame_cache_evict(struct core *c);

/* --- seal.c: buffers to chunks ------------------------------------------------------------------------------------ */

/* One buffer piece to seal, and where it went. */
struct seal_item {
	struct node *node;     /* holds a reference */
	struct buffer *buffer; /* holds a reference */
	uint64_t off;
	uint64_t size; /* of the file */
	uint32_t len, pos;
	struct preference prefers;
	enum policy_kind kind; /* the cut's, as is: */
	uint64_t turn;         /* order among items of a kind */
	uint64_t chunk;        /* out; 0 when sealing failed */
	uint32_t chunk_pos;
};

/* What a group of chunks reports to: seal_wait returns the first error. */
struct seal_group {
	unsigned pending; /* under core.memory_lock, as is ret */
	int ret;
	struct err err;
};

/* What a chunk is made of, for the policies. */
struct seal_data {
	enum policy_kind kind;
	uint64_t size;   /* of the file; 0: of several, or it does not matter */
	bool dense_name; /* see struct node */
	bool many;       /* there are more chunks to seal at about the same time */
	bool cold;       /* nobody waits, and it is not likely to be replaced soon */
	const struct preference *prefers;
};
/* Submits a request of which what to seal, as which chunk, and who is told are filled in. Whoever is told calls
 * seal_end last, with the chunk's result: the group may be gone after. g may be NULL. */
void seal_start(struct core *c, struct pipeline_seal *rq, const struct seal_data *data, struct seal_group *g);
void seal_end(struct core *c, struct seal_group *g, int ret, const struct err *e);
/* Seals items [0, n) of the same preference, which stay the caller's if it has a group (and are then filled in), and
 * are copied if it has none. The items' pieces must be marked sealing already, and inflight counted. many: there are
 * other items to seal at about the same time. */
int seal_submit(struct core *c, struct seal_item *item, size_t n, enum policy_kind kind, bool many, bool to_inline,
                struct seal_group *g) MUST_CHECK;
int seal_wait(struct core *c, struct seal_group *g) MUST_CHECK;
/* Takes the piece p of n for sealing: marks and counts it and fills *item. Under n->lock. */
void seal_take(struct core *c, struct node *n, struct piece *p, struct seal_item *item);
/* Ends items: the pieces that still show what one took become extents of its chunk or, if that is 0, dirty buffers
 * again. Gives back the buffers, not the nodes. Takes each node's lock, once for those of it that follow each other:
 * their writer wants it, too. */
void seal_settle(struct seal_item *item, size_t count);
/* Background: seals the whole buffers of a sequential writer if they fill a chunk. Called without locks. */
void seal_stream(struct core *c, struct node *n);
/* Waits until no batch of n is under way. Under n->lock, which is released meanwhile. */
void seal_drain(struct core *c, struct node *n);

/* --- cut.c and commit.c ------------------------------------------------------------------------------------------- */

enum cut_kind {
	CUT_SOME, /* the wanted inodes and those that are due */
	CUT_LEAN, /* deletions, when there is no room for data: what is due, and all inodes that have nothing to store
	           */
	CUT_FULL  /* everything */
};

/* Snapshot, seal, sync of the segments, install. A failure before installing leaves all of it dirty, to be tried again.
 * Cut's leader only. */
int cut_round(struct core *c, enum cut_kind kind, struct node *const *wanted, size_t nwanted, struct err *e) MUST_CHECK;
/* Waits for a cut that begins after this call and includes n's data, or everything's (n NULL). */
int cut_wait(struct core *c, struct node *n) MUST_CHECK;
/* The same for everything, also where there is nothing to store but space to be given back. */
int cut_wait_space(struct core *c) MUST_CHECK;
/* Waits for a cut that makes a copy's new chunks durable and remaps what it moved. */
int cut_wait_copy(struct core *c, struct copy *copy) MUST_CHECK;
int committer_start(struct core *c) MUST_CHECK;
void committer_stop(struct core *c);
/* Asks for a cut soon. */
void committer_kick(struct core *c);

/* --- memory.c: how much may be dirty ------------------------------------------------------------------------------ */

/* Waits until len more bytes of n may become dirty, and claims room for them in memory and in STORE: memory_release
 * when they are in buffers. -ENOSPC when STORE has no room for them, or what keeps cuts from making memory clean. No
 * locks may be held. */
int memory_wait(struct core *c, struct node *n, size_t len) MUST_CHECK;
void memory_release(struct core *c, struct node *n, size_t len);
/* Lets in who may not have to wait any more. Under memory_lock. */
void memory_next(struct core *c);
/* A cut is over: whoever waits for memory gets its failure. */
void memory_cut_ended(struct core *c, int ret);

/* --- space.c: whether STORE has room ------------------------------------------------------------------------------ */

void space_init(struct core *c);
/* -ENOSPC and -EDQUOT. */
bool space_lacks(int ret);
/* Keeps room for len bytes of file data until space_unclaim; finds it first if it can (a cut, old quarantined
 * segments), or -ENOSPC. No locks may be held. */
int space_claim(struct core *c, size_t len) MUST_CHECK;
void space_unclaim(struct core *c, size_t len);
/* The same for what compaction copies, with this many rows of the index: from half of what is set aside, and without
 * looking for more. False: no room. */
bool space_claim_scratch(struct core *c, size_t len, uint64_t rows);
/* The same for a new name or extended attribute of this many bytes, which is not kept but entered at once. */
int space_for_name(struct core *c, size_t bytes) MUST_CHECK;
/* A name fits, and space is not short. */
bool space_plenty(struct core *c);
/* Before a change that needs none: where space is short, transactions are kept small. No locks may be held. */
void space_pause(struct core *c);
/* Bytes of the index's pages after which a commit is due. */
size_t space_pending_max(struct core *c, size_t normal);
static inline bool space_is_short(struct core *c)
{
	return atomic_load(&c->space.is_short);
}
/* Something was deleted. */
static inline void space_freed(struct core *c)
{
	atomic_store(&c->space.freed, true);
}
/* Around a cut. ret: its result; names: that of a lean one in its place; reclaimed: empty segments were deleted. */
void space_cut_begins(struct core *c);
void space_cut_ended(struct core *c, int ret, int names, bool reclaimed);
/* Looks at what is in quarantine/. */
void space_quarantine(struct core *c);
/* Rebuilds the reserve from what is to spare; and, when the volume is closed, from all there is. */
void space_refill(struct core *c);
void space_keep(struct core *c);

/* --- data.c ------------------------------------------------------------------------------------------------------- */

struct core_file {
	struct core *core;
	struct node *node;
	int flags;
	bool writer;
};

/* core_file_read. access: the access time may change. */
ssize_t data_read(struct core_file *f, void *buf, size_t len, uint64_t off, bool access) MUST_CHECK;
/* Makes a hole, which needs no space. Under n->lock. */
int data_set_hole(struct core *c, struct node *n, uint64_t off, uint64_t len) MUST_CHECK;
/* Cuts or extends the file to `size`. Under n->lock. */
int data_truncate(struct core *c, struct node *n, uint64_t size) MUST_CHECK;
/* After a write: clears the set-id bits that `kill` (CORE_KILL_*) says, and file capabilities unless it has
 * CORE_KEEP_CAPABILITY. Under n->lock. */
int data_kill_priv(struct core *c, struct node *n, unsigned kill) MUST_CHECK;
/* Where the map caches much of the index, forgets that. Under n->lock. */
void data_forget(struct node *n);
/* Makes the map known from `from`, which no piece holds, up to the next piece or as many extents as one question to
 * the index yields. May forget other clean pieces. Under n->lock. */
int data_load(struct core *c, struct node *n, uint64_t from) MUST_CHECK;
/* The piece that holds off, which is below the file's size; loads it if need be. Under n->lock. */
int data_piece(struct core *c, struct node *n, uint64_t off, struct piece **out) MUST_CHECK;

/* --- acl.c -------------------------------------------------------------------------------------------------------- */

#define ACL_ACCESS  "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"

/* The mode of a new inode under parent, and its ACLs: what inherits from the parent's default ACL, else the umask.
 * Writes the ACLs of ino to the index; *has_xattr says whether there are any. */
int acl_inherit(struct core *c, const struct index_inode *parent, uint64_t ino, uint32_t umask, uint32_t *mode,
                bool *has_xattr) MUST_CHECK;
/* Mode bits that an access ACL implies: -EINVAL for a malformed one. *trivial: it says no more than the mode does. */
int acl_to_mode(const void *acl, size_t len, uint32_t *mode, bool *trivial) MUST_CHECK;
/* Brings the access ACL in line after chmod. len stays. */
int acl_chmod(void *acl, size_t len, uint32_t mode) MUST_CHECK;
/* 0 if it is a well-formed ACL. */
int acl_check(const void *acl, size_t len) MUST_CHECK;

/* --- prefer.c ----------------------------------------------------------------------------------------------------- */

#define PREFER_COMPRESSION "user.apfs.compression" /* as codec_choice_parse takes it */
#define PREFER_PRIORITY    "user.apfs.priority"    /* as policy_priority_parse takes it */

bool prefer_is_name(const char *name);
/* 0 if it is a value for that name, else -EINVAL. */
int prefer_check(const char *name, const void *value, size_t len) MUST_CHECK;
/* The preference for an inode of which this is the row's flags: the mount's where it has none of its own. *out is
 * filled even where its attributes cannot be read. */
int prefer_of(struct core *c, uint64_t ino, uint32_t flags, struct preference *out) MUST_CHECK;
/* The same, kept in the node. Under n->lock. */
void prefer_node(struct core *c, struct node *n, struct preference *out);
/* Below, at or above 0, as b is to be sorted after, with or before a. */
int prefer_order(const struct preference *a, const struct preference *b);
/* Gives a new inode, whose other members are filled in, what its directory has. Under ns. */
int prefer_inherit(struct core *c, const struct index_inode *parent, struct index_inode *inode) MUST_CHECK;

/* --- compact.c ---------------------------------------------------------------------------------------------------- */

int compact_new(struct core *c) MUST_CHECK;
void compact_free(struct core *c);
/* The background thread. stop: waits for the end of the step under way. */
int compact_start(struct core *c) MUST_CHECK;
void compact_stop(struct core *c);
/* A cut has changed something. */
void compact_changed(struct core *c);
/* STORE is short of space: has the segment with the least to copy compacted at once, and waits. False when that gave
 * nothing. No locks may be held. */
bool compact_find_room(struct core *c);
/* About how many bytes that may find, with this much space to copy to. */
uint64_t compact_could_find(struct core *c, uint64_t scratch);
/* Bytes of file data's memory that compaction keeps for itself. */
size_t compact_memory(uint64_t memory);

/* --- adapt.c: feedback -------------------------------------------------------------------------------------------- */

/* Begins it; it needs the metrics, and the pipeline. */
int adapt_new(struct core *c) MUST_CHECK;
void adapt_free(struct core *c);
/* Takes a sample if one is due. Leaf locks only. */
void adapt_tick(struct core *c);
/* For people: where it stands and, if asked for, the last decisions. */
void adapt_print(struct core *c, FILE *f, bool decisions);

/* --- sampler.c: how busy the volume is ---------------------------------------------------------------------------- */

/* Totals that only grow, ns. */
struct effort {
	uint64_t at;      /* the time */
	uint64_t process; /* of processors that this process has used */
	uint64_t stages;  /* that codecs and ciphers took, in all threads */
	uint64_t io;      /* in which an operation on STORE was under way */
};
void effort_look(const struct core *c, struct effort *e);

/* A thread that looks at it every c->opt.sample_ms, keeps the saturations and writes alerts to the log. */
int sampler_start(struct core *c) MUST_CHECK;
void sampler_stop(struct core *c);

/* --- reap.c ------------------------------------------------------------------------------------------------------- */

/* Enters a hole in a file, as far as one step goes: *hole becomes what is left of it. A file may have very many
 * extents, and the index is not held for all of them. gone: as index_extent_replace. */
int extents_clear_step(struct core *c, uint64_t ino, struct index_extent *hole, uint64_t *gone) MUST_CHECK;
/* Deletes some of what the index has of an inode; *more: there is more. */
int reap_step(struct core *c, uint64_t ino, bool *more) MUST_CHECK;
/* Under ns: deletes an inode with its extents; many of them in the background, by reap_rest. row: its row, with no
 * links. */
int reap_inode(struct core *c, const struct index_inode *row) MUST_CHECK;
/* Goes on with that to the end, with cuts in between: false if there was nothing to do. No locks may be held. */
bool reap_rest(struct core *c);

/* --- recover.c ---------------------------------------------------------------------------------------------------- */

int recover(struct core *c, struct err *e) MUST_CHECK;
/* Takes a segment that the index knows back from quarantine/: an older copy of the index was in its place for a while.
 * False: it is not there, or cannot be moved. */
bool recover_back(struct io *io, const char *path, struct io_stat *st) MUST_CHECK;
/* After a durable commit: deletes segments that nothing refers to. */
void reclaim_segments(struct core *c);

#endif
