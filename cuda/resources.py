#!/usr/bin/env python3
"""Registers, shared memory and occupancy of every kernel on every architecture.

Reads what ptxas -v said while the device code was compiled (the .log beside each object), and what
the virtual device counted while it ran the tests: the largest block of each kernel, and, for the main
kernels on usual shapes (tests/cuda/test_traffic.cpp), memory traffic and bank conflicts beside the
least possible.
Spills are errors. Occupancy is computed from the limits in the CUDA programming guide; where it is
below 25 % the table needs a reason in the file, which is kept from one version to the next.

    resources.py --write FILE    writes the table
    resources.py --check FILE    compares with it and fails where they differ
"""
import argparse
import collections
import pathlib
import re
import subprocess
import sys

# Per multiprocessor: threads, blocks, bytes of shared memory, bytes the system takes per block.
# Compute capabilities table of the CUDA C++ programming guide; 65,536 registers everywhere.
LIMITS = {
    75: (1024, 16, 64 * 1024, 0),
    80: (2048, 32, 164 * 1024, 1024),
    86: (1536, 16, 100 * 1024, 1024),
    89: (1536, 24, 100 * 1024, 1024),
    90: (2048, 32, 228 * 1024, 1024),
    100: (2048, 32, 228 * 1024, 1024),
    120: (1536, 24, 100 * 1024, 1024),
}
REGISTERS, REGISTER_UNIT, SHARED_UNIT, WARP = 65536, 256, 128, 32
LEAST_OCCUPANCY = 25

Run = collections.namedtuple("Run", "threads dynamic sectors sectors_ideal passes passes_ideal")
Use = collections.namedtuple("Use", "registers shared spills")


