"""What bench_peers.py runs inside the Python of a peer: times PyTorch, or the paper's library, on request.

One JSON object per line on stdin asks for a measurement, one per line on stdout answers it. The process lives
as long as the comparison, so imports, allocations and first-call costs are not part of any time. Works with
PyTorch 1.13 and later.

    python3 bench_peers_worker.py --threads 2 [--reference FOLDER]
"""
import argparse
import json
import math
import statistics
import sys
import time

import torch


def median_ms(repeats, action):
    """Milliseconds of the median call, after one that is not counted."""
    action()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3


def describe(reference):
    """Versions and the kernels in use."""
    facts = {
        "torch": torch.__version__,
        "isa": torch.backends.cpu.get_cpu_capability() if hasattr(torch.backends, "cpu") else
        next((line.split("usage:")[1].strip() for line in torch.__config__.show().splitlines()
              if "CPU capability" in line), "unknown"),
        "blas": "MKL" if torch.backends.mkl.is_available() else blas_library(),
        "onednn": torch.backends.mkldnn.is_available(),
        "threads": torch.get_num_threads(),
    }
    if reference:
        import fast_transformers
        facts["reference"] = getattr(fast_transformers, "__version__", "unknown")
    return facts


def blas_library():
    """The BLAS that a PyTorch without MKL has loaded, with OpenBLAS's choice of kernels."""
    import ctypes
    with open("/proc/self/maps") as maps:
        names = sorted({line.split()[-1] for line in maps if "openblas" in line})
    if not names:
        return "unknown"
    library = ctypes.CDLL(names[0])
    library.openblas_get_corename.restype = ctypes.c_char_p
    return "OpenBLAS " + library.openblas_get_corename().decode()


# ---- attention alone ---------------------------------------------------------------------------------


def sdpa(case):
    """PyTorch's fused attention. (B, L, H, E) -> (B, L, H, E)"""
    attend = torch.nn.functional.scaled_dot_product_attention

    def run(q, k, v):
        return attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2).contiguous()

    return run


def reference_attention(case):
    """The paper's own implementation. (B, L, H, E) -> (B, L, H, E)"""
    from fast_transformers import attention
    from fast_transformers.masking import FullMask, LengthMask
    options = dict(clusters=case["clusters"], iterations=case["iterations"], bits=case["bits"],
                   attention_dropout=0.0)
    if case["variant"] == "clustered":
        module = attention.ClusteredAttention(**options)
    else:
        module = attention.ImprovedClusteredAttention(topk=case["topk"], **options)
    length = case["length"]
    mask = FullMask(length, length)
    lengths = LengthMask(torch.full((case["batch"],), length, dtype=torch.int64), max_len=length)
    return lambda q, k, v: module(q, k, v, mask, lengths, lengths)


def backend_of_sdpa(q, k, v):
    """The name of the kernel that PyTorch chooses for these inputs."""
    try:
        choice = torch._fused_sdp_choice(*(x.transpose(1, 2) for x in (q, k, v)))
        return torch.nn.attention.SDPBackend(choice).name.lower()
    except (AttributeError, ValueError):
        return "unknown"


class AttentionCase:
    """One variant at one size, inputs and cotangent in (B, L, H, E) memory."""

    def __init__(self, case):
        torch.manual_seed(1)
        shape = case["batch"], case["length"], case["heads"], case["size"]
        self.inputs = [torch.randn(shape).requires_grad_() for _ in range(3)]
        self.cotangent = torch.randn(shape)
        self.run = (sdpa if case["variant"] == "full" else reference_attention)(case)
        self.kernel = backend_of_sdpa(*self.inputs) if case["variant"] == "full" else "native extensions"
        self.check(case)

    def check(self, case):
        """The rows are averages of values; full attention is also compared with its definition."""
        with torch.no_grad():
            q, k, v = self.inputs
            ones = self.run(q, k, torch.ones_like(v))
            assert (ones - 1).abs().max() < 1e-4, "rows of attention do not sum to 1"
            if case["variant"] != "full":
                return
            head = [x[0, :, 0].double() for x in self.inputs]
            expected = torch.softmax(head[0] @ head[1].t() / math.sqrt(case["size"]), -1) @ head[2]
            assert (self.run(q, k, v)[0, :, 0] - expected).abs().max() < 1e-4, "wrong attention"

    def forward(self):
        with torch.no_grad():
            self.run(*self.inputs)

    def forward_backward(self):
        for x in self.inputs:
            x.grad = None
        self.run(*self.inputs).backward(self.cotangent)

    def time(self, repeats):
        return {"forward_ms": median_ms(repeats, self.forward),
                "forward_backward_ms": median_ms(repeats, self.forward_backward),
                "kernel": self.kernel}


