"""Compiling checkpoints, and looking into what there is."""

import json
import shutil
from pathlib import Path

import pytest

import trit


@pytest.fixture
def fixtures(checkpoint: Path) -> Path:
    return checkpoint.parents[2] / "tests" / "fixtures"


def test_a_bundle_is_described(bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    stages: list[tuple[str, int, int]] = []
    compiled = trit.compile(checkpoint, tmp_path / "m.trit", progress=lambda *told: stages.append(told))
    assert compiled.path == tmp_path / "m.trit" and compiled.path.read_bytes() == bundle.read_bytes()
    assert compiled.name == "fables-12m" and compiled.bytes == compiled.path.stat().st_size
    assert compiled.trusted and compiled.kernels > 0 and len(compiled.targets) == 1
    assert 1 < compiled.bits_per_weight < 2 and compiled.ternary_weights > 1_000_000
    assert compiled.warnings == [] and "fables" in repr(trit.compile(checkpoint, tmp_path / "fables.trit"))
    names = [stage for stage, _, _ in stages]
    assert names[0] == "reading" and set(names) <= {"reading", "packing", "quantizing", "checking", "writing"}
    for name in set(names) - {"reading"}:
        told = [(done, total) for stage, done, total in stages if stage == name]
        assert all(done <= total for done, total in told) and told == sorted(told)


def test_options_are_the_commands(checkpoint: Path, tmp_path: Path) -> None:
    portable = trit.compile(
        checkpoint, tmp_path / "p.trit", targets="portable", context=64, name="other", threads=1
    )
    assert portable.targets == [] and portable.kernels == 0 and portable.name == "other"
    with trit.Model(portable, kernels="portable") as model:
        assert model.context_length == 64 and "portable" in model.kernels
    several = trit.compile(
        checkpoint, tmp_path / "s.trit", targets=["x86-64-v2", "x86-64-v3"], tokenizer=False, draft=False
    )
    assert several.targets == ["x86-64-v2", "x86-64-v3"]
    with trit.Model(several) as model:
        with pytest.raises(ValueError, match="no tokenizer"):
            model.tokenize("a")
        answer = model.generate([1, 2, 3], max_tokens=4)
        assert (
            answer.text is None
            and str(answer) == ",".join(map(str, answer.ids))
            and "4 tokens" in repr(answer)
        )
        with pytest.raises(ValueError, match="tokenizer"):
            model.generate([1], stop="a")


def test_the_default_output_is_the_models_name(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert trit.compile(checkpoint, name="a/b").path == Path("a-b.trit")
    assert (tmp_path / "a-b.trit").exists()


def test_what_cannot_be_compiled_is_said(
    checkpoint: Path, fixtures: Path, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.trit"
    with pytest.raises(FileNotFoundError):
        trit.compile(tmp_path / "nothing", out)
    with pytest.raises(trit.CheckpointError, match="trit.Model"):
        trit.compile(bundle, out)
    with pytest.raises(FileNotFoundError, match="no folder"):
        trit.compile(checkpoint, tmp_path / "no" / "out.trit")
    with pytest.raises(IsADirectoryError, match="with out"):
        trit.compile(checkpoint, tmp_path)
    (tmp_path / "letter.txt").write_text("Dear")
    with pytest.raises(FileExistsError, match="with out"):
        trit.compile(checkpoint, tmp_path / "letter.txt")
    damaged = tmp_path / "damaged"
    shutil.copytree(checkpoint, damaged)
    (damaged / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(trit.CheckpointError) as error:
        trit.compile(damaged, out)
    assert error.value.path and "model.safetensors" in error.value.path and error.value.tensor is None
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(
        json.dumps({**config, "model_type": "mamba", "architectures": ["Mamba"]})
    )
    with pytest.raises(trit.UnsupportedError) as unsupported:
        trit.compile(other, out)
    assert isinstance(unsupported.value, trit.CompileError) and isinstance(unsupported.value, trit.TritError)
    with pytest.raises(ValueError, match="context="):
        trit.compile(checkpoint, out, context=1 << 30)
    with pytest.raises(ValueError, match="i2s_layout="):
        trit.compile(checkpoint, out, i2s_layout="x86")
    assert not out.exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"targets": "x86-64-v9"}, ValueError, "targets"),
        ({"targets": []}, ValueError, "targets"),
        ({"targets": 3}, TypeError, "targets"),
        ({"activations": "int4"}, ValueError, "activations"),
        ({"activations": 3}, TypeError, "activations"),
        ({"quantize": "median"}, ValueError, "quantize"),
        ({"tolerance": 0}, ValueError, "tolerance"),
        ({"tolerance": float("nan")}, ValueError, "tolerance"),
        ({"context": 0}, ValueError, "context"),
        ({"context": -1}, ValueError, "context"),
        ({"context": 1.0}, TypeError, "context"),
        ({"i2s_layout": "riscv"}, ValueError, "i2s_layout"),
        ({"ignore_config_keys": [1]}, TypeError, "ignore_config_keys"),
        ({"tokenizer": 0}, TypeError, "tokenizer"),
        ({"name": ""}, ValueError, "name="),
        ({"threads": 0}, ValueError, "threads"),
        ({"threads": 5000}, ValueError, "threads"),
        ({"progress": 3}, TypeError, "progress"),
        ({"target": "native"}, TypeError, "did you mean targets"),
    ],
)
def test_wrong_options_are_named(
    checkpoint: Path, tmp_path: Path, options: dict, error: type, words: str
) -> None:
    with pytest.raises(error, match=words):
        trit.compile(checkpoint, tmp_path / "out.trit", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["", "a\0b", 3, None, b"\xff\0"])
def test_wrong_paths_are_named(path: object) -> None:
    for call in [trit.compile, trit.inspect, trit.Model]:
        with pytest.raises((ValueError, TypeError, OSError)):
            call(path)  # type: ignore[operator]


def test_an_error_of_progress_ends_the_compilation(checkpoint: Path, tmp_path: Path) -> None:
    class Mine(Exception):
        pass

    def progress(stage: str, done: int, total: int) -> None:
        if stage != "reading":
            raise Mine

    with pytest.raises(Mine):
        trit.compile(checkpoint, tmp_path / "out.trit", progress=progress)
    assert not list(tmp_path.iterdir())


def test_warnings_are_given(fixtures: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning):
        compiled = trit.compile(fixtures / "llama-longrope-head", tmp_path / "w.trit")
    assert compiled.warnings


def test_bundles_and_checkpoints_are_looked_into(bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    looked = trit.inspect(bundle)
    assert looked["name"] == "fables-12m" and "plan" not in looked
    assert "head" in trit.inspect(bundle, plan=True)["plan"]
    survey = trit.inspect(checkpoint)
    assert survey["refused"] is None and survey["warnings"] == []
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    (broken / "config.json").write_text("{}")
    refused = trit.inspect(broken)["refused"]
    assert refused["message"] and refused["kind"] in {"input", "unsupported"}
    with pytest.raises(TypeError, match="plan"):
        trit.inspect(checkpoint, plan=True)
    with pytest.raises(FileNotFoundError):
        trit.inspect(tmp_path / "nothing.trit")
    (tmp_path / "letter.txt").write_text("Dear")
    with pytest.raises(ValueError, match="neither a bundle nor a checkpoint"):
        trit.inspect(tmp_path / "letter.txt")
