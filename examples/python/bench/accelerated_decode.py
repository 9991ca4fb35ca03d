"""Decoding of a model of BitNet b1.58 2B's shape by transformers, as it is and accelerated, in one run.

Weights are random; text is noise, speed is real. Each row of the table is one kind of checkpoint: "offline", packed as
microsoft/bitnet-b1.58-2B-4T; "online", latent as its -bf16 repository; "bitlinear", packed with scales that divide, as
HF1BitLLM/Llama3-8B-1.58-100B-tokens. A token's time is the median over rounds of the difference between generating many
tokens and one. The head is a linear layer in floats before and after; the last columns say what it takes, and what is left.

    python examples/python/bench/accelerated_decode.py --layers 4 --threads 2
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

# torch's threads otherwise wait for each other by spinning, which takes milliseconds a layer where other programs run too.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
import transformers
from transformers.integrations.bitnet import AutoBitLinear, BitLinear

import trit


def model_of(kind: str, dtype: torch.dtype, layers: int, vocab: int) -> Any:
    """A model with random weights whose linear layers are those that transformers makes for this kind of checkpoint."""
    kinds: Any = transformers
    config = kinds.BitNetConfig(
        vocab_size=vocab,
        hidden_size=2560,
        intermediate_size=6912,
        num_hidden_layers=layers,
        num_attention_heads=20,
        num_key_value_heads=5,
        max_position_embeddings=4096,
        rope_theta=500000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    # Layers are made one by one, because the memory for all of them in floats is not always there.
    torch.manual_seed(1)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    model = kinds.BitNetForCausalLM(config).eval()
    torch.set_default_dtype(default)
    for name, module in list(model.model.named_modules()):
        if type(module) is not torch.nn.Linear:
            continue
        n, k = module.weight.shape
        layer: Any
        if kind == "bitlinear":
            layer = BitLinear(k, n, False, dtype=dtype)
            layer.weight.copy_(
                torch.tensor([0b01100001, 0b10010010, 0b00011000])[torch.randint(0, 3, (n // 4, k))]
            )
            layer.weight_scale.fill_(50.0)
        else:
            layer = AutoBitLinear(k, n, False, dtype=dtype, online_quant=kind == "online").to(dtype)
            if kind == "offline":
                layer.weight.data = torch.randint(-1, 2, (n, k)).to(dtype)
                layer.weight_scale.fill_(0.02)
            else:
                layer.weight.data = module.weight.data
        layer.requires_grad_(False)
        model.model.set_submodule(name, layer)
    return model.eval()


def token_seconds(model: Any, ids: torch.Tensor, tokens: int, rounds: int) -> float:
    """The median time of a token."""

    def generate(count: int) -> float:
        start = time.perf_counter()
        model.generate(ids, max_new_tokens=count, min_new_tokens=count, do_sample=False)
        return time.perf_counter() - start

    generate(3)
    return statistics.median((generate(tokens + 1) - generate(1)) / tokens for _ in range(rounds))


def prompt_seconds(model: Any, ids: torch.Tensor, rounds: int) -> float:
    """The median time of one pass over a prompt."""
    times = []
    with torch.no_grad():
        for _ in range(rounds + 1):
            start = time.perf_counter()
            model(ids, logits_to_keep=1)
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def head_seconds(model: Any) -> float:
    """The median time of the head for one token."""
    weight = model.lm_head.weight
    x = torch.ones(1, 1, weight.shape[1], dtype=weight.dtype)
    times = []
    with torch.no_grad():
        for _ in range(7):
            start = time.perf_counter()
            model.lm_head(x)
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=128256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=8, help="tokens of a round of decoding")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the prompt that is timed")
    parser.add_argument("--kinds", nargs="+", default=["online", "bitlinear", "offline"])
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    options = parser.parse_args()
    quiet: Any = transformers.logging
    quiet.set_verbosity_error()
    torch.set_num_threads(options.threads)
    trit.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, trit {trit.__version__}")
    print(
        f"{options.layers} layers of the 2B's shape, vocabulary {options.vocab}, {options.dtype}, "
        f"{options.threads} threads, OMP_WAIT_POLICY={os.environ['OMP_WAIT_POLICY']}"
    )
    print(
        "| kind | stock, ms a token | accelerated | times | head, both | without it, times | prompt, stock ms | accelerated |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for kind in options.kinds:
        model = model_of(kind, dtype, options.layers, options.vocab)
        ids = torch.randint(0, options.vocab, (1, 8))
        prompt = torch.randint(0, options.vocab, (1, options.prompt))
        stock = token_seconds(model, ids, options.tokens, options.rounds)
        stock_prompt = prompt_seconds(model, prompt, options.rounds)
        trit.accelerate(model)
        ours = token_seconds(model, ids, options.tokens * 4, options.rounds)
        ours_prompt = prompt_seconds(model, prompt, options.rounds)
        head = head_seconds(model)
        ms = [f"{seconds * 1e3:.1f}" for seconds in (stock, ours, head, stock_prompt, ours_prompt)]
        without = (stock - head) / max(ours - head, 1e-9)
        print(
            f"| {kind} | {ms[0]} | {ms[1]} | {stock / ours:.1f} | {ms[2]} | {without:.1f} | {ms[3]} | {ms[4]} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
