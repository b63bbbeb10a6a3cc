#!/usr/bin/env python3
"""Plants one fault at a time in the device code and asks whether the tests notice.

Every line of cuda/*.cu and cuda/*.cuh that an operator below fits is a place for a fault. Chosen
places (all, or a sample that is the same every time) are changed one by one; the changed file is
compiled to PTX, linked with the rest and run on the virtual device with the tests of its area. A
fault counts as detected when the tests fail, the device reports it, or it does not compile.

Faults that are known to survive are listed with the reason in cuda/surviving_faults.txt. A sample
leaves them out; a full run counts them as not detected. Exit 0 when at least 95 % were detected.
"""
import argparse
import collections
import concurrent.futures
import hashlib
import os
import pathlib
import re
import shlex
import subprocess
import sys

Operator = collections.namedtuple("Operator", "name pattern replacement")
Fault = collections.namedtuple("Fault", "file line operator before after")

OPERATORS = [
    Operator("no block barrier", r"__syncthreads\(\);", ";"),
    Operator("no warp barrier", r"__syncwarp\(\);", ";"),
    Operator("bound one too far", r"(\b\w+) < (n|rows|count|length|valid|width|size|total|end|limit)\b", r"\1 <= \2"),
    Operator("bound one short", r"(\b\w+) < (n|rows|count|length|valid|width|size|total|end|limit)\b", r"\1 + 1 < \2"),
    Operator("loop starts at one", r"for \((int|int64_t|unsigned) (\w+) = 0;", r"for (\1 \2 = 1;"),
    Operator("plain instead of atomic add", r"atomicAdd\(([^,]+), ([^)]+)\)", r"(*(\1) += (\2))"),
    Operator("half a warp reduced", r"kWarp / 2; (\w+) > 0", r"kWarp / 4; \1 > 0"),
    Operator("lane 31 left out of a mask", r"kFullMask", "0x7fffffffu"),
    Operator("wrong lane", r"__shfl_(\w+)_sync\(([^,]+), ([^,]+), 0\)", r"__shfl_\1_sync(\2, \3, 1)"),
    Operator("no wait for asynchronous copies", r"(cp_async_wait\w*(<[^>]*>)?)\(([^)]*)\);", ";"),
    Operator("block number forgotten", r"blockIdx\.x \* kThreads \+ threadIdx\.x", "threadIdx.x"),
    Operator("stride of the grid forgotten", r"\+= step\b", "+= step + 1"),
    Operator("sign", r"(\w+) - (\w+)", r"\1 + \2"),
    Operator("maximum instead of minimum", r"\bmin\(", "max("),
    Operator("minimum instead of maximum", r"\bmax\(", "min("),
    Operator("no scale", r"\* scale\b", ""),
    Operator("other branch", r"if \((\w+ [<>]=? \w+)\)", r"if (!(\1))"),
    Operator("too little shared memory", r"(return [^;]*\bsizeof\((float|T|int|double)\))", r"\1 / 2"),
    Operator("shared array one short", r"(__shared__ [^;\[]*\[)([^\]]+)\]", r"\1(\2) - 1]"),
]
COMMENT = re.compile(r"^\s*(//|/\*|\*|#)")


def faults_of(path):
    for number, line in enumerate(path.read_text().splitlines()):
        if COMMENT.match(line) or "static_assert" in line or "template <" in line:
            continue
        code = line.split("//")[0]
        for op in OPERATORS:
            match = re.search(op.pattern, code)
            if not match:
                continue
            after = code[: match.start()] + match.expand(op.replacement) + code[match.end():]
            yield Fault(str(path), number, op.name, line, after)


def order(fault):
    """The same order everywhere, in which any beginning is a fair sample."""
    return hashlib.sha256(f"{fault.file}|{fault.operator}|{fault.before}".encode()).hexdigest()


def known_survivors(path):
    known = {}
    if path.exists():
        for line in path.read_text().splitlines():
            if line and not line.startswith("#"):
                file, operator, code, reason = (part.strip() for part in line.split(" | ", 3))
                known[file, operator, code] = reason
    return known


def device_files(changed):
    """The .cu files that a change of this file reaches."""
    if changed.suffix == ".cu":
        return [changed]
    users, reached = [], {changed.name}
    while True:
        grown = {p.name for p in pathlib.Path("cuda").glob("*.cuh")
                 if any(f'"cuda/{name}"' in p.read_text() for name in reached)} | reached
        if grown == reached:
            break
        reached = grown
    for source in sorted(pathlib.Path("cuda").glob("*.cu")):
        if any(f'"cuda/{name}"' in source.read_text() for name in reached):
            users.append(source)
    return users


