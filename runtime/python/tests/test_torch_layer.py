"""`trit.nn.BitLinear`: transformers' arithmetic bit for bit, and all that torch does with a module."""

import copy
import gc
import io
import pickle
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip(
    "torch", reason="torch cannot be imported here: nothing of trit.nn and trit.accelerate is tested"
)

import torch

import trit
from trit.nn import BitLinear

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def trits(n: int, k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, 2, (n, k), dtype=np.int8)


def layer(rule="float", scales=0.5, group=None, n=96, k=160, bias=False) -> BitLinear:
    return BitLinear.from_trits(trits(n, k), scales, group, bias=torch.randn(n) if bias else None, rule=rule)


def hugging_face():
    reason = "transformers cannot be imported here: its layers are not compared"
    return pytest.importorskip("transformers.integrations.bitnet", reason=reason)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "bf16", "f16"])
@pytest.mark.parametrize("k, n", [(320, 128), (6912, 64), (37, 8)])
def test_a_packed_bitlinear_is_transformers_bit_for_bit(k, n, dtype, bias):
    bitnet = hugging_face()
    torch.manual_seed(0)
    module = bitnet.BitLinear(k, n, bias, dtype=dtype)
    module.weight.copy_(torch.tensor([0b01100001, 0b10010010, 0b00011000])[torch.randint(0, 3, (n // 4, k))])
    module.weight_scale.fill_(37.3)
    if bias:
        module.bias.copy_(torch.randn(n))
    ours = BitLinear.from_hf(module)
    assert ours.rule == "bitlinear"
    for x in [torch.randn(33, k), torch.randn(2, 3, k) * 100, torch.zeros(1, k), torch.randn(1, k) * 1e-6]:
        x = x.to(dtype)
        assert torch.equal(ours(x), module(x))


@pytest.mark.parametrize("online", [False, True], ids=["offline", "online"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "bf16", "f16"])
@pytest.mark.parametrize("k, n", [(320, 128), (6912, 64), (37, 8)])
def test_an_autobitlinear_is_transformers_to_the_rounding_of_its_sums(k, n, dtype, bias, online):
    bitnet = hugging_face()
    torch.manual_seed(0)
    module = bitnet.AutoBitLinear(k, n, bias, online_quant=online)
    with torch.no_grad():
        module.weight.copy_(torch.randn(n, k) * 0.02 if online else torch.from_numpy(trits(n, k)))
        if not online:
            module.weight_scale.fill_(0.0237)
    module.to(dtype)
    ours = BitLinear.from_hf(module)
    for x in [torch.randn(33, k), torch.randn(2, 3, k) * 100, torch.zeros(1, k), torch.randn(1, k) * 1e-6]:
        x = x.to(dtype)
        with torch.no_grad():
            expected = module(x)
        found = ours(x)
        if dtype is torch.float32:
            torch.testing.assert_close(found, expected, rtol=0, atol=float(expected.abs().max()) * 4e-6)
        else:
            # Sums agree to float32's precision, so that few are rounded to another number of 16 bits.
            differing = float((found != expected).float().mean())
            assert differing < (0.005 if dtype is torch.bfloat16 else 0.03)
            torch.testing.assert_close(found, expected, rtol=0.01, atol=float(expected.abs().max()) * 0.002)


def test_without_a_compiler_bitlinear_rounds_as_its_functions_do_then():
    bitnet = hugging_face()
    torch.manual_seed(0)
    module = bitnet.BitLinear(320, 128, False, dtype=torch.bfloat16)
    module.weight.copy_(torch.tensor([0b01100001, 0b10010010, 0b00011000])[torch.randint(0, 3, (32, 320))])
    module.weight_scale.fill_(37.3)
    x = torch.randn(33, 320).bfloat16()
    with torch._dynamo.config.patch(disable=True):
        ours = BitLinear.from_hf(module)
    assert ours.rule == "bitlinear-eager"
    with torch.compiler.set_stance("force_eager"):
        expected = module(x)
    assert torch.equal(ours(x), expected)


def test_the_norm_inside_a_layer_and_1bitllms_class():
    bitnet = hugging_face()
    module = bitnet.AutoBitLinear(64, 32, False, online_quant=True, use_rms_norm=True, rms_norm_eps=1e-5)
    module.rms_norm.weight.data = torch.rand(64)
    x = torch.randn(3, 64)
    ours = BitLinear.from_hf(module)
    assert ours.rms_norm is module.rms_norm
    torch.testing.assert_close(ours(x), module(x).detach(), rtol=1e-4, atol=1e-5)

    # As utils_quant.py in the repositories of 1bitLLM names things.
    linear = type("BitLinear", (torch.nn.Linear,), {})(64, 32, bias=False)
    linear.weight_bits, linear.input_bits = 1, 8
    plain = bitnet.AutoBitLinear(64, 32, False, online_quant=True)
    plain.weight = linear.weight
    torch.testing.assert_close(BitLinear.from_hf(linear)(x), plain(x).detach(), rtol=1e-4, atol=1e-5)
    linear.input_bits = 4
    with pytest.raises(ValueError, match="is a BitLinear, whose arithmetic is not known"):
        BitLinear.from_hf(linear)


@pytest.mark.parametrize("group", ["matrix", "rows", 256, 128, 64, 32])
@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "bf16", "f16"])
def test_scales_and_groups_of_ternary_floats_are_found(group, dtype):
    n, k = 48, 600
    rng = np.random.default_rng(1)
    if group == "matrix":
        scales = np.full((n, k), 0.75)
    elif group == "rows":
        scales = np.repeat(rng.random((n, 1)) + 0.5, k, 1)
    else:
        scales = np.repeat(rng.random((n, -(-k // group))) + 0.5, group, 1)[:, :k]
    linear = torch.nn.Linear(k, n)
    weight = torch.from_numpy(trits(n, k) * scales).to(dtype)
    linear.to(dtype).weight.data = weight
    ours = BitLinear.from_hf(linear)
    assert ours.group_size == (group if isinstance(group, int) else None)
    assert torch.equal(ours.dequantize().to(dtype), weight)
    x = torch.randn(7, k).to(dtype)
    exact = (x.double() @ weight.double().T + linear.bias.double()).detach()
    error = (ours(x).double() - exact).abs().max() / exact.abs().max()
    assert error < {torch.float32: 2e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}[dtype]


@pytest.mark.parametrize("rule", ["float", "bitlinear", "autobitlinear-offline", "autobitlinear-online"])
@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "bf16", "f16"])
def test_opcheck(rule, dtype):
    ours = layer(rule, bias=True)
    bias = ours.bias.detach().to(dtype).requires_grad_(True)
    for grad in (False, True):
        x = torch.randn(3, 160).to(dtype).requires_grad_(grad)
        arguments = (x, ours.weight, ours.scales, bias if grad else None, ours._number, 0, rule)
        torch.library.opcheck(torch.ops.trit.linear.default, arguments)
    gradient = torch.randn(3, 96).to(dtype)
    arguments = (gradient, ours.weight, ours.scales, ours._number, 160, 0, rule)
    torch.library.opcheck(torch.ops.trit.linear_backward.default, arguments)


@pytest.mark.parametrize("rule", ["float", "bitlinear", "autobitlinear-offline", "autobitlinear-online"])
def test_gradients_are_those_of_the_floats(rule):
    ours = layer(rule, scales=0.25, bias=True)
    ours.bias.requires_grad_(True)
    x = torch.randn(4, 5, 160, requires_grad=True)
    ours(x).pow(2).sum().backward()
    scale = 4.0 if rule == "bitlinear" else 0.25
    dense = torch.from_numpy(trits(96, 160)).float() * scale
    torch.testing.assert_close(ours.dequantize(), dense)
    y = ours(x.detach()).detach()
    torch.testing.assert_close(x.grad, 2 * y @ dense, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.bias.grad, (2 * y).flatten(0, 1).sum(0), rtol=1e-4, atol=1e-4)
    assert ours.weight.grad is None and not ours.weight.requires_grad


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize("grad", [False, True])
def test_compiled_without_a_break(backend, grad):
    torch._dynamo.reset()
    ours = layer("autobitlinear-offline", bias=True)
    compiled = torch.compile(ours, fullgraph=True, backend=backend)
    for rows in (1, 3, 7):
        x = torch.randn(rows, 160, requires_grad=grad)
        assert torch.equal(compiled(x), ours(x))
        if grad:
            compiled(x).sum().backward()
            assert torch.allclose(x.grad, ours.dequantize().sum(0).expand_as(x), rtol=1e-4, atol=1e-4)


def test_state_dict_copies_pickles_and_dtypes():
    for ours in [
        layer("float", np.random.default_rng(2).random((96, 5), dtype=np.float32), 32, bias=True),
        layer("bitlinear", 1.2345678),
    ]:
        x = torch.randn(3, 160)
        expected = ours(x)
        kind = ("matrix", "rows", "groups")[ours.scales.ndim]
        empty = BitLinear(
            160, 96, ours.bias is not None, rule=ours.rule, scales=kind, group_size=ours.group_size
        )
        assert not torch.equal(empty(x), expected)
        assert empty.load_state_dict(ours.state_dict()).missing_keys == []
        file = io.BytesIO()
        torch.save(ours, file)
        file.seek(0)
        others = [
            empty,
            copy.deepcopy(ours),
            pickle.loads(pickle.dumps(ours)),
            torch.load(file, weights_only=False),
        ]
        others.append(copy.deepcopy(ours).to(torch.bfloat16).to(torch.float32) if ours.bias is None else ours)
        for other in others:
            assert torch.equal(other(x), expected)
            assert repr(other) == repr(ours)
        others[1].weight.fill_(121)
        assert torch.equal(ours(x), expected) and not torch.equal(others[1](x), expected)
    with pytest.raises(RuntimeError, match="size mismatch for scales"):
        BitLinear(160, 96).load_state_dict(layer("float", np.ones(96, np.float32)).state_dict())


def test_weights_that_change_are_packed_again_and_freed_with_their_layer():
    ours, x = layer(), torch.randn(2, 160)
    before = ours(x)
    ours.scales.copy_(torch.tensor(1.0).view(torch.int32))
    torch.testing.assert_close(ours(x), before * 2)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), before * 2)
    ours.weight = torch.full_like(ours.weight, 121)
    assert not ours(x).any()
    number = int(ours._number)
    assert number in trit._op.Holder._living
    del ours
    gc.collect()
    assert number not in trit._op.Holder._living


def test_shapes_and_layouts():
    ours = layer()
    x = torch.randn(4, 6, 160)
    expected = ours(x)
    assert expected.shape == (4, 6, 96)
    assert torch.equal(ours(x[2, 3]), expected[2, 3])
    assert torch.equal(ours(x.transpose(0, 1)), expected.transpose(0, 1))
    assert ours(x[:, :0]).shape == (4, 0, 96)
    assert torch.equal(ours(x.double().float()), expected)
    assert ours(torch.randn(2, 160, device="meta")).shape == (2, 96) if ours.to("meta") else True


def test_infinities_and_nans_stay_in_their_row():
    for rule in ("float", "bitlinear", "autobitlinear-offline", "autobitlinear-online"):
        for dtype in DTYPES:
            x = torch.randn(3, 160).to(dtype)
            x[0, 3], x[2, 1] = float("nan"), float("inf")
            y = layer(rule)(x)
            assert y[0].isnan().all() and y[1].isfinite().all() and y[2].isnan().all()


@pytest.mark.parametrize(
    "x, error, words",
    [
        (torch.zeros(2, 159), ValueError, r"x must be \[..., 160\], but has the shape \(2, 159\)"),
        (torch.tensor(1.0), ValueError, r"x must be \[..., 160\], but has the shape \(\)"),
        (torch.zeros(2, 160).double(), TypeError, r"x has elements of torch.float64; .*: pass x.float\(\)"),
        (torch.zeros(2, 160).int(), TypeError, "x has elements of torch.int32"),
        (
            torch.zeros(2, 160, device="meta"),
            ValueError,
            "x is on meta and the weights are on cpu: trit computes on the",
        ),
    ],
)
def test_activations_that_do_not_fit_are_refused_by_name(x, error, words):
    with pytest.raises(error, match=words):
        layer()(x)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"in_features": 0}, "in_features is 0"),
        ({"scales": "groups"}, 'scales="groups" and group_size go together'),
        ({"group_size": 64}, 'scales="groups" and group_size go together'),
        ({"scales": "rows", "rule": "bitlinear"}, 'rule "bitlinear" has one scale for the matrix'),
        ({"scales": "groups", "group_size": 48}, "group_size is 48; a multiple of 32 is needed"),
    ],
)
def test_layers_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        BitLinear(**{"in_features": 160, "out_features": 96} | arguments)


