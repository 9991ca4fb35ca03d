"""A loaded bundle: what it says of itself, tokens, logits, perplexity, embeddings, sequences."""

import math
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

import trit

TEXT = "Once upon a time, a fox and a crow lived in the woods."


def test_a_model_says_what_it_is(model: trit.Model, bundle: Path) -> None:
    assert model.path == bundle and model.name == "fables-12m"
    assert model.vocab_size > 4000 and model.hidden_dim > 0 and model.context_length == 1024
    assert model.threads >= 1 and not model.closed
    words = repr(model)
    assert "fables-12m" in words and "threads" in words and str(bundle) in words


def test_tokens_come_back_as_text(model: trit.Model) -> None:
    ids = model.tokenize(TEXT)
    assert all(type(id) is int for id in ids)
    assert model.detokenize(ids, skip_special=True) == TEXT
    assert model.detokenize(np.array(ids), skip_special=True) == TEXT
    assert model.detokenize([]) == ""
    assert len(model.tokenize(TEXT, special=False)) <= len(ids)


def test_logits_do_not_depend_on_how_they_are_asked_for(model: trit.Model) -> None:
    ids = model.tokenize(TEXT)
    whole = model.logits(ids)
    assert whole.dtype == np.float32 and whole.shape == (len(ids), model.vocab_size)
    np.testing.assert_array_equal(whole, model.logits(TEXT))
    np.testing.assert_array_equal(whole, model.logits(np.array(ids, dtype=np.uint16)))
    whole[0, 0] = 0.0  # The array is the caller's.
    sequence = model.sequence()
    for at, id in enumerate(ids):
        np.testing.assert_array_equal(sequence.append([id])[1:], model.logits(ids)[at][1:])
    assert sequence.ids == ids and len(sequence) == len(ids)


def test_arrays_of_ids_may_have_any_layout(model: trit.Model) -> None:
    ids = model.tokenize(TEXT)
    whole = model.logits(ids)
    strided = np.repeat(np.array(ids), 2)[::2]
    read_only = np.array(ids, dtype=np.int32)
    read_only.flags.writeable = False
    for array in [
        np.array(ids, dtype=">u2"),
        strided,
        read_only,
        np.array(ids, dtype=object),
        np.array(ids)[::-1][::-1],
    ]:
        np.testing.assert_array_equal(model.logits(array), whole)
    np.testing.assert_array_equal(model.embed(np.array([ids, ids])), model.embed([ids, ids]))
    for wrong, error, words in [
        (np.array(ids, dtype=np.float32), TypeError, r"prompt\[0\]"),
        (np.array([3, -7]), ValueError, r"prompt\[1\] is .*-7"),
        (np.array([3, 2**63], dtype=np.uint64), ValueError, r"prompt\[1\]"),
        (np.array([], dtype=np.int64), ValueError, "prompt is empty"),
        (np.ma.masked_array([3, 4], [False, True]), TypeError, r"prompt\[1\]"),
        (np.array([True]), TypeError, r"prompt\[0\]"),
        (np.zeros(10**8, dtype=np.int8), trit.ContextError, "context"),
    ]:
        with pytest.raises(error, match=words):
            model.logits(wrong)


def test_what_takes_memory_is_checked(bundle: Path) -> None:
    with pytest.raises(ValueError, match="kv_memory"):
        trit.Model(bundle, kv_memory=1)
    with pytest.raises(ValueError, match="slots"):
        trit.Model(bundle, slots=100_000)


def test_sequences_share_a_prefix(model: trit.Model) -> None:
    ids = model.tokenize(TEXT)
    sequence = model.sequence(ids[:6])
    fork = sequence.fork()
    rows = fork.append(ids[6:], logits="all")
    np.testing.assert_array_equal(rows, model.logits(ids)[6:])
    assert sequence.ids == ids[:6] and fork.ids == ids
    fork.truncate(3)
    assert fork.append(ids[3:], logits="none") is None and fork.ids == ids
    early = fork.fork(2)
    np.testing.assert_array_equal(early.append(ids[2:4]), model.logits(ids[:4])[3])
    assert "4 tokens" in repr(early) and early.model is model


def test_a_sequence_is_restored_from_its_file(model: trit.Model, tmp_path: Path) -> None:
    ids = model.tokenize(TEXT)
    file = tmp_path / "prefix.cache"
    model.sequence(ids[:7]).save(file)
    assert model.restore(file).ids == ids[:7]
    restored = model.restore(file, ids)
    assert restored.ids == ids[:7]
    np.testing.assert_array_equal(restored.append(ids[7:], logits="all"), model.logits(ids)[7:])
    assert model.restore(file, [1, 2, 3]).ids == []
    damaged = bytearray(file.read_bytes())
    damaged[100] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    with pytest.raises(trit.SavedError) as error:
        model.restore(tmp_path / "damaged")
    assert Path(error.value.path) == tmp_path / "damaged"
    with pytest.raises(FileNotFoundError):
        model.restore(tmp_path / "nothing")