def occupancy(arch, use, threads, dynamic):
    """Percent of the threads that a multiprocessor can hold."""
    all_threads, all_blocks, all_shared, reserved = LIMITS[arch]
    warps = -(-threads // WARP)
    per_warp = -(-use.registers * WARP // REGISTER_UNIT) * REGISTER_UNIT
    shared = -(-(use.shared + dynamic + reserved) // SHARED_UNIT) * SHARED_UNIT
    blocks = min(all_blocks, all_threads // (warps * WARP), REGISTERS // (per_warp * warps),
                 all_shared // shared if shared else all_blocks)
    return round(100 * blocks * warps * WARP / all_threads)


def read_logs(paths):
    """(file, mangled kernel) -> {arch: Use}, and the spills found."""
    table = collections.defaultdict(dict)
    for path in paths:
        name = arch = None
        spills = 0
        for line in pathlib.Path(path).read_text().splitlines():
            if found := re.search(r"Compiling entry function '(\w+)' for 'sm_(\d+)'", line):
                name, arch, spills = found.group(1), int(found.group(2)), 0
            elif found := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
                spills = int(found.group(1)) + int(found.group(2))
            elif name and (found := re.search(r"Used (\d+) registers", line)):
                shared = re.search(r"(\d+) bytes smem", line)
                source = pathlib.Path(path).name.split(".")[0]
                table[source, name][arch] = Use(int(found.group(1)), int(shared.group(1)) if shared else 0, spills)
                name = None
    return table


def demangled(names):
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return dict(zip(names, (short(line) for line in text.splitlines())))


def short(name):
    """Without return type, namespaces and parameters."""
    name = re.sub(r"\(anonymous namespace\)::|centroid::(cuda::)?(detail::)?", "", name)
    name = re.sub(r"^void ", "", name)
    name = re.sub(r"\(int\)|\(bool\)|\(\d+\)\+", "", name)
    depth = 0
    for i, c in enumerate(name):
        depth += (c == "<") - (c == ">" and name[i - 1] != "-")
        if c == "(" and depth == 0:
            return name[:i]
    return name


def read_runs(path):
    """Kernel -> Run, from a VGPU_STATS file."""
    runs, name = {}, None
    for line in pathlib.Path(path).read_text().splitlines():
        if line.startswith(("kernel ", "function ")):
            name = short(line.split(" ", 1)[1]) if line.startswith("kernel ") else None
            continue
        if not name:
            continue
        numbers = [0] * 6
        if found := re.search(r"threads (\d+)  shared (\d+)", line):
            numbers[:2] = map(int, found.groups())
        if found := re.search(r"sectors (\d+)/(\d+)", line):
            numbers[2:4] = map(int, found.groups())
        if found := re.search(r"bank passes (\d+)/(\d+)", line):
            numbers[4:] = map(int, found.groups())
        old = runs.get(name, Run(0, 0, 0, 0, 0, 0))
        runs[name] = Run(max(old.threads, numbers[0]), max(old.dynamic, numbers[1]),
                         *(x + y for x, y in zip(old[2:], numbers[2:])))
    return runs


def reasons_in(path):
    reasons = {}
    if path.exists():
        for line in path.read_text().splitlines():
            if found := re.match(r"# low: (\S+) (.*?): (.*)", line):
                reasons[found.group(1), found.group(2)] = found.group(3)
    return reasons


def ratio(value, ideal):
    return f"{value / ideal:.2f}" if ideal else "-"


def render(table, runs, traffic, reasons):
    names = demangled([name for _, name in table])
    problems, rows, low = [], [], []
    for (source, name), uses in sorted(table.items(), key=lambda item: (item[0][0], names[item[0][1]], item[0][1])):
        run, counted = runs.get(names[name]), traffic.get(names[name])
        cells = []
        for arch in sorted(LIMITS):
            use = uses.get(arch)
            if use is None:
                problems.append(f"{source}: {names[name]} was not compiled for sm_{arch}")
                continue
            if use.spills:
                problems.append(f"{source}: {names[name]} spills {use.spills} bytes on sm_{arch}")
            percent = occupancy(arch, use, run.threads, run.dynamic) if run else None
            cells.append(f"{arch}:{use.registers}/{'-' if percent is None else percent}")
            if percent is not None and percent < LEAST_OCCUPANCY and (source, names[name]) not in low:
                low.append((source, names[name]))
        shared = max(use.shared for use in uses.values())
        line = f"{source}  {names[name]}\n    registers/occupancy {' '.join(cells)}, shared {shared}"
        if run:
            line += f"+{run.dynamic}, threads {run.threads}"
        if counted:
            line += (f", sectors {ratio(counted.sectors, counted.sectors_ideal)}"
                     f", bank passes {ratio(counted.passes, counted.passes_ideal)}")
        rows.append(line)
    for key in low:
        if key not in reasons:
            problems.append(f"{key[0]}: {key[1]}: occupancy below {LEAST_OCCUPANCY} % without a reason "
                            f"(add `# low: {key[0]} {key[1]}: why` to the file)")
    head = ["# Kernels of cuda/: for each architecture registers per thread / occupancy in percent (computed), bytes",
            "# of static + dynamic shared memory and the largest block that the tests start; for those that",
            "# tests/cuda/test_traffic.cpp runs, 32-byte sectors of global memory and passes through the banks of",
            "# shared memory per least possible.",
            "# Written by `make resources`, compared by `make check-resources`. Occupancy below 25 % needs a reason:"]
    head += [f"# low: {source} {name}: {reasons[source, name]}" for source, name in low if (source, name) in reasons]
    return "\n".join(head + [""] + rows) + "\n", problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--launches", required=True, help="VGPU_STATS of all tests")
    parser.add_argument("--traffic", required=True, help="VGPU_STATS of test_traffic.cpp")
    parser.add_argument("--write")
    parser.add_argument("--check")
    parser.add_argument("logs", nargs="+")
    options = parser.parse_args()
    path = pathlib.Path(options.write or options.check)
    text, problems = render(read_logs(options.logs), read_runs(options.launches), read_runs(options.traffic),
                            reasons_in(path))
    if options.write:
        path.write_text(text)
    elif not path.exists() or path.read_text() != text:
        old = path.read_text().splitlines() if path.exists() else []
        changed = [line for line in text.splitlines() if line not in old]
        problems.append(f"{path} is not what the compiler says now (make resources writes it); new lines:\n  "
                        + "\n  ".join(changed[:20]))
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(f"{path}: {text.count('registers/occupancy')} kernels, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
