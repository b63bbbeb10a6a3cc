#!/usr/bin/env python3
"""The model of `bench train` in PyTorch, timed in turns with ours.

Run by hand, with any Python that has torch:  python3 apps/bench_peers.py [--dropout 0.1] [--rounds 5]
Both sides use the same number of threads and whatever BLAS kernels they choose for this machine; each
round times one process of ours, then the same number of steps of PyTorch's. Ratios are medians of the
rounds' ratios. Tests and CI do not need this script.
"""
import argparse
import json
import os
import statistics
import subprocess
import time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", default="build/bin/bench", help="our program")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="timed steps per round and side")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--time", type=int, default=800)
    return parser.parse_args()


def ours(args):
    command = [args.bench, "train", "--json", "--threads", str(args.threads), "--rounds", str(args.steps),
               "--dropout", str(args.dropout), "--batch", str(args.batch), "--time", str(args.time)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return json.loads(out)


class Peer:
    """Linear 40 -> 192, 9 post-norm relu layers, 6 heads x 32, feed-forward 768, CTC over 51, Adam."""

    def __init__(self, args):
        import torch
        self.torch = torch
        torch.set_num_threads(args.threads)
        torch.manual_seed(1)
        layer = torch.nn.TransformerEncoderLayer(192, 6, 768, args.dropout, "relu", batch_first=True)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(40, 192),
            torch.nn.TransformerEncoder(layer, 9, enable_nested_tensor=False),
            torch.nn.Linear(192, 51))
        self.model.train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.x = torch.randn(args.batch, args.time, 40)
        self.targets = torch.randint(1, 51, (args.batch, 90))
        self.lengths = torch.full((args.batch,), args.time), torch.full((args.batch,), 90)
        self.step()

    def step(self):
        self.optimizer.zero_grad()
        log_probs = self.model(self.x).log_softmax(-1).transpose(0, 1)
        loss = self.torch.nn.functional.ctc_loss(log_probs, self.targets, *self.lengths)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def time(self, steps):
        times = []
        for _ in range(steps):
            begin = time.perf_counter()
            self.step()
            times.append(time.perf_counter() - begin)
        return statistics.median(times) * 1e3


def main():
    args = arguments()
    for name in [k for k in os.environ if k.startswith("OPENBLAS_")]:
        del os.environ[name]
    peer = Peer(args)
    rows = []
    for _ in range(args.rounds):
        mine = ours(args)
        rows.append((mine["step_ms"], peer.time(args.steps)))
    centroid, other = (statistics.median(column) for column in zip(*rows))
    ratio = statistics.median(b / a for a, b in rows)
    print(f"centroid ({mine['blas_kernels']} kernels of OpenBLAS, {args.threads} threads): {centroid:.0f} ms a step")
    print(f"PyTorch {peer.torch.__version__} ({peer.torch.backends.cpu.get_cpu_capability()}, "
          f"oneDNN {peer.torch.backends.mkldnn.is_available()}): {other:.0f} ms a step")
    print(f"dropout {args.dropout:g}, batch {args.batch} x {args.time}: centroid is {ratio:.2f} times as fast "
          f"as PyTorch (median of {args.rounds} interleaved rounds)")


if __name__ == "__main__":
    main()
