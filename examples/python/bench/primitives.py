"""Speed of `trit.gemm` beside NumPy and torch, and of element-wise arithmetic beside NumPy.

    python examples/python/bench/primitives.py [--threads 1,2] [--shapes 4096x4096,...] [--rows 1,16,512] [--cpu-time]

Each round runs every alternative once, in turn, so that other load disturbs all of them alike; medians of the rounds are printed.
Weights are random trits with one scale, activations random floats. torch is left out where it cannot be imported. torch's int8
is `torch._int_mm` with both operands already in int8, which is the product alone. `--cpu-time` measures the time of this process on
all CPUs instead of the time that passed: for one thread on a machine that others use too.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

ap = argparse.ArgumentParser()
ap.add_argument("--threads", default="1,2")
ap.add_argument("--shapes", default="4096x4096,2560x2560,6912x2560,2560x6912,640x2560")
ap.add_argument("--rows", default="1,16,512")
ap.add_argument("--rounds", type=int, default=15)
ap.add_argument("--cpu-time", action="store_true")
ap.add_argument("--only", choices=["gemm", "elementwise"])
args = ap.parse_args()

threads = [int(n) for n in args.threads.split(",")]
if len(threads) > 1:
    # BLAS reads its number of threads when it is loaded.
    for n in threads:
        subprocess.run([sys.executable, *sys.argv, "--threads", str(n)], check=True)
    sys.exit()
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(threads[0])

import numpy as np  # noqa: E402

import trit  # noqa: E402

try:
    import torch

    torch.set_num_threads(threads[0])
except ImportError:
    torch = None
trit.set_num_threads(threads[0])
rng = np.random.default_rng(0)
clock = time.process_time if args.cpu_time else time.perf_counter


def medians(alternatives):
    """Seconds of each function; those that do not run here are left out."""
    seconds = {}
    for name, run in list(alternatives.items()):
        try:
            start = clock()
            run()
            once = clock() - start
        except RuntimeError as error:
            print(f"{name} does not run here: {error}")
            continue
        seconds[name] = (max(1, int(0.02 / max(once, 1e-6))), [])
    for _ in range(args.rounds):
        for name, (repeats, times) in seconds.items():
            run = alternatives[name]
            start = clock()
            for _ in range(repeats):
                run()
            times.append((clock() - start) / repeats)
    return {name: statistics.median(times) for name, (_, times) in seconds.items()}


def gemm():
    print("\n| n x k | m | " + " | ".join(["NumPy float32", "torch float32", "torch int8", "gemm float", "gemm int8"]) + " |")
    print("|---|---|---|---|---|---|---|")
    for shape in args.shapes.split(","):
        n, k = (int(size) for size in shape.split("x"))
        trits = rng.integers(-1, 2, (n, k), dtype=np.int8)
        packed = trit.pack(trits, 0.5)
        dense = np.ascontiguousarray(trits.astype(np.float32) * 0.5)
        if torch:
            torch_dense, torch_int8 = torch.from_numpy(dense), torch.from_numpy(trits).t()
        for m in (int(rows) for rows in args.rows.split(",")):
            x = rng.standard_normal((m, k)).astype(np.float32)
            out = np.empty((m, n), np.float32)
            alternatives = {"NumPy float32": lambda: np.matmul(x, dense.T, out=out)}
            if torch:
                torch_x, torch_q = torch.from_numpy(x), torch.from_numpy(np.clip(x * 30, -127, 127).astype(np.int8))
                alternatives["torch float32"] = lambda: torch.nn.functional.linear(torch_x, torch_dense)
                alternatives["torch int8"] = lambda: torch._int_mm(torch_q, torch_int8)
            alternatives["gemm float"] = lambda: trit.gemm(x, packed, out=out)
            alternatives["gemm int8"] = lambda: trit.gemm(x, packed, activations="int8", out=out)
            with torch.inference_mode() if torch else open(os.devnull):
                seconds = medians(alternatives)
            base = min(s for name, s in seconds.items() if "float32" in name)

            def cell(name):
                if name not in seconds:
                    return "-"
                ratio = f" ({base / seconds[name]:.1f}x)" if name.startswith("gemm") else ""
                return f"{seconds[name] * 1e3:.3f}{ratio}"

            names = ["NumPy float32", "torch float32", "torch int8", "gemm float", "gemm int8"]
            print(f"| {n} x {k} | {m} | " + " | ".join(cell(name) for name in names) + " |", flush=True)


def elementwise():
    print("\n| trits | operation | NumPy | trit, int8 | trit, packed |\n|---|---|---|---|---|")

    @trit.fuse
    def fused(a, b):
        return trit.tmax(trit.tmin(a, trit.tnot(b)), trit.tmin(trit.tnot(a), b))

    operations = {
        "tadd": (lambda a, b: np.clip(a + b, -1, 1), trit.tadd, 1),
        "tmul": (np.multiply, trit.tmul, 1),
        "tmin": (np.minimum, trit.tmin, 1),
        "tmax": (np.maximum, trit.tmax, 1),
        "tnot": (lambda a, b: np.negative(a), lambda a, b: trit.tnot(a), 1),
        "exclusive or, 5 calls": (
            lambda a, b: np.maximum(np.minimum(a, -b), np.minimum(-a, b)),
            lambda a, b: trit.tmax(trit.tmin(a, trit.tnot(b)), trit.tmin(trit.tnot(a), b)),
            5,
        ),
        "exclusive or, fused": (lambda a, b: np.maximum(np.minimum(a, -b), np.minimum(-a, b)), fused, 5),
    }
    for size in (40_000, 1_250_000, 250_000_000):
        a, b = (rng.integers(-1, 2, size, dtype=np.int8) for _ in range(2))
        pa, pb = trit.pack_trits(a), trit.pack_trits(b)
        for name, (numpy, ours, count) in operations.items():
            seconds = medians({"NumPy": lambda: numpy(a, b), "int8": lambda: ours(a, b), "packed": lambda: ours(pa, pb)})
            rates = " | ".join(f"{count * size / seconds[kind] / 1e9:.1f}" for kind in ("NumPy", "int8", "packed"))
            print(f"| {size} | {name} | {rates} |", flush=True)


print(f"\n{threads[0]} thread(s); gemm: milliseconds, in brackets times as fast as the faster float32; element-wise: G operations/s")
if args.only != "elementwise":
    gemm()
if args.only != "gemm":
    elementwise()
