"""Whatever is passed gives a result or an exception that a caller expects, and never a panic."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import trit

EXPECTED = (TypeError, ValueError, trit.TritError, OSError, MemoryError)
settings.register_profile("core", deadline=None, suppress_health_check=list(HealthCheck), max_examples=150)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**32, 2**63, 2**64, -(2**63), -1, 0, 1]),
    st.floats(),
    st.complex_numbers(),
    st.text(),
    st.binary(),
    st.just("\ud800"),
    st.builds(np.float32, st.floats(width=32)),
    st.builds(np.int64, st.integers(-(2**63), 2**63 - 1)),
    st.just(object()),
)
arrays = hnp.arrays(
    dtype=st.one_of(
        hnp.scalar_dtypes(),
        hnp.integer_dtypes(endianness=">"),
        hnp.byte_string_dtypes(),
        hnp.unicode_string_dtypes(),
        st.just(np.dtype(object)),
    ),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    fill=st.nothing(),
    elements=None,
)
anything = st.recursive(
    st.one_of(scalars, arrays),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.tuples(inner), st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=6,
)
ids = st.lists(st.integers(0, 4000), min_size=1, max_size=6)
prompts = st.one_of(
    anything, ids, ids.map(np.array), st.text(max_size=30), st.lists(st.text(max_size=8), max_size=3)
)
OPTIONS = [
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repeat_penalty",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "stop",
    "logit_bias",
    "logprobs",
    "ignore_eos",
    "json_schema",
    "regex",
    "grammar",
    "choices",
    "after",
    "logits_processor",
    "stream",
    "nonsense",
]


def expect_no_panic(call) -> None:
    try:
        call()
    except EXPECTED:
        pass


@settings(settings.get_profile("core"))
@given(prompts)
def test_prompts(model: trit.Model, prompt: object) -> None:
    for call in [
        lambda: model.generate(prompt, max_tokens=2),
        lambda: model.logits(prompt),
        lambda: model.embed(prompt),
        lambda: model.perplexity(prompt),
        lambda: model.tokenize(prompt),
        lambda: model.detokenize(prompt),
        lambda: model.sequence(prompt),
        lambda: model.chat(prompt, max_tokens=2),
    ]:
        expect_no_panic(call)


@settings(settings.get_profile("core"))
@given(st.dictionaries(st.sampled_from(OPTIONS), anything, max_size=4))
def test_options(model: trit.Model, options: dict) -> None:
    expect_no_panic(lambda: model.generate([1, 2, 3], max_tokens=2, **options))


@settings(settings.get_profile("core"))
@given(anything)
def test_single_options(model: trit.Model, value: object) -> None:
    for option in OPTIONS:
        expect_no_panic(lambda option=option: model.generate([1, 2, 3], **{"max_tokens": 1, option: value}))
    expect_no_panic(lambda: model.generate([1, 2, 3], max_tokens=value if value != 0 else 1, stop="e"))


@settings(settings.get_profile("core"))
@given(st.lists(st.tuples(st.sampled_from(["append", "fork", "truncate", "logits"]), anything), max_size=4))
def test_sequences(model: trit.Model, calls: list) -> None:
    sequence = model.sequence([1, 2, 3])
    for name, value in calls:
        before = sequence.ids
        if name == "logits":
            expect_no_panic(lambda value=value: sequence.append([1], logits=value))
        else:
            expect_no_panic(lambda name=name, value=value: getattr(sequence, name)(value))
        assert sequence.ids[: len(before)] == before or name == "truncate"


@settings(settings.get_profile("core"))
@given(
    st.sampled_from(
        "threads context trust key kernels cpu kv state verify mmap tune slots kv_memory draft".split()
    ),
    anything,
)
def test_models(bundle: Path, name: str, value: object) -> None:
    # As many slots as that take no memory that anybody has.
    if name == "slots" and isinstance(value, (int, np.integer)) and value > 1000:
        return
    expect_no_panic(lambda: trit.Model(bundle, **{name: value}).close())  # type: ignore[arg-type]


@settings(settings.get_profile("core"))
@given(
    st.sampled_from(
        "targets activations context tolerance quantize i2s_layout ignore_config_keys tokenizer name".split()
    ),
    anything,
)
def test_compile(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, name: str, value: object
) -> None:
    folder = tmp_path_factory.mktemp("out")
    expect_no_panic(lambda: trit.compile(checkpoint, folder / "out.trit", **{name: value}))  # type: ignore[arg-type]
    assert {path.name for path in folder.iterdir()} <= {"out.trit"}
    expect_no_panic(lambda: trit.inspect(checkpoint, **{name: value}))  # type: ignore[arg-type]


@settings(settings.get_profile("core"))
@given(anything)
def test_paths(value: object) -> None:
    for call in [trit.Model, trit.inspect, trit.compile]:
        if isinstance(value, int):
            continue
        expect_no_panic(lambda call=call: call(value))


@settings(settings.get_profile("core"))
@given(hnp.arrays(np.float32, st.integers(0, 6), elements=st.floats(width=32)))
def test_logits_of_processors(model: trit.Model, few: np.ndarray) -> None:
    def processor(_: np.ndarray, logits: np.ndarray) -> np.ndarray:
        logits[: len(few)] = few
        return logits[::-1][::-1] if len(few) % 2 else logits

    expect_no_panic(lambda: model.generate([1, 2], max_tokens=2, temperature=1, logits_processor=processor))
