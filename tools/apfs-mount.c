/* apfs-mount STORE MOUNTPOINT: mounts, and serves the mount until it is unmounted. */
#include "base/log.h"
#include "base/option.h"
#include "fs/core/core.h"
#include "fs/fuse/mountinfo.h"
#include "fs/fuse/session.h"
#include "pipeline/keys.h"
#include "pipeline/policy.h"
#include "tools/control.h"
#include "tools/daemon.h"
#include "tools/metrics_http.h"
#include "tools/mount_options.h"
#include "tools/process.h"
#include "tools/remount.h"
#include "tools/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define UMOUNT_HELPER "/sbin/umount.fuse.apfs"

struct mounting {
	struct mount_options *o;
	struct daemon daemon;
	struct store store;
	char *mountpoint; /* absolute */
	char *config;     /* what the mount says of its settings */
	struct secret_held secret;
	struct core *core;
	struct control *control; /* NULL: there is none */
	struct sockaddr_storage listen;
	struct metrics_http *http; /* NULL: nobody is served */
	struct session *session;
	bool made; /* STORE was made by this run */
};

/* --- checks before anything is asked ------------------------------------------------------------------------------ */

static bool inside(const char *inner, const char *outer)
{
	size_t len = strlen(outer);

	if (len == 1) /* "/" */
		return true;
	return strncmp(inner, outer, len) == 0 && (inner[len] == '/' || inner[len] == 0);
}

static enum exit_status check_mountpoint(struct mounting *m)
{
	const char *given = m->o->mountpoint;
	struct daemon *d = &m->daemon;
	struct mountinfo info;
	struct statfs fs;
	struct stat st;

	m->mountpoint = realpath(given, NULL);
	if (statfs(given, &fs) < 0 && errno == ENOTCONN) /* unlike stat, never answered from a cache */
		return daemon_say(d, EXIT_BUSY_MOUNTPOINT,
		                  "mountpoint %s: the process of the mount there has died: umount -l it first", given);
	if (!m->mountpoint)
		return daemon_say(d, EXIT_NO_MOUNTPOINT, "mountpoint %s: %s", given, strerror(errno));
	if (mountinfo_find(m->mountpoint, &info) == 0)
		return daemon_say(d, EXIT_BUSY_MOUNTPOINT, "mountpoint %s: %s is mounted there already", given,
		                  mountinfo_is_apfs(&info) ? "an apfs store" : info.type);
	if (stat(m->mountpoint, &st) < 0)
		return daemon_say(d, EXIT_NO_MOUNTPOINT, "mountpoint %s: %s", given, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return daemon_say(d, EXIT_NO_MOUNTPOINT, "mountpoint %s: not a directory", given);
	if (geteuid() != 0 && access(m->mountpoint, W_OK) < 0)
		return daemon_say(d, EXIT_REFUSED, "mountpoint %s: you may not write there, which mounting needs",
		                  given);
	return EXIT_OK;
}

static enum exit_status check_nested(struct mounting *m)
{
	if (inside(m->mountpoint, m->store.path))
		return daemon_say(&m->daemon, EXIT_NESTED, "mountpoint %s lies inside the store", m->o->mountpoint);
	if (inside(m->store.path, m->mountpoint))
		return daemon_say(&m->daemon, EXIT_NESTED, "the store lies inside mountpoint %s", m->o->mountpoint);
	return EXIT_OK;
}

/* --- the store ---------------------------------------------------------------------------------------------------- */

static enum exit_status store_failed(struct mounting *m, int ret, const struct err *e)
{
	if (ret == -EKEYREJECTED)
		return daemon_say(&m->daemon, EXIT_WRONG_PASS, "%s: wrong %s", m->o->store,
		                  secret_type_name(secret_source_type(&m->o->secret)));
	return daemon_say(&m->daemon, store_status(ret), "%s: %s", m->o->store, err_text(e, ret));
}

static enum exit_status open_store(struct mounting *m)
{
	struct err e = {0};
	int ret = store_open(m->o->store, m->o->init, &m->store, &e);

	if (ret)
		return store_failed(m, ret, &e);
	enum exit_status status = check_nested(m);
	if (status)
		return status;
	ret = store_check(&m->store, &e);
	if (ret == -ENOENT && m->o->init) {
		m->made = true;
		return EXIT_OK;
	}
	return ret ? store_failed(m, ret, &e) : EXIT_OK;
}

static enum exit_status read_secret(struct mounting *m)
{
	struct err e = {0};

