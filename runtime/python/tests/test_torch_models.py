"""`trit.accelerate` on models of transformers: the same tokens, through all that generates."""

import copy
import warnings

import pytest

pytest.importorskip(
    "torch", reason="torch cannot be imported here: nothing of trit.nn and trit.accelerate is tested"
)
pytest.importorskip(
    "transformers", reason="transformers cannot be imported here: trit.accelerate is not tested on models"
)

import torch
import transformers
from checkpoints import FIXTURES, SHARED, SMALL, assert_same, greedy, load, prompts, renamed_1bitllm

import trit

transformers.logging.set_verbosity_error()
warnings.filterwarnings("ignore", category=UserWarning, module="transformers")

# The family, how its layers compute, how many there are, and what stays.
FAMILIES = {
    "fables-12m": (
        "autobitlinear-offline, one scale",
        56,
        {"lm_head": "shares its weights with model.embed_tokens"},
    ),
    "fables-30m": (
        "autobitlinear-offline, one scale",
        70,
        {"lm_head": "shares its weights with model.embed_tokens"},
    ),
    "bitnet-llama3-rope": (
        "autobitlinear-offline, one scale",
        21,
        {"lm_head": "shares its weights with model.embed_tokens"},
    ),
    "bitnet-online": (
        "autobitlinear-online, one scale",
        14,
        {"lm_head": "shares its weights with model.embed_tokens"},
    ),
    "bitnet-1bitllm": (
        "autobitlinear-online, one scale",
        21,
        {"lm_head": "shares its weights with model.embed_tokens"},
    ),
    "llama-bitlinear": ("bitlinear, one scale", 21, {"lm_head": "is not ternary"}),
    "llama-autobit-online-rmsnorm": ("autobitlinear-online, one scale", 14, {"lm_head": "is not ternary"}),
    "llama-longrope-head": ("autobitlinear-online, one scale", 22, {}),
    "gemma3-online-rmsnorm": (
        "autobitlinear-online, one scale",
        21,
        {"lm_head": "shares its weights with model.embed_tokens"},
    ),
    "qwen3-yarn-mixed": (
        "autobitlinear-offline, one scale",
        15,
        {"model.layers.0.self_attn.v_proj": "is not ternary"},
    ),
    "qwen3-g128": ("float, a scale for 128 columns", 15, {}),
    "llama-trilm": ("float, a scale a row", 14, {"lm_head": "is not ternary"}),
    "qwen35-g128": ("float, a scale a row", 31, {}),
}
NEEDS_5 = {"qwen35-g128": "Qwen3.5 came with transformers 5"}
MAJOR = int(transformers.__version__.split(".")[0])


def checkpoint(name: str, folder):
    if name == "bitnet-1bitllm":
        return renamed_1bitllm(folder / name)
    if name == "fables-12m":
        return SMALL
    if name == "fables-30m":
        path = SHARED / "models" / name
        if not path.exists():
            pytest.skip("no folder shared beside the repository: fables-30m is not accelerated")
        return path
    return FIXTURES / name


@pytest.fixture(scope="module")
def small():
    return load(SMALL, torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "f32"])
@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_tokens_are_those_of_transformers(name, dtype, tmp_path):
    if name in NEEDS_5 and MAJOR < 5:
        pytest.skip(NEEDS_5[name])
    kind, count, stays = FAMILIES[name]
    model = load(checkpoint(name, tmp_path), dtype)
    before = greedy(model)
    report = trit.accelerate(model)
    assert len(report.replaced) == count and kind in report.replaced.values()
    assert stays.items() <= report.left.items() and (stays or not report.left)
    assert report.bytes_after < report.bytes_before
    for layer in report.replaced:
        assert isinstance(model.get_submodule(layer), trit.nn.BitLinear)
    # A step of bfloat16 at these logits, or what one int8 activation is worth in a trained model.
    assert_same(before, greedy(model), near_tie=0.13 if dtype is torch.bfloat16 else 0.3)


def test_beams_samples_and_batches_are_those_of_transformers(small):
    model = copy.deepcopy(small)
    ids = torch.cat([prompts(4096)[4], prompts(4096)[4].flip(1)])
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    fixed = {"max_new_tokens": 12, "min_new_tokens": 12, "pad_token_id": 0, "attention_mask": mask}

    def run(**arguments):
        torch.manual_seed(3)
        return model.generate(ids, **fixed, **arguments)

    ways = [{"num_beams": 3, "do_sample": False}, {"do_sample": True, "top_k": 20}, {"do_sample": False}]
    before = [run(**way) for way in ways]
    trit.accelerate(model)
    for expected, way in zip(before, ways, strict=True):
        assert torch.equal(run(**way), expected), way


def test_a_pipeline_generates_the_same_text(small):
    model = copy.deepcopy(small)
    tokenizer = transformers.AutoTokenizer.from_pretrained(SMALL)
    generator = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)

    def text():
        settings = {"max_new_tokens": 16, "do_sample": False, "return_full_text": False}
        return generator("The old man looked at the sea", **settings)[0]["generated_text"]

    before = text()
    trit.accelerate(model)
    assert text() == before


