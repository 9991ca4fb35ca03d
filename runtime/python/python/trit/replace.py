"""`trit.accelerate`: ternary linear layers of a loaded model are found, and replaced in place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .nn import BitLinear, Rule  # First, because it says what to install where torch is missing.

# isort: split
import torch
from torch import Tensor

__all__ = ["Report", "accelerate", "convert"]

_UNIT = 32
"""Columns of the smallest group."""
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_NEAR = 0.05
"""Weights that are this close to ternary, relative to their scale, are called nearly ternary."""


class NotTernary(ValueError):
    """Why a layer's weights are not ternary."""


@dataclass
class Report:
    """What `trit.accelerate` did to a model."""

    replaced: dict[str, str] = field(default_factory=dict)
    """Layers that were replaced, and how they compute."""
    left: dict[str, str] = field(default_factory=dict)
    """Linear layers that were left, and why."""
    already: int = 0
    """Layers that had been replaced before."""
    bytes_before: int = 0
    """Bytes of the weights that were replaced."""
    bytes_after: int = 0
    """Bytes of the packed weights in their place."""

    def __repr__(self) -> str:
        words = [f"<trit.accelerate: {_count(len(self.replaced), 'linear layer')} replaced"]
        if self.replaced:
            kinds = sorted(set(self.replaced.values()))
            words.append(f" ({'; '.join(kinds)}), {_mib(self.bytes_before)} became {_mib(self.bytes_after)}")
        if self.already:
            words.append(f", {self.already} had been before")
        words.append(f", {len(self.left)} left")
        reasons: dict[str, list[str]] = {}
        for name, reason in self.left.items():
            reasons.setdefault(reason, []).append(name)
        for reason, names in reasons.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            words.append(f"\n  {', '.join(names[:3])}{more}: {reason}")
        return "".join(words) + ">"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def accelerate(model: torch.nn.Module, *, skip: Iterable[str] = (), latent: bool = False) -> Report:
    """Replaces every ternary linear layer of a loaded model by `trit.nn.BitLinear`, in place, and says what it left.

    Replaced are BitLinear and AutoBitLinear of transformers, packed or latent, 1bitLLM's BitLinear, and torch.nn.Linear
    whose weights are exactly ternary times a scale for the matrix, each row, or 256, 128, 64 or 32 columns. Embeddings
    stay, and so do linear layers that share their weights with one. skip has names of layers, or of modules that they are
    in, which stay. With latent=True the other torch.nn.Linear, except the output layer, are taken for the latent weights
    of a BitNet model, which a checkpoint that does not say so may hold.

    A model of transformers can be saved by `save_pretrained` afterwards, packed.

    Raises TypeError where model is no module, ValueError for a model in training mode, for one that is not on the CPU, and
    for one without a ternary layer. The model is then as it was.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    if model.training:
        raise ValueError(
            "the model is in training mode, and packed weights are not trained: call model.eval() first"
        )
    if isinstance(model, BitLinear):
        return Report(already=1)
    skipped = tuple(skip)
    shared = _shared(model)
    head = _output_layer(model)
    report = Report()
    made: dict[int, BitLinear] = {}
    places: list[tuple[str, BitLinear]] = []
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, BitLinear):
            report.already += 1
            continue
        if not _is_linear(module):
            continue
        if not name:
            raise ValueError(
                "model is a linear layer itself: pass what contains it, or use trit.nn.BitLinear.from_hf"
            )
        if any(name == part or name.startswith(part + ".") for part in skipped):
            report.left[name] = "was to be skipped"
            continue
        if (weight := getattr(module, "weight", None)) is not None and weight.data_ptr() in shared:
            report.left[name] = f"shares its weights with {shared[weight.data_ptr()]}"
            continue
        if id(module) not in made:
            try:
                layer = convert(module, latent=latent and module is not head)
            except NotTernary as reason:
                report.left[name] = str(reason)
                continue
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}: {error}") from error
            made[id(module)] = layer
            report.bytes_before += sum(t.nbytes for t in (*module.parameters(), *module.buffers()))
            report.bytes_after += sum(t.nbytes for t in (*layer.parameters(), *layer.buffers()))
        layer = made[id(module)]
        places.append((name, layer))
        report.replaced[name] = layer._words()
    if not report.replaced and not report.already:
        raise ValueError(f"the model has no ternary linear layer: {report!r}")
    for name, layer in places:
        put(model, name, layer)
    if report.replaced:
        _prepare_saving(model)
    return report


def put(model: torch.nn.Module, name: str, layer: BitLinear) -> None:
    """Puts a layer where the one with this name is."""
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, layer)


def convert(module: torch.nn.Module, *, latent: bool = False) -> BitLinear:
    """The `BitLinear` that computes what a linear layer computes; see `BitLinear.from_hf`."""
    if not _is_linear(module):
        raise TypeError(f"module is a {type(module).__name__}; a linear layer is needed")
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.device.type == "meta":
            raise ValueError("weights are on meta: load them first")
        if tensor.device.type != "cpu":
            raise ValueError(
                f'weights are on {tensor.device}, and trit computes on the CPU: call .to("cpu") first'
            )
    with torch.no_grad():
        layer = _convert(module, latent)
    return layer.train(module.training)


def _convert(module: Any, latent: bool) -> BitLinear:
    kind = _class(module)
    norm = getattr(module, "rms_norm", None)
    if kind == "bitlinear":
        rule: Rule = "bitlinear-eager" if _runs_eagerly() else "bitlinear"
        trits = _unpack_quarters(module.weight, module.out_features)
        return _layer(trits, float(module.weight_scale), module.bias, rule, norm)
    weight: Tensor = module.weight
    if weight.dtype not in _FLOATS:
        raise NotTernary(f"has weights of {weight.dtype}")
    if not bool(torch.isfinite(weight).all()):
        raise NotTernary("has weights that are not finite")
    if kind == "autobitlinear" and not module.online_quant:
        if not bool(((weight == 0) | (weight.abs() == 1)).all()):
            raise NotTernary("its weights are not -1, 0 and 1")
        scale = float(module.weight_scale)
        return _layer(_signs(weight), scale, module.bias, "autobitlinear-offline", norm)
    if kind in ("autobitlinear", "1bitllm"):
        return _from_latent(module, norm)
    if kind is None:
        raise NotTernary(f"is a {type(module).__name__}, whose arithmetic is not known")
    try:
        values, group = group_scales(weight)
    except NotTernary:
        if latent:
            return _from_latent(module, None)
        raise
    layer = BitLinear.from_trits(_signs(weight), values, group, bias=module.bias)
    return layer


def _layer(
    trits: np.ndarray[Any, Any], scale: float, bias: Tensor | None, rule: Rule, norm: torch.nn.Module | None
) -> BitLinear:
    return BitLinear.from_trits(trits, scale, bias=bias, rule=rule, rms_norm=norm)


def _from_latent(module: Any, norm: torch.nn.Module | None) -> BitLinear:
    """As transformers' WeightQuant: float32 inside, and the result in the type of the weights."""
    weight = module.weight.float()
    scale = 1.0 / weight.abs().mean().clamp_(min=1e-5)
    trits = (weight * scale).round_().clamp_(-1, 1)
    magnitude = float((1.0 / scale).to(module.weight.dtype))
    return _layer(_signs(trits), magnitude, module.bias, "autobitlinear-online", norm)


