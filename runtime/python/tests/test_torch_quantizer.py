"""The quantizer "trit" of transformers: packing on load, and packed checkpoints that are read again."""

import json
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="torch cannot be imported here: nothing of trit.TritConfig is tested")
pytest.importorskip(
    "transformers", reason="transformers cannot be imported here: trit.TritConfig is not tested"
)

import torch
import transformers
from checkpoints import FIXTURES, SMALL, load, prompts
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import trit

transformers.logging.set_verbosity_error()


def logits(model):
    with torch.no_grad():
        return model(prompts(model.config.vocab_size)[3]).logits


def packed_layers(model) -> int:
    return sum(isinstance(module, trit.nn.BitLinear) for module in model.modules())


@pytest.mark.parametrize(
    "name, layers, dtype",
    [
        ("fables-12m", 56, torch.bfloat16),
        ("bitnet-online", 14, torch.bfloat16),
        ("llama-bitlinear", 21, torch.float32),
        ("llama-autobit-online-rmsnorm", 14, torch.bfloat16),
        ("qwen3-yarn-mixed", 15, torch.bfloat16),
        ("qwen3-g128", 15, torch.bfloat16),
        ("qwen3-g128", 15, torch.float16),
        ("llama-trilm", 14, torch.float32),
    ],
)
def test_loading_packs_and_a_packed_checkpoint_is_read_again(name, layers, dtype, tmp_path):
    path = SMALL if name == "fables-12m" else FIXTURES / name
    accelerated = load(path, dtype)
    trit.accelerate(accelerated)
    expected = logits(accelerated)

    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, quantization_config=trit.TritConfig())
    assert packed_layers(model) == layers and not model.training
    assert torch.equal(logits(model), expected)
    assert len(model.config.quantization_config.layers) == layers
    for source, folder in [(model, tmp_path / "loaded"), (accelerated, tmp_path / "accelerated")]:
        source.save_pretrained(folder)
        again = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        assert packed_layers(again) == layers
        assert torch.equal(logits(again), expected)
        # And once more, from what was read.
        again.save_pretrained(tmp_path / "again")
        third = AutoModelForCausalLM.from_pretrained(tmp_path / "again", dtype=dtype)
        assert torch.equal(logits(third), expected)
        shutil.rmtree(tmp_path / "again")

    with safe_open(tmp_path / "loaded" / "model.safetensors", "pt") as file:
        weights = [
            key
            for key in file.keys()
            if key.endswith("proj.weight") and file.get_tensor(key).dtype is torch.uint8
        ]
        sizes = sum(file.get_tensor(key).numel() for key in weights)
    heads = sum("lm_head" in name for name in model.config.quantization_config.layers)
    assert len(weights) == layers - heads
    trits = sum(
        module.in_features * module.out_features
        for name, module in model.named_modules()
        if isinstance(module, trit.nn.BitLinear) and "lm_head" not in name
    )
    assert sizes * 8 / trits < 1.7


def test_a_packed_checkpoint_is_small_and_read_in_another_process(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(
        FIXTURES / "llama-trilm", dtype=torch.float16, quantization_config=trit.TritConfig()
    )
    model.save_pretrained(tmp_path)
    floats = FIXTURES / "llama-trilm" / "model.safetensors"
    head = 2 * 2 * 400 * 128
    assert (tmp_path / "model.safetensors").stat().st_size - head < (floats.stat().st_size - head) / 7
    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "trit" and config["version"] == 1
    assert config["layers"]["model.layers.0.mlp.up_proj"] == {"rule": "float", "scales": "rows"}
    program = f"""
import trit.hf
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained({str(tmp_path)!r})
assert isinstance(model.model.layers[1].mlp.up_proj, trit.nn.BitLinear)
print(model.generate(do_sample=False, max_new_tokens=8, min_new_tokens=8, pad_token_id=0)[0].tolist())
"""
    run = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    expected = model.generate(do_sample=False, max_new_tokens=8, min_new_tokens=8, pad_token_id=0)[0].tolist()
    assert json.loads(run.stdout.splitlines()[-1]) == expected


def test_latent_weights_are_packed_only_where_somebody_says_so(tmp_path):
    """A checkpoint without quantization_config, as 1bitLLM publishes them."""
    for file in ("config.json", "model.safetensors"):
        shutil.copy(FIXTURES / "bitnet-online" / file, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["quantization_config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="the model has no ternary linear layer"):
        AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=trit.TritConfig())
    declared = load(FIXTURES / "bitnet-online", torch.bfloat16)
    trit.accelerate(declared)
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.bfloat16, quantization_config=trit.TritConfig(latent=True, skip=["lm_head"])
    )
    assert packed_layers(model) == 14
    assert torch.equal(logits(model), logits(declared))


def test_layers_can_be_left_out(tmp_path):
    config = trit.TritConfig(skip=["model.layers.0", "lm_head"])
    model = AutoModelForCausalLM.from_pretrained(FIXTURES / "qwen3-g128", quantization_config=config)
    assert packed_layers(model) == 7
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert packed_layers(again) == 7 and torch.equal(logits(again), logits(model))
    assert again.config.quantization_config.skip == ["model.layers.0", "lm_head"]


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="TritConfig has no option bits"):
        trit.TritConfig(bits=2)
    with pytest.raises(
        ValueError, match="config.json says version 9 of packed layers, and this trit reads 1: update trit"
    ):
        trit.TritConfig(version=9)
    with pytest.raises(ValueError, match="device_map names cuda:0: trit computes on the CPU"):
        AutoModelForCausalLM.from_pretrained(
            FIXTURES / "qwen3-g128", quantization_config=trit.TritConfig(), device_map={"": "cuda:0"}
        )
    model = AutoModelForCausalLM.from_pretrained(
        FIXTURES / "llama-trilm", quantization_config=trit.TritConfig()
    )
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][2, 1] = 255
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="byte 1 of row 2 is 255; 0 to 242 encode trits"):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["layers"]["model.layers.7.mlp.up_proj"] = {
        "rule": "float",
        "scales": "rows",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match="says that model.layers.7.mlp.up_proj is packed, and the model has no such linear"
    ):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_the_configuration_says_what_it_is():
    config = trit.TritConfig(skip=["lm_head"], layers={"a": {"rule": "float", "scales": "rows"}})
    assert repr(config) == "TritConfig(skip=['lm_head'], latent=False, 1 packed layers)"
    assert trit.TritConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()
