"""Types of what the package has in Rust. The texts stand there, and in help()."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__version__: str

class TritError(Exception): ...

class PackedMatrix:
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def scales(self) -> float | NDArray[np.float32]: ...
    @property
    def group_size(self) -> int | None: ...
    @property
    def kernels(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    def unpack(self) -> NDArray[np.int8]: ...

def pack(
    trits: NDArray[np.int8],
    scales: float | NDArray[np.float32] | None = None,
    group_size: int | None = None,
    kernels: Literal["auto", "portable"] = "auto",
) -> PackedMatrix: ...
def unpack(matrix: PackedMatrix, /) -> NDArray[np.int8]: ...
def gemm(
    x: NDArray[np.float32],
    matrix: PackedMatrix,
    *,
    activations: Literal["float", "int8", "int8-group"] = "float",
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]: ...
def gemm_i8(
    x: NDArray[np.int8], matrix: PackedMatrix, *, out: NDArray[np.int32] | None = None
) -> NDArray[np.int32]: ...
def set_num_threads(threads: int, /) -> None: ...
def get_num_threads() -> int: ...
def linear(
    x: NDArray[np.float32] | NDArray[np.int16],
    matrix: PackedMatrix,
    *,
    rule: str,
    elements: Literal["float32", "bfloat16", "float16"] | str = "float32",
    bias: NDArray[np.float32] | None = None,
) -> Any: ...
