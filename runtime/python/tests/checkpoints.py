"""Checkpoints that tests of the torch layer load, and how two greedy generations are compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "tests" / "fixtures"
SMALL = ROOT / "examples" / "models" / "fables-12m"
SHARED = ROOT.parent / "shared"
"""A folder beside the repository with larger models, where there is one."""

PROMPTS = (1, 4, 9, 17, 30)
"""Lengths of the prompts, in tokens."""
TOKENS = 24


def load(path: Path, dtype: torch.dtype, **arguments):
    """A model of transformers, in eval mode.

    transformers 5.24 leaves all but the linear layers of a packed AutoBitLinear checkpoint in bfloat16 where float32 is asked
    for, and then cannot run them. So such a model is converted after loading.
    """
    quantization = json.loads((path / "config.json").read_text()).get("quantization_config", {})
    if quantization.get("quantization_mode") == "offline" and dtype is torch.float32:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, **arguments)
        return torch.nn.Module.to(model, torch.float32).eval()
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **arguments).eval()


def renamed_1bitllm(folder: Path) -> Path:
    """The fixture bitnet-1bitllm as a checkpoint that transformers computes: its own class has other names for norms."""
    source = FIXTURES / "bitnet-1bitllm"
    tensors = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        name = name.replace("self_attn.inner_attn_ln", "self_attn.attn_sub_norm")
        tensors[name.replace("mlp.ffn_layernorm", "mlp.ffn_sub_norm")] = tensor
    config = json.loads((source / "config.json").read_text())
    config |= {"architectures": ["BitNetForCausalLM"], "model_type": "bitnet"}
    config["quantization_config"] = {
        "quant_method": "bitnet",
        "linear_class": "autobitlinear",
        "quantization_mode": "online",
    }
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(source / "generation_config.json", folder)
    return folder


def prompts(vocab: int) -> list[torch.Tensor]:
    """The same random prompts each time, [1, tokens]."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(5, vocab, (1, length), generator=generator) for length in PROMPTS]


def greedy(model) -> list[tuple[list[int], list[float]]]:
    """For each prompt the tokens that follow, and by how much the most probable logit leads."""
    results = []
    for ids in prompts(model.config.get_text_config().vocab_size):
        run = model.generate(
            ids,
            max_new_tokens=TOKENS,
            min_new_tokens=TOKENS,
            do_sample=False,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        largest = torch.stack(run.logits).float()[:, 0].topk(2).values
        tokens = run.sequences[0, ids.shape[1] :].tolist()
        results.append((tokens, (largest[:, 0] - largest[:, 1]).tolist()))
    return results


def assert_same(before, after, near_tie: float) -> None:
    """Tokens are the same, except after a step at which the two most probable ones were less than near_tie apart.

    Sums of floats have no order that all CPUs share, and int8 activations turn a last bit into 1/127: transformers itself
    decides such steps differently with another number of threads. At most two prompts may meet one.
    """
    differ = 0
    for (expected, margins), (found, _) in zip(before, after, strict=True):
        step = next((i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b), None)
        if step is not None:
            differ += 1
            assert margins[step] < near_tie, f"token {step} differs, which led by {margins[step]}"
    assert differ <= 2, f"{differ} of {len(before)} differ"
