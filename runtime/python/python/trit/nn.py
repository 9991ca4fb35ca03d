"""Ternary layers for torch."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

try:
    import torch
    from torch import Tensor
except ImportError as error:
    raise ImportError(
        'trit.nn, trit.accelerate and trit.TritConfig need torch: pip install "trit[torch]"'
    ) from error

from . import _op, _trit

__all__ = ["BitLinear", "Rule"]

Rule = Literal["float", "bitlinear", "bitlinear-eager", "autobitlinear-offline", "autobitlinear-online"]
"""How a layer computes.

"float": float activations, scales of any kind. The others quantize activations to int8 with one scale a row, and have one
scale for the weights: "bitlinear" as transformers' BitLinear (the scale divides; "bitlinear-eager" as it computes without
a compiler, which differs in 16 bits), "autobitlinear-offline" as its AutoBitLinear with trits (the scale multiplies),
"autobitlinear-online" as the same with latent weights.
"""


class BitLinear(torch.nn.Module):
    """A linear layer with ternary weights, in place of torch.nn.Linear.

    It computes on the CPU, in float32, bfloat16 or float16. Weights are not trained: gradients go to x and to the bias, as
    if activations were not quantized. `BitLinear.from_hf` and `BitLinear.from_trits` make one with weights.

    Buffers: weight, uint8 [out_features, ceil(in_features / 5)], five trits a byte, the first the least significant;
    scales, int32 that holds the bits of float32, [] for the matrix, [out_features] for rows, or [out_features, groups] for
    groups of group_size columns; bias [out_features]. As bits, scales keep their precision in `model.to(torch.bfloat16)`.
    """

    weight: Tensor
    scales: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        rule: Rule = "float",
        scales: Literal["matrix", "rows", "groups"] = "matrix",
        group_size: int | None = None,
        rms_norm: torch.nn.Module | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """A layer whose weights are zeros, to load a state_dict into.

        rms_norm is applied to x before all else; device and dtype are those of the bias. Raises ValueError for sizes,
        scales and rules that do not go together.
        """
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ValueError(
                f"in_features is {in_features} and out_features {out_features}; at least 1 is needed"
            )
        if (scales == "groups") != (group_size is not None):
            raise ValueError('scales="groups" and group_size go together: pass both or neither')
        if rule != "float" and scales != "matrix":
            raise ValueError(
                f'rule "{rule}" has one scale for the matrix: pass scales="matrix" or rule="float"'
            )
        if group_size is not None and (group_size < 32 or group_size % 32):
            raise ValueError(f"group_size is {group_size}; a multiple of 32 is needed")
        self.in_features = in_features
        self.out_features = out_features
        self.rule: Rule = rule
        self.group_size = group_size
        groups = -(-in_features // group_size) if group_size else 0
        shape = {"matrix": (), "rows": (out_features,), "groups": (out_features, groups)}[scales]
        packed = (out_features, -(-in_features // _op.DIGITS))
        self.register_buffer("weight", torch.full(packed, 121, dtype=torch.uint8, device=device))
        self.register_buffer("scales", torch.full(shape, 0x3F800000, dtype=torch.int32, device=device))
        self.bias: torch.nn.Parameter | None = None
        if bias:
            self.bias = torch.nn.Parameter(
                torch.zeros(out_features, device=device, dtype=dtype), requires_grad=False
            )
        self.rms_norm = rms_norm
        self._attach()

    @classmethod
    def from_trits(
        cls,
        trits: np.ndarray[Any, np.dtype[np.int8]],
        scales: float | np.ndarray[Any, np.dtype[np.float32]] = 1.0,
        group_size: int | None = None,
        *,
        bias: Tensor | None = None,
        rule: Rule = "float",
        rms_norm: torch.nn.Module | None = None,
    ) -> BitLinear:
        """A layer of trits, int8 [out_features, in_features], with scales as for `trit.pack`.

        Raises TypeError and ValueError as `trit.pack` does, which names the argument.
        """
        # Packing checks the arguments, and gives scales in their final form.
        matrix = _trit.pack(trits, scales, group_size)
        values = np.asarray(matrix.scales, np.float32)
        n, k = matrix.shape
        kind: Any = ("matrix", "rows", "groups")[values.ndim]
        layer = cls(k, n, rule=rule, scales=kind, group_size=matrix.group_size, rms_norm=rms_norm)
        layer.weight = torch.from_numpy(_trit.pack_trits(trits).canonical())
        layer.scales = torch.from_numpy(np.ascontiguousarray(values).reshape(values.shape)).view(torch.int32)
        if bias is not None:
            layer.bias = torch.nn.Parameter(bias.detach().clone(), requires_grad=False)
        return layer

    @classmethod
    def from_hf(cls, module: torch.nn.Module) -> BitLinear:
        """A layer that computes what `module` computes.

        module is a BitLinear or AutoBitLinear of transformers, 1bitLLM's BitLinear, or a torch.nn.Linear whose weights are
        ternary times a scale for the matrix, each row, or 256, 128, 64 or 32 columns. Which way the scale goes is said by
        the class. Raises TypeError for another class, ValueError for weights that are not ternary, or not on the CPU.
        """
        from .replace import convert

        return convert(module)

    def _attach(self) -> None:
        # The holder's number is no buffer, because a buffer would be copied, moved and saved.
        self._holder = _op.Holder()
        self._number = self._holder.number

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_holder"], state["_number"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._attach()

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in_features] to [..., out_features], in x's dtype.

        Raises TypeError for another dtype than float32, bfloat16 and float16, ValueError for another shape or device.
        """
        if self.rms_norm is not None:
            x = self.rms_norm(x)
        if x.dtype not in _op._ELEMENTS:
            raise TypeError(
                f"x has elements of {x.dtype}; float32, bfloat16 and float16 are possible: pass x.float()"
            )
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"x must be [..., {self.in_features}], but has the shape {tuple(x.shape)}")
        if x.device != self.weight.device or x.device.type not in ("cpu", "meta"):
            raise ValueError(
                f"x is on {x.device} and the weights are on {self.weight.device}: trit computes on the CPU, so call "
                'model.to("cpu") and pass x.cpu()'
            )
        y: Tensor = _op.linear(
            x, self.weight, self.scales, self.bias, self._number, self.group_size or 0, self.rule
        )
        return y

    def dequantize(self) -> Tensor:
        """The weights as they multiply, float32 [out_features, in_features]."""
        return torch.from_numpy(_op.dequantize(self._matrix(), self.rule))

    def _matrix(self) -> _trit.PackedMatrix:
        """What multiplies, made for this CPU of the weights as they are."""
        return self._holder.matrix(self.weight, self.scales, self.in_features, self.group_size or 0)

    def _words(self) -> str:
        scales = ("one scale", "a scale a row", f"a scale for {self.group_size} columns")[self.scales.ndim]
        return f"{self.rule}, {scales}"

    def extra_repr(self) -> str:
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}, {self._words()}"
