"""A parallel build in C whose tools rely on timestamps: what is built stays built, and a change builds what it must."""

import os
import time

from place import NIGHTLY, Place, check, main, need, run, say

HOME = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))


def build(p: Place):
    """apfs builds itself, sources and objects on the mount."""
    need("cmake", "ninja", "gcc")
    source, out = p.path("apfs"), p.path("build")
    tree = ("CMakeLists.txt", "base", "pipeline", "index", "fs", "tools", "tests")
    os.mkdir(source)
    run("cp", "-a", *(os.path.join(HOME, t) for t in tree if os.path.exists(os.path.join(HOME, t))), source)
    env = p.environment(CCACHE_DISABLE="1")
    run("cmake", "-S", source, "-B", out, "-G", "Ninja", "-DBUILD_TESTING=OFF", timeout=300, env=env)
    targets = [] if NIGHTLY else ["apfs_base"]

    def make():
        return run("ninja", "-C", out, *targets, timeout=1200, env=env)

    def nothing_to_do():
        text = make()
        check("no work to do" in text, f"ninja builds again:\n{text}")

    make()
    nothing_to_do()

    def again():
        nothing_to_do()
        time.sleep(0.02)
        os.utime(os.path.join(source, "base", "pool.c"))
        text = make()
        check("pool.c" in text and "text.c" not in text, f"not what has changed is built:\n{text}")
        nothing_to_do()
        if NIGHTLY:
            say(run(os.path.join(out, "tools", "apfs-mount"), "--version").strip())

    return again


main(build)
