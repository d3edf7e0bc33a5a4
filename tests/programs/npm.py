"""npm install of a tree of packages, its cache on the mount too. The packages are made here: no registry is asked."""

import json
import os
import shutil

from place import Place, check, compare, describe, main, put, run, say, size


def package(folder, name, needs):
    os.makedirs(os.path.join(folder, "lib"))
    description = {"name": name, "version": "1.0.0", "main": "lib/0.js", "bin": {name: "bin.js"}, "dependencies": needs}
    put(os.path.join(folder, "package.json"), json.dumps(description).encode())
    put(os.path.join(folder, "bin.js"), b"#!/usr/bin/env node\n")
    for number in range(12):
        put(os.path.join(folder, "lib", f"{number}.js"), f"module.exports = '{name}';\n".encode() * (1 + 10 * number))


def npm(p: Place):
    if not shutil.which("npm"):
        # Not one of tools/packages.txt: Debian's npm and Node.js from elsewhere exclude each other.
        say("skipped: npm is missing")
        return None
    env = p.environment(npm_config_cache=p.path("cache"), npm_config_offline="true", npm_config_audit="false",
                        npm_config_fund="false", npm_config_update_notifier="false")
    count = size(40, 400, 15)
    packed = p.path("packed")
    os.mkdir(packed)
    for number in range(count):
        needs = {f"p{n}": f"file:{packed}/p{n}-1.0.0.tgz" for n in (2 * number + 1, 2 * number + 2) if n < count}
        folder = p.native(f"p{number}", "package")
        package(folder, f"p{number}", needs)
        run("tar", "-czf", f"{packed}/p{number}-1.0.0.tgz", "-C", os.path.dirname(folder), "package")
    app = p.path("app")
    package(app, "app", {"p0": f"file:{packed}/p0-1.0.0.tgz"})
    run("npm", "install", cwd=app, env=env, timeout=1200)
    modules = os.path.join(app, "node_modules")
    check(len([n for n in os.listdir(modules) if n[0] == "p"]) == count, "packages are missing")
    expected = describe(modules)

    def again():
        compare(expected, describe(modules))
        out = run("node", "-e", f"process.stdout.write(require('p{count - 1}'))", cwd=app, env=env)
        check(out == f"p{count - 1}", f"node reads {out!r}")
        run("npm", "ci", cwd=app, env=env, timeout=1200)
        run("npm", "ls", "--all", cwd=app, env=env)

    return again


main(npm)