# ---- a training step -----------------------------------------------------------------------------------


class TrainCase:
    """Linear 40 -> 192, 9 post-norm relu layers, 6 heads x 32, feed-forward 768, CTC over 51, Adam."""

    def __init__(self, case):
        torch.manual_seed(1)
        batch, frames = case["batch"], case["time"]
        self.model = torch.nn.Sequential(
            torch.nn.Linear(40, 192),
            reference_encoder(case) if case["reference"] else torch_encoder(case),
            torch.nn.Linear(192, 51))
        self.model.train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.x = torch.randn(batch, frames, 40)
        self.targets = torch.randint(1, 51, (batch, 90))
        self.lengths = torch.full((batch,), frames), torch.full((batch,), 90)

    def step(self):
        self.optimizer.zero_grad()
        log_probs = self.model(self.x).log_softmax(-1).transpose(0, 1)
        loss = torch.nn.functional.ctc_loss(log_probs, self.targets, *self.lengths)
        loss.backward()
        self.optimizer.step()

    def time(self, repeats):
        return {"step_ms": median_ms(repeats, self.step)}


def torch_encoder(case):
    layer = torch.nn.TransformerEncoderLayer(192, 6, 768, case["dropout"], "relu", batch_first=True)
    return torch.nn.TransformerEncoder(layer, 9, enable_nested_tensor=False)


def reference_encoder(case):
    from fast_transformers.builders import TransformerEncoderBuilder
    options = dict(n_layers=9, n_heads=6, query_dimensions=32, value_dimensions=32,
                   feed_forward_dimensions=768, dropout=case["dropout"], activation="relu",
                   final_normalization=False, attention_type=case["attention"],
                   attention_dropout=case["dropout"])
    if case["attention"] != "full":
        options.update(clusters=case["clusters"], iterations=case["iterations"], bits=case["bits"])
    if case["attention"] == "improved-clustered":
        options.update(topk=case["topk"])
    return TransformerEncoderBuilder.from_kwargs(**options).get()


# ---- CTC -----------------------------------------------------------------------------------------------


class CtcCase:
    """From logits (B, T, V) to the mean loss and their gradient."""

    def __init__(self, case):
        torch.manual_seed(1)
        batch, time, classes, labels = (case[k] for k in ("batch", "time", "classes", "labels"))
        self.logits = torch.randn(batch, time, classes).requires_grad_()
        self.targets = torch.randint(1, classes, (batch, labels))
        self.lengths = torch.full((batch,), time), torch.full((batch,), labels)

    def step(self):
        self.logits.grad = None
        log_probs = self.logits.log_softmax(-1).transpose(0, 1)
        torch.nn.functional.ctc_loss(log_probs, self.targets, *self.lengths).backward()

    def time(self, repeats):
        return {"loss_ms": median_ms(repeats, self.step)}


# ---- requests ------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--reference", help="folder that holds the built fast_transformers package")
    args = parser.parse_args()
    if args.reference:
        sys.path.insert(0, args.reference)
    torch.set_num_threads(args.threads)
    kinds = {"attention": AttentionCase, "train": TrainCase, "ctc": CtcCase}
    kept = None, None  # the last case: every round measures it again
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["what"] == "describe":
                answer = describe(args.reference)
            elif request["what"] == "forget":
                kept, answer = (None, None), {}
            else:
                if kept[0] != request["case"]:
                    kept = None, None  # its memory first
                    kept = request["case"], kinds[request["what"]](request["case"])
                answer = kept[1].time(request["repeats"])
        except Exception as error:  # the other side shows it and stops
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
