"""Ternary language models and matrices on CPUs.

`compile` makes a .trit bundle of a checkpoint, and `Model` runs one: generates, chats, gives logits and embeddings.

`pack` packs a matrix of -1, 0 and 1 in 1.6 bits a weight, and `gemm` multiplies arrays with it by machine code that is
generated for its shape and this CPU. `tadd`, `tmul`, `tmin`, `tmax`, `tnot` and `ternary_fma` are element-wise arithmetic of
arrays of trits, int8 or packed by `pack_trits`, and `fuse` runs several of them in one pass over memory.

With torch and transformers (`pip install "trit[torch]"`), which are imported on first use: `accelerate` replaces the ternary
layers of a loaded model in place, `nn` has the layer, and `TritConfig` makes `from_pretrained` pack them.

What goes wrong with an argument is a TypeError or ValueError that names it, with a file an OSError, with memory a
MemoryError, and all else a TritError.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ._trit import (
    Answer,
    AnswerPart,
    BundleError,
    CheckpointError,
    ClosedError,
    CompileError,
    Compiled,
    ContextError,
    FusedTrits,
    Generation,
    GuideError,
    KernelsError,
    Model,
    NotFiniteError,
    PackedMatrix,
    PackedTrits,
    Piece,
    SavedError,
    Sequence,
    Stream,
    SuppressedError,
    TritError,
    TritExpression,
    UnsupportedError,
    UntrustedError,
    __version__,
    compile,
    gemm,
    gemm_i8,
    get_num_threads,
    inspect,
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

if TYPE_CHECKING:
    from . import nn as nn
    from .hf import TritConfig as TritConfig
    from .replace import accelerate as accelerate

__all__ = [
    "Answer",
    "AnswerPart",
    "BundleError",
    "CheckpointError",
    "ClosedError",
    "CompileError",
    "Compiled",
    "ContextError",
    "FusedTrits",
    "Generation",
    "GuideError",
    "KernelsError",
    "Model",
    "NotFiniteError",
    "PackedMatrix",
    "PackedTrits",
    "Piece",
    "SavedError",
    "Sequence",
    "Stream",
    "SuppressedError",
    "TritError",
    "TritExpression",
    "UnsupportedError",
    "UntrustedError",
    "__version__",
    "compile",
    "fuse",
    "gemm",
    "gemm_i8",
    "get_num_threads",
    "inspect",
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

_LAZY = {"TritConfig": ("hf", "TritConfig"), "accelerate": ("replace", "accelerate"), "nn": ("nn", None)}


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    imported = importlib.import_module(f"{__name__}.{module}")
    value = getattr(imported, attribute) if attribute else imported
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
