"""Ternary language models and matrices on CPUs.

`pack` packs a matrix of -1, 0 and 1 in 1.6 bits a weight, and `gemm` multiplies arrays with it by machine code that is
generated for its shape and this CPU.
"""

from ._trit import (
    PackedMatrix,
    TritError,
    __version__,
    gemm,
    gemm_i8,
    get_num_threads,
    pack,
    set_num_threads,
    unpack,
)

__all__ = [
    "PackedMatrix",
    "TritError",
    "__version__",
    "gemm",
    "gemm_i8",
    "get_num_threads",
    "pack",
    "set_num_threads",
    "unpack",
]
