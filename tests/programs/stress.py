"""stress-ng's stressors of files, one after the other, each with its own verification."""

from place import NIGHTLY, Place, check, main, need, run, say, size

# What works on files in its temporary folder.
STRESSORS = (
    "access", "aio", "aiol", "chattr", "chdir", "chmod", "chown", "copy-file", "dentry", "dir", "dirdeep", "dirmany", "dup",
    "fallocate", "fcntl", "fiemap", "file-ioctl", "filename", "flock", "fpunch", "fstat", "getdent", "handle", "hdd", "io",
    "iomix", "lease", "link", "locka", "lockf", "lockofd", "mknod", "mmapfork", "msync", "open", "readahead", "rename",
    "revio", "seek", "sendfile", "splice", "sync-file", "symlink", "touch", "utime", "verity", "xattr",
)  # fmt: skip
USUAL = ("dentry", "fallocate", "filename", "fpunch", "iomix", "lockofd", "rename", "sync-file", "xattr")


def stress(p: Place):
    need("stress-ng")
    failed = []
    for name in STRESSORS if NIGHTLY else USUAL:
        argv = ("stress-ng", f"--{name}", "2", "--timeout", f"{size(1, 5)}s", "--verify", "--temp-path", p.path())
        status, out = run(*argv, status=None, timeout=300, cwd=p.native())
        if status:
            failed.append(name)
            say(f"--- {name}: status {status}\n{out[-1500:]}")
    check(not failed, f"stressors that failed: {failed}")


main(stress)
