"""Decoding of a latent BitNet 2B by litespark-inference 1.0.3 (its runtime without torch) and by `trit.Model`, in turn.

    python examples/python/bench/litespark_decode.py LATENT_CHECKPOINT MODEL.trit --threads 2

MODEL.trit is the same checkpoint, compiled. Each round decodes some tokens greedily with both; nothing is guessed ahead. The
head of litespark-inference is in 4 bits unless told otherwise, which changes logits; that of trit gives the exact most
probable token. Install litespark-inference with --no-deps, and tokenizers, safetensors, huggingface_hub beside it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--head", choices=["int4", "int8", "bf16"], default="int4", help="of litespark-inference"
    )
    options = parser.parse_args()
    # Read when its library is loaded.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from litespark_inference.torchless import kernel, loader, runtime

    import trit

    folder = options.checkpoint
    loader._resolve_hf_snapshot = lambda repo: (folder / "config.json", folder / "model.safetensors")
    theirs: Any = loader.load_bitnet_2b(embed_dtype=options.head)
    ours = trit.Model(options.bundle, threads=options.threads, context=256, draft=False)
    prompt = [11, 1200, 54321, 99, 7, 100000, 4000, 31]
    print(f"litespark-inference 1.0.3, {kernel.max_threads()} threads, head in {options.head}")
    print(f"trit {trit.__version__}, {ours.threads} threads, {ours.kernels}")

    def litespark() -> float:
        state = runtime.init_state(theirs, t_max=len(prompt) + options.tokens + 1)
        logits = runtime.forward_prefill(theirs, state, list(prompt))
        start = time.perf_counter()
        for _ in range(options.tokens):
            logits = runtime.forward_one(theirs, state, int(logits.argmax()))
        return options.tokens / (time.perf_counter() - start)

    def of_trit() -> float:
        found = ours.generate(prompt, max_tokens=options.tokens, temperature=0, ignore_eos=True)
        assert len(found.ids) == options.tokens
        # These are the seconds after the first token, which the prompt gives.
        return (options.tokens - 1) / found.seconds

    litespark(), of_trit()
    rows = [(litespark(), of_trit()) for _ in range(options.rounds)]
    print("| round | litespark-inference, tokens/s | trit, tokens/s |")
    print("|---|---|---|")
    for number, (a, b) in enumerate(rows, 1):
        print(f"| {number} | {a:.2f} | {b:.2f} |")
    a, b = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"| median | {a:.2f} | {b:.2f} ({b / a:.2f} times) |")


if __name__ == "__main__":
    main()