	if (m->made && m->o->secret.recovery)
		return daemon_say(&m->daemon, EXIT_USAGE, "a new store has no recovery key yet (see apfs init --help)");
	int ret = secret_read(&m->o->secret, m->o->store, m->made, &m->secret, &e);
	if (ret)
		return daemon_say(&m->daemon, EXIT_NO_PASS, "%s", err_text(&e, ret));
	return EXIT_OK;
}

static enum exit_status make_store(struct mounting *m)
{
	const struct settings *s = &m->o->settings;
	const struct core_format f = {
	    .suite = (int)settings_cipher(s),
	    .pass_type = m->secret.secret.type,
	    .kdf_ops = (uint32_t)settings_number(s, SETTING_KDF_OPS),
	    .kdf_mem = settings_number(s, SETTING_KDF_MEM),
	    .uid = getuid(),
	    .gid = getgid(),
	    .mode = 0755,
	};
	struct err e = {0};

	int ret = core_format(m->store.io, &f, m->secret.secret.data, m->secret.secret.len, &e);
	if (ret)
		return store_failed(m, ret, &e);
	(void)daemon_say(&m->daemon, EXIT_OK, "made the store %s", m->o->store);
	return EXIT_OK;
}

static const char *log_where(const struct mounting *m)
{
	const char *given = settings_text(&m->o->settings, SETTING_LOG);

	return given ? given : m->daemon.foreground ? "stderr" : "journal";
}

static enum storage_class storage_class(const struct mounting *m)
{
	enum storage_class set = (enum storage_class)settings_number(&m->o->settings, SETTING_STORAGE);

	return set == STORAGE_AUTO ? storage_detect(m->store.path, &storage_system) : set;
}

static enum exit_status open_core(struct mounting *m, unsigned threads, unsigned spare)
{
	const struct settings *s = &m->o->settings;
	struct err e = {0};
	struct core_options o = {
	    .io = m->store.io,
	    .pass = m->secret.secret.data,
	    .pass_len = m->secret.secret.len,
	    .pass_type = m->secret.secret.type,
	    .memory = settings_number(s, SETTING_MEMORY),
	    .receive = session_memory(threads, spare),
	    .blocks = session_blocks(threads, spare),
	    .commit_interval_ms = (uint32_t)settings_number(s, SETTING_COMMIT_INTERVAL),
	    .compress = s->v[SETTING_COMPRESS].codec,
	    .compress_fixed = settings_commanded(s, SETTING_COMPRESS),
	    .priority = (enum policy_priority)settings_number(s, SETTING_PRIORITY),
	    .priority_fixed = settings_commanded(s, SETTING_PRIORITY),
	    .storage = storage_class(m),
	    .chunk_size = settings_number(s, SETTING_CHUNK_SIZE),
	    .workers = (unsigned)settings_number(s, SETTING_WORKERS),
	    .cpu_tokens = (unsigned)settings_number(s, SETTING_CPU_TOKENS),
	    .io_tokens = (unsigned)settings_number(s, SETTING_IO_TOKENS),
	    .no_governance = settings_number(s, SETTING_NO_GOVERNANCE) != 0,
	    .no_feedback = settings_number(s, SETTING_NO_FEEDBACK) != 0,
	    .map_max = settings_number(s, SETTING_MMAP),
	    .read_only = m->o->read_only,
	    .noatime = m->o->noatime,
	    .compact_on_demand = settings_number(s, SETTING_NO_COMPACT) != 0,
	    .no_metrics = settings_number(s, SETTING_NO_METRICS) != 0,
	};

	int ret = store_claim(&m->store, o.read_only, &e);
	if (!ret)
		ret = core_open(&o, &m->core, &e);
	return ret ? store_failed(m, ret, &e) : EXIT_OK;
}

/* --- who watches -------------------------------------------------------------------------------------------------- */

/* A configuration file's metrics-listen, beside no-metrics, is off. */
static enum exit_status drop_listen(struct mounting *m)
{
	struct settings *s = &m->o->settings;
	const struct setting *v = &s->v[SETTING_METRICS_LISTEN];
	struct err e = {0};

	(void)daemon_say(&m->daemon, EXIT_OK, "%s: metrics-listen: with no-metrics there are none to serve", v->where);
	int ret = settings_set(s, SETTING_METRICS_LISTEN, "off", v->source, v->where, &e);
	return ret ? daemon_say(&m->daemon, EXIT_SYSTEM, "%s", err_text(&e, ret)) : EXIT_OK;
}

static enum exit_status check_listen(struct mounting *m)
{
	const struct settings *s = &m->o->settings;
	const char *where = settings_text(s, SETTING_METRICS_LISTEN);
	struct err e = {0};

	if (!where)
		return EXIT_OK;
	if (settings_number(s, SETTING_NO_METRICS) && !settings_commanded(s, SETTING_METRICS_LISTEN))
		return drop_listen(m);
	if (settings_number(s, SETTING_NO_METRICS))
		return daemon_say(&m->daemon, EXIT_USAGE, "metrics-listen: with no-metrics there are none to serve");
	int ret = metrics_http_parse(where, &m->listen, &e);
	return ret ? daemon_say(&m->daemon, EXIT_USAGE, "metrics-listen: %s", err_text(&e, ret)) : EXIT_OK;
}

/* Without the control socket a mount is as good as with it, but for apfs stats. */
static enum exit_status watch(struct mounting *m)
{
	const char *where = settings_text(&m->o->settings, SETTING_METRICS_LISTEN);
	struct err e = {0};

