#!/usr/bin/env python3
"""Our attention and training step, timed in turns with what one would use instead.

    python3 apps/bench_peers.py build-reference FOLDER [--python PYTHON]
    python3 apps/bench_peers.py attention --torch-python PYTHON --reference FOLDER [--json FILE]
    python3 apps/bench_peers.py train     --torch-python PYTHON [--dropout 0.1]
    python3 apps/bench_peers.py ctc       --torch-python PYTHON
    python3 apps/bench_peers.py train     --attention clustered --peer reference --reference FOLDER

The peers are PyTorch (scaled_dot_product_attention, nn.TransformerEncoder) and the library of the
clustered-attention paper, which `build-reference` downloads and builds for this machine. Each peer works in a
process of its own that lives as long as the comparison. A round times one process of ours and the same number
of calls of the peer, in changing order; ratios are medians of the rounds' ratios. All sides use the same number
of pinned threads and whatever kernels they choose for this machine. Tests and CI do not need this script.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tarfile

WORKER = pathlib.Path(__file__).with_name("bench_peers_worker.py")
LIBRARY = "pytorch-fast-transformers"
NOTES = "centroid-reference.json"  # in the reference's folder: how it was built
DIRECTIONS = {"forward": "forward", "forward_backward": "forward + backward"}


class PeerError(Exception):
    """Something that the user can do something about."""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build-reference", help="download and build the paper's library")
    build.add_argument("folder", type=pathlib.Path, help="outside of this repository")
    build.add_argument("--python", default=sys.executable, help="with the PyTorch to build on")
    build.add_argument("--flags", default="-O3 -march=native", help="added to the library's own; '' as shipped")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--bench", default="build/bin/bench", help="our program")
    common.add_argument("--torch-python", default=sys.executable, help="a Python with the newest PyTorch")
    common.add_argument("--reference", type=pathlib.Path, action="append", default=[],
                        help="a folder of build-reference; may be given again for another build")
    common.add_argument("--threads", type=int, default=2)
    common.add_argument("--rounds", type=int, default=5)
    common.add_argument("--repeats", type=int, default=3, help="timed calls per round and side")
    common.add_argument("--clusters", type=int, default=100)
    common.add_argument("--bits", type=int, default=63)
    common.add_argument("--iterations", type=int, default=10)
    common.add_argument("--topk", type=int, default=32)
    common.add_argument("--json", type=pathlib.Path, metavar="FILE", help="all measured values")
    attention = commands.add_parser("attention", parents=[common], help="attention alone")
    attention.add_argument("--variants", default="full,clustered,improved-clustered")
    attention.add_argument("--lengths", default="1024,4096")
    attention.add_argument("--tokens", type=int, default=8192, help="batch x length")
    train = commands.add_parser("train", parents=[common], help="the training step of `bench train`")
    train.add_argument("--attention", default="full", choices=["full", "clustered", "improved-clustered"])
    train.add_argument("--peer", default="torch", choices=["torch", "reference"])
    train.add_argument("--dropout", type=float, default=0.0)
    train.add_argument("--batch", type=int, default=4)
    train.add_argument("--time", type=int, default=800)
    commands.add_parser("ctc", parents=[common], help="the CTC loss and its gradient: `bench ops --part losses`")
    return parser.parse_args()


def environment(threads):
    """The same for all sides: no choice of kernels from outside, as many threads, each on its core."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS_", "ATEN_", "MKL_"))}
    return {**kept, "OMP_NUM_THREADS": str(threads), "OMP_PROC_BIND": "true"}


