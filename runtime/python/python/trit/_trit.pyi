"""Types of what the package has in Rust. The texts stand there, and in help()."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence as Listed
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, TypeAlias, TypedDict, TypeVar, final, overload
from typing_extensions import Self, Unpack

import numpy as np
from numpy.typing import NDArray

__version__: str

_PathLike: TypeAlias = str | os.PathLike[str]
_Ids: TypeAlias = Listed[int] | NDArray[np.integer[Any]]
_Prompt: TypeAlias = str | _Ids
_Prompts: TypeAlias = list[str] | tuple[str, ...] | list[list[int]] | list[NDArray[np.integer[Any]]]
_Json: TypeAlias = Mapping[str, Any]
_Processor: TypeAlias = Callable[[NDArray[np.int64], NDArray[np.float32]], NDArray[np.float32] | None]

class TritError(Exception): ...

class BundleError(TritError):
    path: str

class SavedError(TritError):
    path: str

class UntrustedError(TritError):
    path: str

class KernelsError(TritError):
    path: str

class ContextError(TritError, ValueError):
    tokens: int
    context: int
    longest: int

class GuideError(TritError, ValueError): ...

class NotFiniteError(TritError):
    position: int
    token: int

class SuppressedError(TritError):
    tokens: int

class ClosedError(TritError, ValueError): ...

class CompileError(TritError):
    path: str | None
    tensor: str | None

class CheckpointError(CompileError): ...
class UnsupportedError(CompileError): ...

@final
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

class _Reading(TypedDict, total=False):
    activations: Literal["auto", "int8", "f32"]
    context: int | None
    tolerance: float | None
    quantize: Literal["absmean"] | None
    i2s_layout: Literal["x86", "arm", "1x4"] | None
    ignore_config_keys: str | Listed[str]
    tokenizer: bool

@final
class Compiled:
    @property
    def path(self) -> Path: ...
    @property
    def name(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def trusted(self) -> bool: ...
    @property
    def ternary_weights(self) -> int: ...
    @property
    def bits_per_weight(self) -> float: ...
    @property
    def targets(self) -> list[str]: ...
    @property
    def kernels(self) -> int: ...
    @property
    def warnings(self) -> list[str]: ...
    @property
    def seconds(self) -> float: ...
    def __fspath__(self) -> str: ...

def compile(
    path: _PathLike,
    out: _PathLike | None = None,
    *,
    targets: str | Listed[str] = "native",
    name: str | None = None,
    threads: int | None = None,
    progress: Callable[[str, int, int], object] | None = None,
    **reading: Unpack[_Reading],
) -> Compiled: ...
def inspect(path: _PathLike, *, plan: bool = False, **reading: Unpack[_Reading]) -> dict[str, Any]: ...
def run_command(arguments: Listed[str], /) -> int: ...

class _Options(TypedDict, total=False):
    max_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repeat_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    seed: int | None
    stop: str | Listed[str] | None
    logit_bias: Mapping[int, float] | None
    json_schema: _Json | str | bool | None
    regex: str | None
    grammar: str | None
    choices: Listed[str] | None
    after: str | None
    logits_processor: _Processor | Listed[_Processor] | None
    logprobs: int | None
    ignore_eos: bool

class _ChatOptions(_Options, total=False):
    tool_choice: str | _Json
    parallel_tool_calls: bool
    continue_last: bool
    template_variables: _Json | None

@final
class Generation:
    @property
    def text(self) -> str | None: ...
    @property
    def ids(self) -> list[int]: ...
    @property
    def finish(self) -> Literal["stop", "length", "context"]: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def prompt_seconds(self) -> float: ...
    @property
    def seconds(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def logprobs(self) -> list[tuple[float, list[tuple[int, float]]]] | None: ...

@final
class Piece:
    @property
    def index(self) -> int: ...
    @property
    def id(self) -> int | None: ...
    @property
    def text(self) -> str: ...

@final
class Answer:
    @property
    def text(self) -> str: ...
    @property
    def reasoning(self) -> str: ...
    @property
    def tool_calls(self) -> list[dict[str, Any]]: ...
    @property
    def finish(self) -> Literal["stop", "tool_calls", "length", "context"]: ...
    @property
    def message(self) -> dict[str, Any]: ...
    @property
    def generation(self) -> Generation: ...

@final
class AnswerPart:
    @property
    def kind(self) -> Literal["text", "reasoning", "tool_call", "tool_arguments"]: ...
    @property
    def text(self) -> str: ...
    @property
    def index(self) -> int | None: ...
    @property
    def id(self) -> str | None: ...
    @property
    def name(self) -> str | None: ...

_P = TypeVar("_P")
_R = TypeVar("_R")

@final
class Stream(Generic[_P, _R]):
    def __iter__(self) -> Self: ...
    def __next__(self) -> _P: ...
    @property
    def result(self) -> _R | None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

@final
class Sequence:
    @overload
    def append(self, tokens: _Prompt, *, logits: Literal["last", "all"] = "last") -> NDArray[np.float32]: ...
    @overload
    def append(self, tokens: _Prompt, *, logits: Literal["none"]) -> None: ...
    def fork(self, position: int | None = None) -> Sequence: ...
    def truncate(self, position: int) -> None: ...
    def save(self, path: _PathLike) -> None: ...
    @property
    def ids(self) -> list[int]: ...
    @property
    def context_length(self) -> int: ...
    @property
    def widened(self) -> int | None: ...
    @property
    def model(self) -> Model: ...
    def __len__(self) -> int: ...

@final
class Model:
    def __new__(
        cls,
        bundle: _PathLike,
        *,
        threads: int | None = None,
        context: int | None = None,
        trust: bool = False,
        kernels: Literal["auto", "embedded", "jit", "portable"] = "auto",
        cpu: str | None = None,
        kv: Literal["f16", "f32", "int8"] = "f16",
        state: Literal["f32", "f16"] = "f32",
        verify: bool = True,
        mmap: bool = False,
        tune: bool = False,
        slots: int | None = None,
        kv_memory: int | None = None,
        draft: bool = True,
    ) -> Self: ...
    @property
    def path(self) -> Path: ...
    @property
    def name(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def hidden_dim(self) -> int: ...
    @property
    def context_length(self) -> int: ...
    @property
    def stop_ids(self) -> list[int]: ...
    @property
    def chat_template(self) -> str | None: ...
    @property
    def threads(self) -> int: ...
    @property
    def kernels(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def tokenize(self, text: str, *, special: bool = True) -> list[int]: ...
    def detokenize(self, ids: _Ids, *, skip_special: bool = False) -> str: ...
    def logits(self, prompt: _Prompt) -> NDArray[np.float32]: ...
    def perplexity(self, prompt: _Prompt, *, window: int | None = None) -> float: ...
    def embed(
        self, texts: _Prompt | _Prompts, *, pooling: Literal["last", "mean"] = "last"
    ) -> NDArray[np.float32]: ...
    @overload
    def generate(
        self, prompt: _Prompt, *, stream: Literal[True], **options: Unpack[_Options]
    ) -> Stream[Piece, Generation]: ...
    @overload
    def generate(
        self, prompt: _Prompts, *, stream: Literal[True], **options: Unpack[_Options]
    ) -> Stream[Piece, list[Generation]]: ...
    @overload
    def generate(
        self, prompt: _Prompt, *, stream: Literal[False] = False, **options: Unpack[_Options]
    ) -> Generation: ...
    @overload
    def generate(
        self, prompt: _Prompts, *, stream: Literal[False] = False, **options: Unpack[_Options]
    ) -> list[Generation]: ...
    @overload
    def chat(
        self,
        messages: str | Listed[_Json],
        tools: Listed[_Json] | None = None,
        *,
        stream: Literal[True],
        **options: Unpack[_ChatOptions],
    ) -> Stream[AnswerPart, Answer]: ...
    @overload
    def chat(
        self,
        messages: str | Listed[_Json],
        tools: Listed[_Json] | None = None,
        *,
        stream: Literal[False] = False,
        **options: Unpack[_ChatOptions],
    ) -> Answer: ...
    @overload
    def apply_chat_template(
        self,
        messages: str | Listed[_Json],
        tools: Listed[_Json] | None = None,
        *,
        documents: Listed[_Json] | None = None,
        add_generation_prompt: bool = True,
        tokenize: Literal[False] = False,
        **variables: Any,
    ) -> str: ...
    @overload
    def apply_chat_template(
        self,
        messages: str | Listed[_Json],
        tools: Listed[_Json] | None = None,
        *,
        documents: Listed[_Json] | None = None,
        add_generation_prompt: bool = True,
        tokenize: Literal[True],
        **variables: Any,
    ) -> list[int]: ...
    def sequence(self, prompt: _Prompt | None = None) -> Sequence: ...
    def restore(self, path: _PathLike, ids: _Prompt | None = None) -> Sequence: ...
    def save_prefixes(self, path: _PathLike) -> int: ...
    def load_prefixes(self, path: _PathLike) -> int: ...
    def selftest(self) -> str: ...