	int ret = control_new(m->core, &m->control, &e);
	if (ret)
		log_warn("no control socket, apfs stats will not work: %s", err_text(&e, ret));
	if (!where)
		return EXIT_OK;
	err_reset(&e);
	ret = metrics_http_new(m->core, &m->listen, &m->http, &e);
	return ret ? daemon_say(&m->daemon, EXIT_REFUSED, "metrics-listen: %s: %s", where, err_text(&e, ret)) : EXIT_OK;
}

/* --- the mount ---------------------------------------------------------------------------------------------------- */

/* 0: no limit. However it was written, a number that was asked for is that number. */
static int effective_number(struct settings *s, enum setting_id id, uint64_t number)
{
	char text[32] = "(no limit)";

	if (s->v[id].given && settings_number(s, id) == number)
		return 0;
	if (number && setting_defs[id].kind == SETTING_K_SIZE)
		(void)snprintf(text, sizeof(text), "%" PRIu64 "%s", number % (1 << 20) ? number >> 10 : number >> 20,
		               number % (1 << 20) ? "K" : "M");
	else if (number)
		(void)snprintf(text, sizeof(text), "%" PRIu64, number);
	return settings_effective(s, id, text);
}

/* What is used where nothing is set or something else was asked for, and the text of all of it. */
static int describe_config(struct mounting *m, unsigned threads)
{
	struct settings *s = &m->o->settings;
	struct core_effective c;
	size_t len;

	core_effective(m->core, &c);
	int ret = effective_number(s, SETTING_THREADS, threads);
	if (!ret)
		ret = effective_number(s, SETTING_WORKERS, c.workers);
	if (!ret)
		ret = effective_number(s, SETTING_CPU_TOKENS, c.cpu_tokens);
	if (!ret)
		ret = effective_number(s, SETTING_IO_TOKENS, c.io_tokens);
	if (!ret && c.chunk_size)
		ret = effective_number(s, SETTING_CHUNK_SIZE, c.chunk_size);
	if (!ret)
		ret = settings_effective(s, SETTING_STORAGE, storage_class_name(storage_class(m)));
	if (!ret && settings_number(s, SETTING_NO_METRICS) && !settings_number(s, SETTING_NO_FEEDBACK))
		ret = settings_effective(s, SETTING_NO_FEEDBACK, "yes");
	if (!ret)
		ret = settings_effective(s, SETTING_LOG, log_where(m));
	FILE *f = ret ? NULL : open_memstream(&m->config, &len);
	if (!f)
		return -ENOMEM;
	settings_print(s, f);
	return fclose(f) ? -ENOMEM : 0;
}

static enum exit_status mount_session(struct mounting *m, unsigned threads, unsigned spare)
{
	struct err e = {0};

	if (describe_config(m, threads))
		return daemon_say(&m->daemon, EXIT_SYSTEM, "out of memory");
	struct session_params p = {
	    .source = m->store.path,
	    .mountpoint = m->mountpoint,
	    .options = m->o->fuse,
	    .noptions = m->o->nfuse,
	    .threads = threads,
	    .spare = spare,
	    .debug = m->o->debug,
	    .idle_ms = settings_number(&m->o->settings, SETTING_IDLE),
	    .config = m->config,
	    .control = m->control ? control_path(m->control) : NULL,
	};

	int ret = session_new(m->core, &p, &m->session, &e);
	if (ret == -ENXIO)
		return daemon_say(&m->daemon, EXIT_NO_FUSE, "%s", err_text(&e, ret));
	if (ret)
		return daemon_say(&m->daemon, EXIT_REFUSED, "cannot mount on %s: %s", m->o->mountpoint,
		                  err_text(&e, ret));
	return EXIT_OK;
}

/* --- the run ------------------------------------------------------------------------------------------------------ */

static enum exit_status open_log(struct mounting *m)
{
	const char *where = log_where(m);
	enum log_target target = LOG_T_FILE;

	if (strcmp(where, "journal") == 0 || strcmp(where, "syslog") == 0)
		target = LOG_T_SYSLOG;
	else if (strcmp(where, "stderr") == 0)
		target = LOG_T_STDERR;
	int ret = log_init(target, where, (enum log_level)settings_number(&m->o->settings, SETTING_LOG_LEVEL));
	if (ret)
		return daemon_say(&m->daemon, EXIT_USAGE, "cannot write the log %s: %s", where, strerror(-ret));
	return EXIT_OK;
}

/* What is held beyond the machine's memory is lost when the kernel ends the process. */
static enum exit_status check_memory(struct mounting *m)
{
	const struct setting *v = &m->o->settings.v[SETTING_MEMORY];
	uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	char text[2][32];