def group_scales(weight: Tensor) -> tuple[float | np.ndarray[Any, Any], int | None]:
    """The scales of ternary floats [n, k], and the columns of a group where there are groups, for `trit.pack`.

    The coarsest grouping is taken in which a group has only -s, 0 and s, compared bit for bit; zeros fit every scale.
    Raises NotTernary.
    """
    n, k = weight.shape
    magnitudes = torch.nn.functional.pad(weight.abs(), (0, -k % _UNIT)).view(n, -1, _UNIT)
    units = magnitudes.amax(2)
    fits = ((magnitudes == 0) | (magnitudes == units[..., None])).view(n, -1)
    if not bool(fits.all()):
        raise NotTernary(_conflict(magnitudes, units, fits))
    units = units.float()
    if _agree(units.view(1, 1, -1)):
        return float(units.max()), None
    if _agree(units.view(n, 1, -1)):
        return units.amax(1).numpy(), None
    for columns in (256, 128, 64, _UNIT):
        each = columns // _UNIT
        grouped = torch.nn.functional.pad(units, (0, -units.shape[1] % each)).view(n, -1, each)
        if _agree(grouped):
            return np.ascontiguousarray(grouped.amax(2).numpy()), columns
    raise AssertionError("a unit agrees with itself")


def _agree(units: Tensor) -> bool:
    """Whether the scales along the last dimension are one and the same, or 0."""
    return bool(((units == 0) | (units == units.amax(-1, keepdim=True))).all())