def cpu_flags():
    try:
        with open("/proc/cpuinfo") as info:
            return next(line for line in info if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return []


# ---- the paper's library -------------------------------------------------------------------------------


def run(command, **options):
    print("+", " ".join(map(str, command)), flush=True)
    subprocess.run([str(word) for word in command], check=True, **options)


def build_reference(args):
    """Needs pip, setuptools, the headers of Python and a C++ compiler; Debian's own PyTorch is the packages
    python3-torch, libtorch-dev, pybind11-dev, python3-dev and python3-pip."""
    repository = pathlib.Path(__file__).resolve().parents[1]
    folder = args.folder.resolve()
    if folder == repository or repository in folder.parents:
        raise PeerError(f"{folder}: expected a folder outside of the repository")
    folder.mkdir(parents=True, exist_ok=True)
    # The library's setup.py imports torch, so pip must not hide it from the build.
    run([args.python, "-m", "pip", "download", "--no-binary", ":all:", "--no-deps", "--no-build-isolation",
         "--dest", folder, LIBRARY])
    archive = sorted(folder.glob(f"{LIBRARY}-*.tar.gz"))[-1]
    with tarfile.open(archive) as tar:
        tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    source = folder / archive.name[:-len(".tar.gz")]
    # With nvcc on the PATH it would also build CUDA extensions, which a PyTorch without CUDA cannot.
    change = "s/if cuda_toolkit_available():/if False:/"
    run(["sed", "-i", change, source / "setup.py"])
    flags = {"MAX_JOBS": str(os.cpu_count()), **os.environ, "CFLAGS": args.flags}
    print(f"CFLAGS='{args.flags}', in addition to the library's -fopenmp -ffast-math")
    run([args.python, "setup.py", "build_ext", "--inplace"], cwd=source, env=flags)
    facts = Worker(args.python, 1, source).facts
    notes = {"python": args.python, "source": str(source), "flags": args.flags, "changes": [change],
             "compiler": first_line(["c++", "--version"]), "torch": facts["torch"],
             "version": facts["reference"]}
    (folder / NOTES).write_text(json.dumps(notes, indent=2) + "\n")
    print(f"built: {LIBRARY} {facts['reference']} on PyTorch {facts['torch']} ({facts['isa']}, {facts['blas']}), "
          f"flags '{args.flags}', {notes['compiler']}; use it with --reference {args.folder}")


def first_line(command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0]


# ---- the sides -----------------------------------------------------------------------------------------


class Worker:
    """A peer: bench_peers_worker.py in another Python, asked line by line."""

    def __init__(self, python, threads, reference=None, label=""):
        command = [python, str(WORKER), "--threads", str(threads)]
        variables = environment(threads)
        if reference:
            command += ["--reference", str(reference)]
        if "avx512vl" in cpu_flags():
            variables["ATEN_CPU_CAPABILITY"] = "avx512"  # some builds stop at AVX2 unless asked
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=variables)
        self.label = label
        self.facts = self.ask({"what": "describe"})

    def ask(self, request):
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            raise PeerError(f"{self.process.args[0]}: the peer ended (does this Python have torch?)")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(f"{self.label or 'peer'}: {answer['error']}")
        return answer

    def description(self):
        f = self.facts
        text = f"PyTorch {f['torch']} ({f['isa']}, BLAS {f['blas']}, oneDNN {f['onednn']}, {f['threads']} threads)"
        if "reference" not in f:
            return text
        return f"{LIBRARY} {f['reference']}, {f['compiler']}, flags '{f['flags']}', on {text}"


def torch_worker(args):
    return Worker(args.torch_python, args.threads, label="PyTorch")


def reference_workers(args):
    workers = []
    for folder in args.reference:
        if not (folder / NOTES).is_file():
            raise PeerError(f"{folder}: no reference there; expected a folder of build-reference")
        notes = json.loads((folder / NOTES).read_text())
        label = f"reference on torch {notes['torch'].split('+')[0]}"
        worker = Worker(notes["python"], args.threads, notes["source"], label)
        worker.facts["flags"], worker.facts["compiler"] = notes["flags"], notes["compiler"]
        workers.append(worker)
    if not workers:
        raise PeerError("expected --reference FOLDER, made by build-reference")
    return workers


def ours(args, command):
    """The JSON of one run of our program."""
    words = [args.bench, *command, "--json", "--threads", str(args.threads), "--rounds", str(args.repeats)]
    result = subprocess.run(words, env=environment(args.threads), capture_output=True, text=True)
    if result.returncode != 0:
        raise PeerError(f"{' '.join(words)}: {result.stderr.strip()}")
    return json.loads(result.stdout)


# ---- comparisons ---------------------------------------------------------------------------------------


def interleave(rounds, mine, theirs):
    """Pairs of results, one a round; who goes first changes, so that neither always meets a warm machine."""
    pairs = []
    for number in range(rounds):
        if number % 2:
            other = theirs()
            pairs.append((mine(), other))
        else:
            mine_first = mine()
            pairs.append((mine_first, theirs()))
    return pairs


def row(case, peer, pairs):
    """One line of the table from (our ms, their ms) of each round."""
    return {"case": case, "peer": peer, "ours_ms": statistics.median(a for a, _ in pairs),
            "peer_ms": statistics.median(b for _, b in pairs),
            "ratio": statistics.median(b / a for a, b in pairs), "rounds": pairs}


def spec_of(args, variant, dropout=0.0):
    """The string that makes our program use the same options as the peer."""
    options = [f"dropout={dropout:g}"]
    if variant != "full":
        options += [f"clusters={args.clusters}", f"bits={args.bits}", f"iterations={args.iterations}"]
    if variant == "improved-clustered":
        options.append(f"topk={args.topk}")
    return f"{variant}:{','.join(options)}"


def sizes_of(args):
    return {"clusters": args.clusters, "bits": args.bits, "iterations": args.iterations, "topk": args.topk}