def tests_for(sources):
    """Catch2's tags of the test files whose first word a source shares; none: all tests."""
    tests = {p.stem.removeprefix("test_") for p in pathlib.Path("tests/cuda").glob("test_*.cpp")}
    areas = {source.stem.split("_")[0] for source in sources}
    return ",".join(sorted(f"[#test_{t}]" for t in tests if t.split("_")[0] in areas))


class Laboratory:
    """Compiles and runs one faulty program."""

    def __init__(self, options):
        self.options = options

    def try_fault(self, number, fault):
        folder = pathlib.Path(self.options.work) / str(number)
        changed = folder / fault.file
        changed.parent.mkdir(parents=True, exist_ok=True)
        lines = pathlib.Path(fault.file).read_text().splitlines()
        lines[fault.line] = fault.after
        changed.write_text("\n".join(lines) + "\n")
        sources = device_files(pathlib.Path(fault.file))
        # A header's fault is tried in few of its users: one is compiled in seconds, all in minutes.
        sources = sources[:: max(1, len(sources) // 3)][:3] if len(sources) > 3 else sources
        objects = {}
        for source in sources:
            text = changed if str(source) == fault.file else source
            target = folder / (source.name + ".o")
            nvcc, *flags = shlex.split(self.options.nvcc)
            # The faulty header has to be found before the one it was made from.
            command = [nvcc, f"-I{folder}", *flags, "-c", str(text), "-o", str(target)]
            if subprocess.run(command, capture_output=True).returncode != 0:
                return "does not compile"
            objects[str(source)] = str(target)
        program = folder / "test"
        link = [word for word in shlex.split(self.options.link)]
        for source, target in objects.items():
            link = [target if word.endswith("/" + source + ".o") else word for word in link]
        subprocess.run([*link, "-o", str(program)], check=True)
        verdict = self.run(program, tests_for(sources))
        program.unlink()
        return verdict

    def run(self, program, tags):
        try:
            # Every tensor in memory of its own, as in tests/emulated.sh.
            done = subprocess.run([str(program), "-#", "-a", tags], capture_output=True, text=True,
                                  errors="replace", timeout=self.options.timeout,
                                  env={**os.environ, "CENTROID_ALLOC": "system"})
        except subprocess.TimeoutExpired:
            return "does not end"
        if done.returncode == 0:
            return None
        report = re.search(r"vgpu: (.*)", done.stderr + done.stdout)
        return report.group(1)[:100] if report else "wrong result"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nvcc", required=True, help="command that compiles device code to PTX")
    parser.add_argument("--link", required=True, help="command that links the tests")
    parser.add_argument("--work", default="build/mutants")
    parser.add_argument("--count", type=int, default=0, help="so many faults; 0: all")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=180)
    parser.add_argument("--only", default="", help="only files whose name contains this")
    options = parser.parse_args()

    files = sorted([*pathlib.Path("cuda").glob("*.cu"), *pathlib.Path("cuda").glob("*.cuh")])
    listed = known_survivors(pathlib.Path("cuda/surviving_faults.txt"))
    faults = sorted((f for p in files if options.only in p.name for f in faults_of(p)), key=order)
    known = [f for f in faults if (f.file, f.operator, f.before.strip()) in listed]
    faults = [f for f in faults if f not in known]
    chosen = faults[: options.count or None]
    print(f"{len(faults)} places for faults in {len(files)} files, {len(known)} known to "
          f"survive; trying {len(chosen)}", flush=True)

    laboratory = Laboratory(options)
    survivors = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        verdicts = pool.map(lambda pair: laboratory.try_fault(*pair), enumerate(chosen))
        for fault, verdict in zip(chosen, verdicts):
            place = f"{fault.file}:{fault.line + 1}: {fault.operator}"
            print(f"  {'detected' if verdict else 'SURVIVED'}  {place}: {verdict or fault.after.strip()}", flush=True)
            if not verdict:
                survivors.append(fault)
    detected, total = len(chosen) - len(survivors), len(chosen) + (0 if options.count else len(known))
    print(f"{detected} of {total} detected")
    for f in survivors:
        print(f"survivor: {f.file} | {f.operator} | {f.before.strip()} |")
    return 0 if chosen and detected >= 0.95 * total else 1


if __name__ == "__main__":
    sys.exit(main())