def test_modules_that_are_not_ternary_are_refused():
    with pytest.raises(TypeError, match="module is a Embedding; a linear layer is needed"):
        BitLinear.from_hf(torch.nn.Embedding(4, 4))
    with pytest.raises(ValueError, match="is not ternary"):
        BitLinear.from_hf(torch.nn.Linear(64, 64))
    with pytest.raises(ValueError, match="has weights of torch.float64"):
        BitLinear.from_hf(torch.nn.Linear(64, 64).double())
    with pytest.raises(ValueError, match="weights are on meta: load them first"):
        BitLinear.from_hf(torch.nn.Linear(64, 64, device="meta"))
    damaged = layer()
    damaged.weight[3, 4] = 250
    with pytest.raises(ValueError, match="weight: byte 4 of row 3 is 250; 0 to 242 encode trits"):
        damaged(torch.zeros(1, 160))


def test_words():
    assert repr(layer("autobitlinear-offline")) == (
        "BitLinear(in_features=160, out_features=96, bias=False, autobitlinear-offline, one scale)"
    )
    grouped = layer("float", np.ones((96, 2), np.float32), 128)
    assert "a scale for 128 columns" in repr(grouped)


def test_the_golden_bytes_of_dense243():
    rows = np.array([[-1, 0, 1, 1, 0, 1, 0, -1, 1, 0], [0] * 5 + [1] * 5], np.int8)
    assert trit.nn.BitLinear.from_trits(rows).weight.tolist() == [[156, 140], [121, 242]]
    for k in range(1, 12):
        w = trits(3, k)
        packed = trit.nn.BitLinear.from_trits(w).weight.numpy()
        np.testing.assert_array_equal(trit._op.unpack_rows(packed, k), w)


def test_importing_trit_imports_no_torch():
    program = "import sys, trit; assert 'nn' in dir(trit); assert 'torch' not in sys.modules; trit.nn; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_torch_the_error_says_what_to_install():
    program = """
import sys
sys.modules["torch"] = None
import trit
for name in ("nn", "accelerate", "TritConfig"):
    try:
        getattr(trit, name)
    except ImportError as error:
        assert 'pip install "trit[torch]"' in str(error), error
    else:
        raise SystemExit(name)
try:
    trit.missing
except AttributeError as error:
    assert "module 'trit' has no attribute 'missing'" in str(error)
else:
    raise SystemExit("missing")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
