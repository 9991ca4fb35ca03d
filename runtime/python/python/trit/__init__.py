"""Ternary language models and matrices on CPUs.

`pack` packs a matrix of -1, 0 and 1 in 1.6 bits a weight, and `gemm` multiplies arrays with it by machine code that is
generated for its shape and this CPU. `tadd`, `tmul`, `tmin`, `tmax`, `tnot` and `ternary_fma` are element-wise arithmetic of
arrays of trits, int8 or packed by `pack_trits`, and `fuse` runs several of them in one pass over memory.
"""

from ._trit import (
    FusedTrits,
    PackedMatrix,
    PackedTrits,
    TritError,
    TritExpression,
    __version__,
    gemm,
    gemm_i8,
    get_num_threads,
    pack,
    pack_trits,
    set_num_threads,
    tadd,
    ternary_fma,
    tmax,
    tmin,
    tmul,
    tnot,
    unpack,
    unpack_trits,
)
from .elementwise import fuse

__all__ = [
    "FusedTrits",
    "PackedMatrix",
    "PackedTrits",
    "TritError",
    "TritExpression",
    "__version__",
    "fuse",
    "gemm",
    "gemm_i8",
    "get_num_threads",
    "pack",
    "pack_trits",
    "set_num_threads",
    "tadd",
    "ternary_fma",
    "tmax",
    "tmin",
    "tmul",
    "tnot",
    "unpack",
    "unpack_trits",
]