def test_a_compiled_model_is_one_graph_and_gives_the_same_logits(small):
    model = copy.deepcopy(small)
    trit.accelerate(model)
    ids = prompts(4096)[3]
    with torch.no_grad():
        expected = model(ids, use_cache=False).logits
        torch._dynamo.reset()
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(ids, use_cache=False).logits, expected)
        # Layers of the same shape share a graph: what tells them apart is a tensor.
        layer = torch.compile(model.model.layers[0].mlp, fullgraph=True, backend="aot_eager")
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        x = torch.randn(1, 3, 384, dtype=torch.bfloat16)
        for block in model.model.layers:
            layer._orig_mod = block.mlp
            assert torch.equal(torch.compile(block.mlp, fullgraph=True, backend="aot_eager")(x), block.mlp(x))
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - before <= 2


def test_generate_of_a_compiled_model(small):
    model = copy.deepcopy(small)
    trit.accelerate(model)
    ids = prompts(4096)[2]
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(ids, **settings)
    model.forward = torch.compile(model.forward, backend="aot_eager")
    assert torch.equal(model.generate(ids, **settings), expected)


def test_inductor_compiles_a_layer(small):
    model = copy.deepcopy(small)
    trit.accelerate(model)
    mlp = model.model.layers[1].mlp
    x = torch.randn(2, 5, 384)
    mlp.float()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(mlp, fullgraph=True)(x), mlp(x), rtol=0.05, atol=0.05)


def test_a_model_is_accelerated_once(small):
    model = copy.deepcopy(small)
    trit.accelerate(model)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, trit.nn.BitLinear)}
    again = trit.accelerate(model)
    assert not again.replaced and again.already == 56 and list(again.left) == ["lm_head"]
    assert all(model.get_submodule(name) is module for name, module in layers.items())
    assert repr(again) == (
        "<trit.accelerate: 0 linear layers replaced, 56 had been before, 1 left\n"
        "  lm_head: shares its weights with model.embed_tokens>"
    )


def test_the_report_says_what_was_replaced_and_left(small):
    model = copy.deepcopy(small)
    report = trit.accelerate(model, skip=["model.layers.0", "model.layers.1.mlp.up_proj"])
    assert len(report.replaced) == 56 - 8
    assert (
        report.left["model.layers.0.mlp.up_proj"]
        == report.left["model.layers.1.mlp.up_proj"]
        == "was to be skipped"
    )
    text = repr(report)
    assert text.startswith(
        "<trit.accelerate: 48 linear layers replaced (autobitlinear-offline, one scale), 20."
    )
    assert (
        "MiB, 9 left\n  model.layers.0.self_attn.q_proj, " in text
        and "and 5 more: was to be skipped\n" in text
    )


def test_gradients_pass_to_what_is_trained_around_packed_layers(small):
    model = copy.deepcopy(small)
    trit.accelerate(model)
    assert not any(p.requires_grad for n, p in model.named_parameters() if "proj" in n and "norm" not in n)
    ids = prompts(4096)[3]
    torch.nn.Module.to(model, torch.float32)
    model.model.embed_tokens.weight.requires_grad_(True)
    model(ids, labels=ids).loss.backward()
    gradient = model.model.embed_tokens.weight.grad
    assert gradient is not None and torch.isfinite(gradient).all() and gradient.abs().sum() > 0


def test_models_that_cannot_be_accelerated_are_refused_and_stay(small):
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, not str"):
        trit.accelerate("fables-12m")
    training = copy.deepcopy(small).train()
    with pytest.raises(
        ValueError, match=r"training mode, and packed weights are not trained: call model.eval\(\) first"
    ):
        trit.accelerate(training)
    with torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(small.config).eval()
    with pytest.raises(ValueError, match="q_proj: weights are on meta: load them first"):
        trit.accelerate(empty)
    plain = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=2, vocab_size=50
    )
    floats = transformers.LlamaForCausalLM(plain).eval()
    with pytest.raises(
        ValueError, match="the model has no ternary linear layer: .*8 left\n.*q_proj.* is not ternary"
    ):
        trit.accelerate(floats)
    assert type(floats.model.layers[0].mlp.up_proj) is torch.nn.Linear
    report = trit.accelerate(floats, latent=True)
    assert len(report.replaced) == 7 and report.left == {"lm_head": "is not ternary"}


def test_what_is_nearly_ternary_is_left_and_named():
    trits = torch.randint(-1, 2, (64, 128)).float()
    model = torch.nn.Sequential(*(torch.nn.Linear(128, 64, bias=False) for _ in range(3))).eval()
    with torch.no_grad():
        model[0].weight.copy_(trits * 0.25)
        model[1].weight.copy_(trits * 0.25)
        model[1].weight[5, 7] = 0.251
        model[2].weight.copy_(trits * 0.25)
        model[2].weight[1, 1] = float("nan")
    report = trit.accelerate(model)
    assert list(report.replaced) == ["0"] and report.left["2"] == "has weights that are not finite"
    assert report.left["1"].startswith("is only nearly ternary: weights are up to 0.004 of their scale away")
    assert "row 5" in report.left["1"]


def test_damaged_packed_weights_are_refused_by_name():
    model = load(FIXTURES / "llama-bitlinear", torch.float32)
    model.model.layers[1].mlp.up_proj.weight[3, 2] = 0b11
    with pytest.raises(ValueError, match="layers.1.mlp.up_proj: packed weights hold the code 3"):
        trit.accelerate(model)
    assert not any(isinstance(module, trit.nn.BitLinear) for module in model.modules())
