#!/bin/bash
# tools/start as a person uses it: it installs, builds, creates, mounts, and says what is the case when run again.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
apfs=$root/build/release/tools/apfs
if [ ! -e /dev/fuse ]; then
	echo "skipped: no /dev/fuse"
	if [ "${CI-}" = true ]; then exit 1; fi # as in apfsmount.py
	exit 77
fi

tmp=$(mktemp -d "${TMPDIR:-/tmp}/apfs-start-XXXXXX")
store="$tmp/a store" mnt="$tmp/a mount"

clean_up() {
	local m
	for m in "$mnt" "$tmp/apfs" "$tmp/other"; do
		if findmnt -n --mountpoint "$m" >/dev/null; then fusermount3 -u -z -- "$m"; fi
	done
	rm -rf -- "$tmp"
}
trap clean_up EXIT

fail() {
	echo "FAILED: $*"
	[ ! -s "$tmp/out" ] || sed 's/^/  | /' "$tmp/out"
	exit 1
}

# start ARGUMENT...: its status, with all that it prints in $tmp/out.
start() {
	"$root/tools/start" "$@" >"$tmp/out" 2>&1 </dev/null
}

said() {
	grep -qF -- "$1" "$tmp/out" || fail "did not say: $1"
}

printf 'a passphrase\n' >"$tmp/pass"
printf 'another\n' >"$tmp/wrong"

start --help || fail "--help"
said "usage: tools/start"
if start a b c; then fail "took three places"; fi
if start --nonsense; then fail "took an unknown option"; fi
if start "$store" "$store/inside"; then fail "took a mount point inside the store"; fi
if start "$mnt/inside" "$mnt"; then fail "took a store inside the mount point"; fi
[ ! -e "$store" ] && [ ! -e "$mnt" ] || fail "made a directory for nothing"
if start --passfile "$tmp/absent" "$store" "$mnt"; then fail "took an absent passfile"; fi

# Packages are missing and the user may not install any: one line to run, and nothing else happens.
mkdir "$tmp/shims"
printf '#!/bin/sh\nexit 1\n' >"$tmp/shims/dpkg-query"
printf '#!/bin/sh\necho 1000\n' >"$tmp/shims/id"
printf '#!/bin/sh\nexit 1\n' >"$tmp/shims/sudo"
chmod +x "$tmp/shims"/*
if PATH="$tmp/shims:$PATH" start --passfile "$tmp/pass" "$store" "$mnt"; then fail "went on without packages"; fi
said "apt-get install -y"
said "libfuse3-dev"
[ ! -e "$store" ] || fail "made a store without packages"

# Without arguments: places in the home directory.
HOME=$tmp start --passfile "$tmp/pass" || fail "first start"
said "Mounted."
said "apfs umount $tmp/apfs"
[ -e "$tmp/apfs-store/superblock" ] || fail "no store at the default place"
"$apfs" umount "$tmp/apfs"

start --passfile="$tmp/pass" "$store" "$mnt" || fail "start with places"
printf 'kept\n' >"$mnt/file"
start "$store" "$mnt" || fail "start while mounted"
said "Already mounted."
if start --passfile "$tmp/pass" "$store" "$tmp/other"; then fail "mounted one store twice"; fi
if start --passfile "$tmp/pass" "$tmp/other-store" "$mnt"; then fail "took another store's mount for its own"; fi
said "$store"
[ ! -e "$tmp/other-store" ] || fail "made a store for a busy mount point"
"$apfs" umount "$mnt"
if findmnt -n --mountpoint "$mnt" >/dev/null; then fail "still mounted after umount"; fi

if start --passfile "$tmp/wrong" "$store" "$mnt"; then fail "took a wrong passphrase"; fi
start "$store" "$mnt" --passfile "$tmp/pass" || fail "start with options last"
[ "$(cat "$mnt/file")" = kept ] || fail "the file is not there after a remount"

# A daemon that was killed leaves a dead mount, which is replaced.
sync -- "$mnt/file"
pid=$(getfattr -n user.apfs.pid --only-values --absolute-names -- "$mnt")
kill -KILL "$pid"
while [ -e "/proc/$pid" ]; do sleep 0.05; done
start --passfile "$tmp/pass" "$store" "$mnt" || fail "start over a dead mount"
[ "$(cat "$mnt/file")" = kept ] || fail "the file is not there after a crash"
"$apfs" umount "$mnt"
echo "passed"
