"""The operators trit::linear and trit::linear_backward, through which torch sees packed matrices.

Weights enter as tensors: Dense243 bytes and the bits of float32 scales. So they are saved, copied and moved like any
weights. What multiplies is a `PackedMatrix` made of them, which a `Holder` keeps; its number enters as a tensor, because
torch.compile would make a graph of its own for each Python number. A holder sees when its tensors were changed, and makes
its matrix again.
"""

from __future__ import annotations

import itertools
import weakref

import numpy as np
import torch
from torch import Tensor

from . import _trit

DIGITS = 5
"""Trits of a byte."""
LARGEST = 242
"""The largest byte that encodes trits."""
_ELEMENTS = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def unpack_rows(packed: np.ndarray, k: int) -> np.ndarray:
    """The trits int8 [n, k] of Dense243 bytes [n, ceil(k / 5)].

    Raises ValueError for a byte that encodes no trits, named by row and column.
    """
    try:
        return _trit.PackedTrits.from_bytes(packed, (len(packed), k)).unpack()
    except ValueError as error:
        damaged = np.argwhere(packed > LARGEST)
        if not len(damaged):
            raise ValueError(f"weight: {error}") from error
        row, column = damaged[0]
        raise ValueError(
            f"weight: byte {column} of row {row} is {packed[row, column]}; 0 to 242 encode trits: the weights are damaged"
        ) from None


class Holder:
    """The `PackedMatrix` of a layer. It is made when the layer is first called, and again when its tensors changed."""

    _numbers = itertools.count(1)
    _living: weakref.WeakValueDictionary[int, Holder] = weakref.WeakValueDictionary()

    def __init__(self) -> None:
        number = next(Holder._numbers)
        Holder._living[number] = self
        # On the CPU also where transformers makes modules without memory.
        self.number = torch.tensor(number, dtype=torch.int64, device="cpu")
        self._made_of: tuple[object, ...] = ()
        self._tensors: tuple[Tensor, ...] = ()
        self._matrix: _trit.PackedMatrix | None = None

    @staticmethod
    def of(number: Tensor) -> Holder:
        """The holder of this number; a new one where its layer is no more."""
        return Holder._living.get(int(number)) or Holder()

    def matrix(self, weight: Tensor, scales: Tensor, k: int, group_size: int) -> _trit.PackedMatrix:
        """The matrix of these tensors. They are kept, so that no other tensors come to stand where they stand."""
        made_of = (_identity(weight), _identity(scales), k, group_size)
        if self._matrix is None or made_of != self._made_of:
            trits = unpack_rows(weight.detach().numpy(), k)
            values = scales.detach().view(torch.float32).numpy()
            matrix = _trit.pack(trits, values.astype(np.float32), group_size or None)
            self._matrix, self._made_of, self._tensors = matrix, made_of, (weight, scales)
        return self._matrix


def _identity(tensor: Tensor) -> tuple[int, int, tuple[int, ...]]:
    version = 0 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), version, tuple(tensor.shape)


def compute(
    x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, holder: Holder, group_size: int, rule: str
) -> Tensor:
    """The layer's results, without torch's dispatcher."""
    k = x.shape[-1]
    matrix = holder.matrix(weight, scales, k, group_size)
    rows = x.detach().reshape(-1, k)
    if x.dtype is not torch.float32:
        rows = rows.view(torch.int16)
    added = None if bias is None else bias.detach().float().numpy()
    y = torch.from_numpy(
        _trit.linear(rows.numpy(), matrix, rule=rule, elements=_ELEMENTS[x.dtype], bias=added)
    )
    if x.dtype is not torch.float32:
        y = y.view(x.dtype)
    return y.view(*x.shape[:-1], matrix.shape[0])


@torch.library.custom_op("trit::linear", mutates_args=(), device_types="cpu")
def linear(
    x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, number: Tensor, group_size: int, rule: str
) -> Tensor:
    """x [..., k] times the transposed matrix: [..., n] in x's dtype.

    weight is uint8 [n, ceil(k / 5)], scales int32 (bits of float32) [], [n] or [n, groups], bias [n].
    """
    return compute(x, weight, scales, bias, Holder.of(number), group_size, rule)


@linear.register_fake
def _(
    x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, number: Tensor, group_size: int, rule: str
) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


@torch.library.custom_op("trit::linear_backward", mutates_args=(), device_types="cpu")
def linear_backward(
    gradient: Tensor, weight: Tensor, scales: Tensor, number: Tensor, k: int, group_size: int, rule: str
) -> Tensor:
    """The gradient [..., k] of x for that of the results, [..., n]: quantization passes it straight through."""
    matrix = Holder.of(number).matrix(weight, scales, k, group_size)
    dense = torch.from_numpy(dequantize(matrix, rule)).to(gradient.dtype)
    return gradient.detach() @ dense


@linear_backward.register_fake
def _(
    gradient: Tensor, weight: Tensor, scales: Tensor, number: Tensor, k: int, group_size: int, rule: str
) -> Tensor:
    return gradient.new_empty((*gradient.shape[:-1], k))


def dequantize(matrix: _trit.PackedMatrix, rule: str) -> np.ndarray:
    """The weights as they multiply, float32 [n, k]."""
    dense = matrix.unpack().astype(np.float32)
    scales = np.asarray(matrix.scales, np.float32)
    if scales.ndim == 2:
        assert matrix.group_size is not None
        dense *= np.repeat(scales, matrix.group_size, axis=1)[:, : dense.shape[1]]
    elif scales.ndim == 1:
        dense *= scales[:, None]
    elif rule.startswith("bitlinear"):
        dense /= scales
    else:
        dense *= scales
    return dense


def _setup(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:  # type: ignore[type-arg]
    x, weight, scales, bias, number, group_size, rule = inputs
    ctx.save_for_backward(weight, scales, number)
    ctx.arguments = (x.shape[-1], group_size, rule)  # type: ignore[attr-defined]
    ctx.has_bias = bias is not None and bias.requires_grad  # type: ignore[attr-defined]


def _backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
    of_x = None
    if ctx.needs_input_grad[0]:
        of_x = linear_backward(gradient.contiguous(), *ctx.saved_tensors, *ctx.arguments)
    of_bias = gradient.flatten(0, -2).sum(0) if ctx.has_bias else None
    return of_x, None, None, of_bias, None, None, None


linear.register_autograd(_backward, setup_context=_setup)