def compare_attention(args):
    rows, sides = [], {}
    variants = args.variants.split(",")
    peers = {"full": [torch_worker(args)] if "full" in variants else []}
    references = reference_workers(args) if set(variants) - {"full"} else []
    for variant in variants:
        spec = spec_of(args, variant)
        # Checked once; the rounds only time.
        ours(args, ["attention", "--variants", spec, "--lengths", "64", "--tokens", "64"])
        for length in map(int, args.lengths.split(",")):
            command = ["attention", "--variants", spec, "--lengths", str(length), "--tokens", str(args.tokens),
                       "--max-full", str(length), "--no-check"]
            case = {"variant": variant, "length": length, "batch": max(1, args.tokens // length), "heads": 6,
                    "size": 64, **sizes_of(args)}
            for worker in peers.get(variant, references):
                request = {"what": "attention", "case": case, "repeats": args.repeats}
                pairs = interleave(args.rounds, lambda: ours(args, command), lambda: worker.ask(request))
                sides["centroid"] = pairs[-1][0]["kernels"]
                sides[worker.label] = worker.description()
                peer = f"SDPA, {pairs[-1][1]['kernel']}" if variant == "full" else worker.label
                for key, name in DIRECTIONS.items():
                    times = [(a["results"][0][key + "_ms"], b[key + "_ms"]) for a, b in pairs]
                    rows.append(row(f"{variant}, L {length}, {name}", peer, times))
                    print(rows[-1]["case"], f"{rows[-1]['ratio']:.2f}", file=sys.stderr)
                worker.ask({"what": "forget"})
    return sides, rows


def compare_train(args):
    case = {"attention": args.attention, "reference": args.peer == "reference", "dropout": args.dropout,
            "batch": args.batch, "time": args.time, **sizes_of(args)}
    if args.peer == "torch" and args.attention != "full":
        raise PeerError(f"PyTorch has no {args.attention} attention (--peer reference)")
    command = ["train", "--dropout", str(args.dropout), "--batch", str(args.batch), "--time", str(args.time),
               "--attention", spec_of(args, args.attention, args.dropout)]
    rows, sides = [], {}
    for worker in [torch_worker(args)] if args.peer == "torch" else reference_workers(args):
        request = {"what": "train", "case": case, "repeats": args.repeats}
        pairs = interleave(args.rounds, lambda: ours(args, command), lambda: worker.ask(request))
        sides["centroid"] = f"OpenBLAS {pairs[-1][0]['blas_kernels']}"
        sides[worker.label] = worker.description()
        times = [(a["step_ms"], b["step_ms"]) for a, b in pairs]
        name = f"training step, {args.attention}, {args.batch} x {args.time}, dropout {args.dropout:g}"
        rows.append(row(name, worker.label, times))
    return sides, rows


def compare_ctc(args):
    """From logits to the loss and their gradient on both sides: PyTorch's ctc_loss is of log_softmax."""
    worker, sides, rows = torch_worker(args), {}, []
    cases = {"ctc 16 x 240 x 51, 90 labels": (16, 240, 51, 90), "ctc 16 x 1000 x 50, 90 labels": (16, 1000, 50, 90)}
    command = ["ops", "--part", "losses"]
    for name, (batch, time, classes, labels) in cases.items():
        case = {"batch": batch, "time": time, "classes": classes, "labels": labels}
        request = {"what": "ctc", "case": case, "repeats": args.repeats}
        pairs = interleave(args.rounds, lambda: ours(args, command), lambda: worker.ask(request))
        sides["centroid"], sides[worker.label] = "its own kernels", worker.description()
        times = [(next(c["ms"] for c in a["cases"] if c["name"] == name), b["loss_ms"]) for a, b in pairs]
        rows.append(row(name, worker.label, times))
    return sides, rows


def show(args, sides, rows):
    print(f"{args.threads} threads on each side; medians of {args.rounds} interleaved rounds of {args.repeats} calls "
          "each")
    for name, text in sides.items():
        print(f"  {name}: {text}")
    width = max(len(r["case"]) for r in rows)
    peer_width = max(len(r["peer"]) for r in rows)
    print(f"\n{'case':<{width}}  {'peer':<{peer_width}}  {'ours ms':>9}  {'peer ms':>9}  {'ratio':>7}")
    for r in rows:
        print(f"{r['case']:<{width}}  {r['peer']:<{peer_width}}  {r['ours_ms']:>9.1f}  {r['peer_ms']:>9.1f}"
              f"  {r['ratio']:>6.2f}x")
    if args.json:
        facts = {"threads": args.threads, "rounds": args.rounds, "repeats": args.repeats, "sides": sides,
                 "rows": rows}
        args.json.write_text(json.dumps(facts, indent=2) + "\n")


def main():
    args = arguments()
    try:
        if args.command == "build-reference":
            build_reference(args)
        else:
            compare = {"attention": compare_attention, "train": compare_train, "ctc": compare_ctc}
            sides, rows = compare[args.command](args)
            show(args, sides, rows)
    except (PeerError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