def test_kept_texts_are_for_other_processes(bundle: Path, tmp_path: Path) -> None:
    with trit.Model(bundle) as first:
        text = first.generate(TEXT, max_tokens=4, temperature=0)
        assert first.save_prefixes(tmp_path / "texts.cache") >= 1
    with trit.Model(bundle) as second:
        assert second.load_prefixes(tmp_path / "texts.cache") >= 1
        again = second.generate(TEXT, max_tokens=4, temperature=0)
        assert again.ids == text.ids and again.cached_tokens == again.prompt_tokens - 1


def test_perplexity_is_that_of_the_logits(model: trit.Model) -> None:
    ids = model.tokenize(TEXT)
    logits = model.logits(ids).astype(np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    logprobs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    nll = -np.mean([logprobs[at, id] for at, id in enumerate(ids[1:])])
    assert math.isclose(model.perplexity(TEXT), math.exp(nll), rel_tol=1e-9)
    assert model.perplexity(ids) == model.perplexity(TEXT)
    assert model.perplexity(ids * 100, window=64) > 1
    for wrong in [1, 0, -1, 1 << 40]:
        with pytest.raises(ValueError, match="window"):
            model.perplexity(ids, window=wrong)
    with pytest.raises(ValueError, match="fewer than two"):
        model.perplexity([5])


def test_embeddings_have_length_one(model: trit.Model) -> None:
    one = model.embed(TEXT)
    assert one.shape == (model.hidden_dim,) and one.dtype == np.float32
    assert math.isclose(np.linalg.norm(one), 1, abs_tol=1e-5)
    several = model.embed([TEXT, "Another text.", [1, 2, 3]], pooling="mean")
    assert several.shape == (3, model.hidden_dim)
    np.testing.assert_array_equal(model.embed([TEXT])[0], one)
    with pytest.raises(ValueError, match="pooling"):
        model.embed(TEXT, pooling="max")  # type: ignore[arg-type]


def test_a_model_is_pickled_by_its_path(model: trit.Model, bundle: Path) -> None:
    with trit.Model(bundle, context=64, threads=1, kv="f32") as small:
        twin = pickle.loads(pickle.dumps(small))
    assert twin.path == bundle and twin.context_length == 64 and twin.threads == 1
    assert (
        twin.generate(TEXT, max_tokens=4, temperature=0).ids
        == model.generate(TEXT, max_tokens=4, temperature=0).ids
    )


def test_a_closed_model_says_so(bundle: Path) -> None:
    with trit.Model(bundle) as model:
        sequence = model.sequence([1, 2])
        stream = model.generate(TEXT, max_tokens=500, ignore_eos=True, stream=True)
        next(stream)
    assert model.closed and "closed" in repr(model)
    model.close()
    for use in [
        lambda: model.generate(TEXT),
        lambda: model.logits([1]),
        lambda: model.vocab_size,
        lambda: sequence.append([3]),
        lambda: model.tokenize("a"),
    ]:
        with pytest.raises(trit.ClosedError, match="closed"):
            use()
    with pytest.raises(trit.ClosedError):
        for _ in stream:
            pass


def test_what_is_no_bundle_is_named(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        trit.Model(tmp_path / "nothing.trit")
    assert missing.value.filename == str(tmp_path / "nothing.trit")
    (tmp_path / "text.trit").write_text("no bundle" * 100)
    with pytest.raises(trit.BundleError, match="trit.compile") as error:
        trit.Model(tmp_path / "text.trit")
    assert Path(error.value.path) == tmp_path / "text.trit"
    damaged = bytearray(bundle.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.trit").write_bytes(damaged)
    with pytest.raises(trit.BundleError):
        trit.Model(tmp_path / "damaged.trit")
    with pytest.raises(trit.ContextError, match="context") as long:
        trit.Model(bundle, context=100_000)
    assert long.value.tokens == 100_000 and long.value.longest == 1024


def test_a_text_that_does_not_fit_is_refused(bundle: Path) -> None:
    with trit.Model(bundle, context=8) as model:
        for call in [
            lambda: model.logits([1] * 9),
            lambda: model.generate([1] * 8),
            lambda: model.generate("word " * 50),
            lambda: model.sequence([1] * 9),
            lambda: model.sequence([1] * 8).append([1]),
            lambda: model.embed(["a", [1] * 9]),
        ]:
            with pytest.raises(trit.ContextError, match="longer context") as error:
                call()
            assert error.value.context == 8 and error.value.tokens >= 8
        sequence = model.sequence([1] * 8)
        assert len(sequence) == 8
        full = model.generate([1] * 4, max_tokens=100, ignore_eos=True)
        assert full.finish == "context" and len(full.ids) == 5


def test_the_selftest_passes(model: trit.Model) -> None:
    assert "ok" in model.selftest()


def test_importing_brings_no_torch() -> None:
    import subprocess

    code = "import sys, trit; print('torch' in sys.modules, 'transformers' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]
