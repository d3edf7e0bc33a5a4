#!/usr/bin/env python3
"""Codecs and ciphers by themselves, one core, in units as they are stored, and what the pipeline makes of them.

    bench/units.py --json units.json --plot units.png

Speeds are MB/s of plaintext, medians of the rounds. The rows of the pipeline are ratios, taken within a round: of the
pipeline with two threads held on one core to codec and cipher called in a loop there, and of two workers on two cores to
two such loops at the same time. "discarded": every write to a segment is taken for done; "stored": segments are files,
which nobody syncs. The rows of the inline threshold are microseconds that one chunk takes, the next being submitted when it
is done: "alone" in a loop of codec and cipher, "policy" as the pipeline does it, "fanned out" if handed to the workers
however few frames it has. Fewer frames than policy_inline says the pipeline leaves to the submitter.
"""

import os
import shutil
import sys

import data
import driver
import report

# priority, or what else brings them: every level that pipeline/policy.c may choose, and no other (test_policy compares)
CODECS = {
    "speed": ("lz4:-16", "lz4:-4", "lz4:1", "lz4:3", "lz4:5"),
    "balanced": ("zstd:-5", "zstd:-1", "zstd:1", "zstd:2", "zstd:3"),
    "packed": ("zstd:5", "zstd:6", "zstd:7"),
    "ratio": ("brotli:1", "brotli:2", "brotli:4", "brotli:5", "brotli:6"),
    "cold": ("lz4:9", "zstd:9", "brotli:9"),
}
CIPHERS = ("aes-256-gcm", "chacha20-poly1305", "xchacha20-poly1305")
FRAMES = ("64K", "16K")
PIPELINE = (("lz4", "source"), ("zstd:-1", "source"), ("zstd:-1", "random"), ("brotli:1", "source"))
SUITE = "aes-256-gcm"
INLINE = (("lz4:1", "source"), ("zstd:1", "source"), ("zstd:1", "random"), ("brotli:2", "source"))
PARTS = ("units", "pipeline", "inline")
CHUNK_FRAMES = (1, 4, 8, 10, 16, 32)


def one_round(args, files, put):
    with driver.Driver(args.driver, {min(os.sched_getaffinity(0))}) as d:
        for kind, path in files.items():
            d.ask("data", path)
            for codecs in CODECS.values():
                for codec in codecs:
                    for frame in FRAMES:
                        put("codec", codec, kind, frame, d.ask("codec", codec, frame))
        for cipher in CIPHERS:
            for frame in FRAMES:
                put("cipher", cipher, "", frame, d.ask("cipher", cipher, frame))


def pipeline_round(args, work, files, put):
    """One core, then two."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    store = os.path.join(work, "segments")

    def pipe(d, codec, *options):
        os.mkdir(store)
        try:
            return d.ask("pipe", codec, SUITE, 2, "1M", store, *options)
        finally:
            shutil.rmtree(store)

    with (
        driver.Driver(args.driver, {cores[0]}) as first,
        driver.Driver(args.driver, {cores[-1]}) as second,
        driver.Driver(args.driver, set(cores)) as both,
    ):
        for codec, kind in PIPELINE:
            for d in (first, second, both):
                d.ask("data", files[kind])
            bare = first.ask("bare", codec, SUITE)["speed"]
            discarded, stored = pipe(first, codec, "discard")["speed"], pipe(first, codec)["speed"]
            found = {"bare": bare, "discarded": discarded, "stored": stored,
                     "discarded/bare": discarded / bare, "stored/bare": stored / bare}
            if len(cores) > 1:
                first.send("bare", codec, SUITE)
                second.send("bare", codec, SUITE)
                two = first.answer()["speed"] + second.answer()["speed"]
                discarded, stored = pipe(both, codec, "discard")["speed"], pipe(both, codec)["speed"]
                found |= {"two bare": two, "two workers, discarded/bare": discarded / two,
                          "two workers, stored/bare": stored / two}
            put("pipeline", codec, kind, "64K", found)


def inline_round(args, work, files, put):
    """A chunk at a time, on all cores and with the workers that a mount has."""
    store = os.path.join(work, "segments")
    with driver.Driver(args.driver) as d:
        for codec, kind in INLINE[:1] if args.quick else INLINE:
            d.ask("data", files[kind])
            bare = d.ask("bare", codec, SUITE)["speed"]
            for frames in CHUNK_FRAMES:
                def chunk(*options):
                    os.mkdir(store)
                    try:
                        found = d.ask("pipe", codec, SUITE, 0, f"{64 * frames}K", store, "discard", "one", *options)
                    finally:
                        shutil.rmtree(store)
                    return 65536 * frames / found["speed"]

                alone, policy, fanned = 65536 * frames / bare, chunk(), chunk("many")
                put("inline", codec, kind, f"{frames} frames", {
                    "alone": alone, "policy": policy, "fanned out": fanned, "fanned out/alone": fanned / alone})


def middles(results, what):
    """(name, data, frame) -> {figure: median}"""
    rounds = {}
    for v in results["values"]:
        if v["what"] == what:
            rounds.setdefault((v["name"], v["data"], v["frame"]), []).append(v["found"])
    return {key: {f: report.middle([r[f] for r in found]) for f in found[0]} for key, found in rounds.items()}


def tables(results):
    codecs, ciphers, pipeline, inline = (middles(results, w) for w in ("codec", "cipher", "pipeline", "inline"))
    of = {c: p for p, names in CODECS.items() for c in names}
    text = [report.markdown(
        ("priority, codec", "data", "frame", "encoding", "decoding", "stored %"),
        [(f"{of[c]} {c}", kind, frame, f["encode"], f["decode"], f["stored"]) for (c, kind, frame), f in codecs.items()]
    ), report.markdown(
        ("cipher", "frame", "sealing", "opening"), [(c, frame, f["seal"], f["open"]) for (c, _, frame), f in ciphers.items()]
    )]
    if pipeline:
        head = list(next(iter(pipeline.values())))
        text.append(report.markdown(
            ("pipeline", *head), [(f"{c}, {kind}", *f.values()) for (c, kind, _), f in pipeline.items()]))
    if inline:
        head = list(next(iter(inline.values())))
        text.append(report.markdown(
            ("a chunk, us", *head), [(f"{c}, {kind}, {n}", *f.values()) for (c, kind, n), f in inline.items()]))
    charts = {f"encoding {kind}, 64 KiB, MB/s": {c: {"encoding": f["encode"], "decoding": f["decode"]}
                                                 for (c, k, frame), f in codecs.items() if k == kind and frame == "64K"}
              for kind in dict.fromkeys(k for _, k, _ in codecs)}
    charts["the pipeline's share of the bare speed"] = {
        f"{c}, {kind}": {n: v for n, v in f.items() if "/" in n} for (c, kind, _), f in pipeline.items()}
    return "\n\n".join(text), charts


def measure(args, work, results):
    files = data.make(work, data.KINDS, (2 if args.quick else 8) * report.MIB)
    for number in range(args.rounds):
        print(f"round {number + 1}", file=sys.stderr, flush=True)

        def put(what, name, kind, frame, found):
            results["values"].append({"what": what, "name": name, "data": kind, "frame": frame, "found": found})

        if "units" in args.only:
            one_round(args, files, put)
        if "pipeline" in args.only:
            pipeline_round(args, work, files, put)
        if "inline" in args.only:
            inline_round(args, work, files, put)
    return tables(results)


def main():
    p = driver.parser(__doc__, 5)
    p.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    driver.main(p.parse_args(), measure)


if __name__ == "__main__":
    main()