def _conflict(magnitudes: Tensor, units: Tensor, fits: Tensor) -> str:
    row, column = (int(i) for i in torch.nonzero(~fits)[0])
    # Latent weights lie anywhere between 0 and the largest, rounded ones close to either.
    scale = units.float()[..., None]
    part = magnitudes.float() / scale.clamp(min=torch.finfo(torch.float32).tiny)
    worst = float(torch.minimum(part, 1 - part).max())
    if worst < _NEAR:
        return (
            f"is only nearly ternary: weights are up to {worst:.2g} of their scale away from it, the first in row {row}, "
            f"column {column}"
        )
    return "is not ternary"


def _signs(weight: Tensor) -> np.ndarray[Any, Any]:
    return torch.sign(weight).to(torch.int8).numpy()


def _unpack_quarters(packed: Tensor, n: int) -> np.ndarray[Any, Any]:
    """The trits of transformers' packed weights: bits 2 * i of row r are row i * rows + r, plus 1."""
    codes = torch.cat([(packed >> (2 * i)) & 3 for i in range(4)])[:n]
    if bool((codes == 3).any()):
        raise ValueError(
            "packed weights hold the code 3, which stands for no trit: the checkpoint is damaged"
        )
    return (codes.to(torch.int8) - 1).numpy()


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear) or _class(module) is not None


def _class(module: torch.nn.Module) -> str | None:
    """What a linear layer's class is, by its name and where it is from; None for one that is not known."""
    kind = type(module)
    if kind is torch.nn.Linear:
        return "linear"
    if kind.__module__ == "transformers.integrations.bitnet":
        return {"BitLinear": "bitlinear", "AutoBitLinear": "autobitlinear"}.get(kind.__name__)
    if kind.__name__ == "BitLinear" and isinstance(module, torch.nn.Linear):
        # The class that the repositories of 1bitLLM bring with them.
        bits = getattr(module, "weight_bits", None), getattr(module, "input_bits", None)
        return "1bitllm" if bits == (1, 8) else None
    return None


def _runs_eagerly() -> bool:
    """Whether what is decorated by torch.compile runs without it."""
    import torch._dynamo

    return bool(torch._dynamo.config.disable)


def _shared(model: torch.nn.Module) -> dict[int, str]:
    """Where weights stand that embeddings, or modules of different names, share, and a name of theirs."""
    owners: dict[int, tuple[int, str]] = {}
    shared = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.device.type == "meta":
            continue
        first = owners.setdefault(weight.data_ptr(), (id(module), name))
        if first[0] != id(module):
            shared[weight.data_ptr()] = first[1]
    return shared


def _output_layer(model: Any) -> object:
    find = getattr(model, "get_output_embeddings", None)
    return find() if find is not None else None


def _prepare_saving(model: torch.nn.Module) -> None:
    """Makes `save_pretrained` of a model of transformers write packed weights that `from_pretrained` reads."""
    try:
        from transformers import PreTrainedModel
    except ImportError:
        return
    if isinstance(model, PreTrainedModel):
        from .hf import attach

        attach(model)