	if (!v->given || v->number <= machine)
		return EXIT_OK;
	return daemon_say(&m->daemon, EXIT_USAGE, "%s%smemory: %s is more than the %s of this machine",
	                  v->where ? v->where : "", v->where ? ": " : "",
	                  option_format_size(v->number, text[0], sizeof(text[0])),
	                  option_format_size(machine, text[1], sizeof(text[1])));
}

static enum exit_status prepare(struct mounting *m)
{
	struct err e = {0};
	enum exit_status status = open_log(m);

	if (!status && keys_init(&e))
		status = daemon_say(&m->daemon, EXIT_SYSTEM, "%s", err_text(&e, e.code));
	if (!status)
		status = check_mountpoint(m);
	if (!status)
		status = check_listen(m);
	if (!status)
		status = check_memory(m);
	if (!status)
		status = open_store(m);
	if (!status)
		status = read_secret(m);
	return status;
}

static enum exit_status start(struct mounting *m)
{
	const struct settings *s = &m->o->settings;
	uint64_t memory = settings_number(s, SETTING_MEMORY);
	unsigned threads = session_threads((unsigned)settings_number(s, SETTING_THREADS), memory);
	unsigned spare = session_spare(memory, threads);
	enum exit_status status = prepare(m);

	if (status)
		return status;
	daemon_detach(&m->daemon);
	process_block_signals();
	process_tune();
	if (m->made)
		status = make_store(m);
	if (!status)
		status = open_core(m, threads, spare);
	secret_release(&m->secret);
	if (!status)
		status = watch(m);
	if (!status)
		status = mount_session(m, threads, spare);
	return status;
}

static enum exit_status finish(struct mounting *m, enum exit_status status)
{
	struct err e = {0};

	session_free(m->session);
	metrics_http_free(m->http);
	control_free(m->control);
	if (m->core) {
		int ret = core_close(m->core, &e);
		if (ret) {
			log_error("closing the store: %s", err_text(&e, ret));
			status = status ? status : EXIT_SYSTEM;
		}
	}
	secret_release(&m->secret);
	store_release(&m->store);
	free(m->mountpoint);
	free(m->config);
	return status;
}

/* umount(8) recognises FUSE by statfs and then looks for umount.fuse, not for umount.fuse.apfs. Where /run/mount/utab,
 * which mount(8) writes, says uhelper=, it runs ours, which waits for the last commit. */
static void register_umount_helper(const void *arg)
{
	const struct mount_options *o = arg;
	char *store = realpath(o->store, NULL), *mountpoint = realpath(o->mountpoint, NULL);
	char *argv[] = {"mount", "-i",  "-f",       "-t", "fuse.apfs", "-o", "uhelper=fuse.apfs",
	                "--",    store, mountpoint, NULL};
	char *envp[] = {NULL};
	posix_spawn_file_actions_t quiet;
	pid_t pid;

	if (store && mountpoint && !posix_spawn_file_actions_init(&quiet)) {
		(void)posix_spawn_file_actions_addopen(&quiet, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
		if (!posix_spawn(&pid, "/bin/mount", &quiet, NULL, argv, envp))
			(void)waitpid(pid, NULL, 0);
		(void)posix_spawn_file_actions_destroy(&quiet);
	}
	free(store);
	free(mountpoint);
}

static enum exit_status run(struct mount_options *o)
{
	struct mounting m = {.o = o, .daemon = {.arg = o}};

	if (geteuid() == 0 && access(UMOUNT_HELPER, X_OK) == 0)
		m.daemon.mounted = register_umount_helper;

	daemon_begin(&m.daemon, o->program, o->foreground);
	enum exit_status status = start(&m);
	if (status)
		return finish(&m, status);
	log_info("%s is mounted on %s", m.store.path, m.mountpoint);
	daemon_ready(&m.daemon);
	int ret = session_serve(m.session);
	if (ret == -ETIMEDOUT) {
		/* Nothing more can be done in order. What was durable is; the rest is as after a crash. */
		log_error("the store does not answer any more: giving up");
		_exit(EXIT_SYSTEM);
	}
	store_ending(&m.store);
	log_info("%s is unmounted", m.mountpoint);
	status = finish(&m, ret ? EXIT_SYSTEM : EXIT_OK);
	log_release();
	return status;
}

int main(int argc, char **argv)
{
	struct mount_options options;

	process_harden();
	mount_options_parse(&options, argc, argv);
	enum exit_status status = EXIT_OK;
	if (!options.fake)
		status = options.remount ? remount(&options) : run(&options);
	mount_options_release(&options);
	return (int)status;
}
