#!/usr/bin/env python3
"""The layer checker finds each kind of violation where it is planted, and nothing in what is allowed."""

import os
import subprocess
import sys
import tempfile
import unittest

import check_layers

HERE = os.path.dirname(os.path.abspath(__file__))


class Planted(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.TemporaryDirectory()
        self.plant("base/fine.c", '#include "base/io.h"\n#include <stdio.h>\n')

    def tearDown(self):
        self.root.cleanup()

    def plant(self, path, text):
        full = os.path.join(self.root.name, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as f:
            f.write(text)

    def assert_found(self, path, line, word):
        found = check_layers.check(self.root.name)
        self.assertEqual(len(found), 1, found)
        self.assertEqual(found[0][:2], (path, line))
        self.assertIn(word, found[0][2])

    def assert_clean(self):
        self.assertEqual(check_layers.check(self.root.name), [])

    def status(self):
        done = subprocess.run([sys.executable, "-B", os.path.join(HERE, "check_layers.py"), self.root.name],
                              capture_output=True, text=True, check=False)
        return done.returncode, done.stdout


class Includes(Planted):
    FORBIDDEN = (
        ("base", "pipeline/codec.h"), ("base", "index/index.h"), ("base", "fs/core/core.h"), ("base", "tools/x.h"),
        ("pipeline", "index/index.h"), ("index", "pipeline/codec.h"),
        ("pipeline", "fs/core/core.h"), ("index", "fs/core/core.h"),
        ("fs/core", "fs/fuse/session.h"), ("fs/fuse", "tools/x.h"), ("fs/core", "tests/x.h"),
        ("base", "../index/index.h"), ("index", "schema.h"), ("pipeline", "base/../index/index.h"),
    )
    LIBRARIES = (
        ("fs/core", "fuse_lowlevel.h"), ("tools", "fuse_lowlevel.h"), ("base", "fuse3/fuse.h"),
        ("fs/core", "sqlite3.h"), ("pipeline", "sqlite3.h"), ("tools", "sqlite3.h"),
        ("index", "sodium.h"), ("fs/core", "zstd.h"), ("fs/fuse", "lz4hc.h"), ("tools", "openssl/evp.h"),
        ("base", "brotli/encode.h"), ("index", "sodium/crypto_aead_xchacha20poly1305.h"),
        ("fs/core", "jansson.h"), ("fs/fuse", "microhttpd.h"),
    )

    def test_against_the_direction(self):
        for box, name in self.FORBIDDEN:
            with self.subTest(box=box, name=name):
                self.plant(f"{box}/bad.c", f'/* why */\n#include <errno.h>\n#include "{name}"\n')
                self.assert_found(f"{box}/bad.c", 3, name)
                os.unlink(os.path.join(self.root.name, box, "bad.c"))

    def test_angled_is_no_way_around(self):
        self.plant("index/bad.h", "#  include <pipeline/codec.h>\n")
        self.assert_found("index/bad.h", 1, "pipeline")

    def test_macro_is_no_way_around(self):
        self.plant("index/bad.h", "#include HEADER\n")
        self.assert_found("index/bad.h", 1, "HEADER")

    def test_library_outside_its_box(self):
        for box, name in self.LIBRARIES:
            with self.subTest(box=box, name=name):
                self.plant(f"{box}/bad.c", f"#include <{name}>\n")
                self.assert_found(f"{box}/bad.c", 1, name)
                os.unlink(os.path.join(self.root.name, box, "bad.c"))

    def test_allowed(self):
        self.plant("pipeline/a.c", '#include "pipeline/codec.h"\n#include "base/io.h"\n#include <zstd.h>\n')
        self.plant("index/a.c", '#include "index/index.h"\n#include "base/io.h"\n#include <sqlite3.h>\n')
        self.plant("fs/core/a.c", '#include "index/index.h"\n#include "pipeline/codec.h"\n#include <uthash.h>\n')
        self.plant("fs/fuse/a.c", '#include "fs/core/core.h"\n#include <fuse_lowlevel.h>\n')
        self.plant("tools/a.c", '#include "fs/fuse/fuse.h"\n#include "index/index.h"\n#include <linux/fuse.h>\n')
        self.plant("tests/index/a.c", '#include "pipeline/codec.h"\n#include <sqlite3.h>\n#include "near.h"\n')
        self.plant("base/a.c", '// #include "fs/core/core.h"\n/*\n#include <sqlite3.h>\n*/\n')
        self.assert_clean()


class RawCalls(Planted):
    def test_planted(self):
        for box in ("base", "pipeline", "index", "fs/core"):
            for call in ("open", "openat", "fopen", "pwrite", "pwritev", "write", "fsync", "fdatasync", "rename",
                         "renameat2", "unlink", "unlinkat", "ftruncate", "mkdir", "flock", "syscall"):
                with self.subTest(box=box, call=call):
                    self.plant(f"{box}/bad.c", f"int f(void)\n{{\n\treturn {call} (0);\n}}\n")
                    self.assert_found(f"{box}/bad.c", 3, f"{call}()")
                    os.unlink(os.path.join(self.root.name, box, "bad.c"))

    def test_log_file_only_opens_and_writes(self):
        self.plant("base/log.c", "int f(void) { return open(p) + write(1, p, 1); }\n")
        self.assert_clean()
        self.plant("base/log.c", "int f(void) { return rename(a, b); }\n")
        self.assert_found("base/log.c", 1, "rename()")

    def test_allowed(self):
        self.plant("base/io_posix.c", "int f(void) { return openat(d, p, 0) + fdatasync(fd); }\n")
        self.plant("fs/fuse/a.c", "int f(void) { return open(p, 0) + read(fd, b, 1); }\n")
        self.plant("tools/a.c", "int f(void) { return mkdir(p, 0700); }\n")
        self.plant("index/a.c", "int f(void)\n{\n\t/* open(p) */ log_info(\"fsync(x)\");\n"
                                "\treturn io->ops->open(io) + ops.unlink(io) + io_sync(f) + index_open(x);\n}\n"
                                "static struct ops o = {.open = my_open};\nint (*rename)(int a);\nchar c = '\"';\n")
        self.assert_clean()


class Length(Planted):
    def test_limit(self):
        for suffix in ("c", "h", "py", "sh"):
            with self.subTest(suffix=suffix):
                self.plant(f"tests/long.{suffix}", "\n" * 700)
                self.assert_clean()
                self.plant(f"tests/long.{suffix}", "\n" * 701)
                self.assert_found(f"tests/long.{suffix}", 701, "701 lines")
                os.unlink(os.path.join(self.root.name, f"tests/long.{suffix}"))


class Program(Planted):
    def test_status(self):
        self.assertEqual(self.status(), (0, ""))
        self.plant("index/bad.c", '#include "pipeline/codec.h"\n')
        self.assertEqual(self.status(), (1, "index/bad.c:1: index must not include pipeline (pipeline/codec.h)\n"))

    def test_empty_tree_is_no_success(self):
        os.unlink(os.path.join(self.root.name, "base/fine.c"))
        self.assertEqual(self.status(), (1, ""))


if __name__ == "__main__":
    unittest.main()
