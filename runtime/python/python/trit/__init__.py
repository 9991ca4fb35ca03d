"""Ternary language models and matrices on CPUs.

`compile` makes a .trit bundle of a checkpoint, and `Model` runs one: generates, chats, gives logits and embeddings.

`pack` packs a matrix of -1, 0 and 1 in 1.6 bits a weight, and `gemm` multiplies arrays with it by machine code that is
generated for its shape and this CPU.

What goes wrong with an argument is a TypeError or ValueError that names it, with a file an OSError, with memory a
MemoryError, and all else a TritError.
"""

from ._trit import (
    Answer,
    AnswerPart,
    BundleError,
    CheckpointError,
    ClosedError,
    Compiled,
    CompileError,
    ContextError,
    Generation,
    GuideError,
    KernelsError,
    Model,
    NotFiniteError,
    PackedMatrix,
    Piece,
    SavedError,
    Sequence,
    Stream,
    SuppressedError,
    TritError,
    UnsupportedError,
    UntrustedError,
    __version__,
    compile,
    gemm,
    gemm_i8,
    get_num_threads,
    inspect,
    pack,
    set_num_threads,
    unpack,
)

__all__ = [
    "Answer",
    "AnswerPart",
    "BundleError",
    "CheckpointError",
    "ClosedError",
    "CompileError",
    "Compiled",
    "ContextError",
    "Generation",
    "GuideError",
    "KernelsError",
    "Model",
    "NotFiniteError",
    "PackedMatrix",
    "Piece",
    "SavedError",
    "Sequence",
    "Stream",
    "SuppressedError",
    "TritError",
    "UnsupportedError",
    "UntrustedError",
    "__version__",
    "compile",
    "gemm",
    "gemm_i8",
    "get_num_threads",
    "inspect",
    "pack",
    "set_num_threads",
    "unpack",
]
