"""`trit` and `python -m trit`: the commands from the package."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import trit

TRIT = [sys.executable, "-m", "trit"]


def run(*arguments: object, code: int = 0, **options: object) -> tuple[str, str]:
    done = subprocess.run(
        [*TRIT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        **options,
    )
    assert done.returncode == code, done
    return done.stdout, done.stderr


def tensor(path: Path) -> np.ndarray:
    """The tensor "logits" of a safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + length])["logits"]
    start, end = head["data_offsets"]
    return np.frombuffer(data[8 + length :][start:end], "<f4").reshape(head["shape"])


def test_logits_are_those_of_the_command_bit_for_bit(bundle: Path, model: trit.Model, tmp_path: Path) -> None:
    ids = model.tokenize("Once upon a time, a fox and a crow lived in the woods.")
    for number, line in enumerate([["run", "logits"], ["logits"]]):
        out = tmp_path / f"l{number}.safetensors"
        run(*line, bundle, "--ids", ",".join(map(str, ids)), "-o", out)
        written = tensor(out)
        np.testing.assert_array_equal(model.logits(ids).view(np.uint32), written.view(np.uint32))


@pytest.mark.parametrize("options", [["--temp", "0"], ["--temp", "0.8", "--seed", "5", "--top-k", "30"]])
def test_texts_are_those_of_the_command(bundle: Path, model: trit.Model, options: list[str]) -> None:
    out, _ = run("run", bundle, "-p", "The crow said", "-n", 40, "--json", *options)
    report = json.loads(out)
    mine = {"--temp": "temperature", "--seed": "seed", "--top-k": "top_k"}
    given = {
        mine[name]: float(value) if name == "--temp" else int(value)
        for name, value in zip(options[::2], options[1::2])
    }
    answer = model.generate("The crow said", max_tokens=40, **given)  # type: ignore[arg-type]
    assert (answer.ids, answer.text, answer.finish) == (report["ids"], report["text"], report["finish"])


def test_perplexity_is_that_of_the_command(bundle: Path, model: trit.Model, tmp_path: Path) -> None:
    text = "Once upon a time, a fox and a crow lived in the woods. " * 30
    (tmp_path / "text").write_text(text)
    out, _ = run("perplexity", bundle, "--file", tmp_path / "text", "--json")
    assert json.loads(out)["ppl"] == model.perplexity(text)


def test_a_bundle_is_compiled_looked_into_and_checked(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.trit"
    words, _ = run("compile", checkpoint, "-o", out)
    assert out.read_bytes() == bundle.read_bytes()
    assert re.search(r"^run +trit run .*m\.trit$", words, re.M), words
    assert json.loads(run("inspect", out, "--json")[0]) == trit.inspect(out)
    assert "ok" in run("verify", out)[0] and "ok" in run("selftest", out)[0]
    assert run("tokenize", out, "a fox")[0].strip() == ",".join(map(str, trit.Model(out).tokenize("a fox")))
    assert run("disasm", out)[0]


def test_help_and_hints_name_what_a_user_has(bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    whole, _ = run("--help")
    for (
        command
    ) in "compile inspect disasm verify run serve bench perplexity logits selftest tokenize".split():
        assert re.search(rf"^  {command} ", whole, re.M), command
    assert whole.index("compile") < whole.index("inspect") < whole.index("  run") < whole.index("  serve")
    for line, usage in [
        (["run", "--help"], "trit run"),
        (["run", "bench", "--help"], "trit run bench"),
        (["bench", "--help"], "trit bench"),
        (["compile", "--help"], "trit compile"),
        (["run", "logits"], "trit run logits"),
    ]:
        done = subprocess.run([*TRIT, *line], capture_output=True, text=True)
        assert f"Usage: {usage} " in done.stdout + done.stderr, done
    texts = [
        run("run", checkpoint, code=3)[1],
        run("run", tmp_path / "nothing.trit", "-p", "a", code=3)[1],
        run("run", "benhc", code=2)[1],
        run("run", "compile", checkpoint, code=2)[1],
        run("run", bundle, "bench", code=2)[1],
        run("inspect", tmp_path, code=3)[1],
        run("compile", bundle, code=3)[1],
        run(bundle, code=2)[1],
        run(checkpoint, code=2)[1],
        run("man", "nothing", code=2)[1],
        run("benhc", bundle, code=2)[1],
    ]
    assert "trit compile" in texts[0] and "trit run bench" in texts[2] and "trit compile" in texts[3]
    assert (
        f"trit run {bundle}" in texts[7] and f"trit compile {checkpoint}" in texts[8] and "bench" in texts[10]
    )
    for text in [*texts, whole]:
        assert "trit-run" not in text.replace("as trit-run does", "") and "tritc" not in text, text
    assert run("run", "--version")[0].startswith("trit run 0.") and run("--version")[0].startswith("trit 0.")
    assert (
        "trit" in run("completions", "bash")[0]
        and ".TH" in run("man")[0]
        and ".TH" in run("man", "compile")[0]
    )
    assert run("run", "completions", "bash")[0] == run("completions", "bash")[0]


def test_the_console_script_is_the_module() -> None:
    script = Path(sys.executable).with_name("trit")
    assert script.exists(), "the package installs it"
    assert subprocess.run([script, "--help"], capture_output=True, text=True).stdout == run("--help")[0]


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_generation_as_they_end_the_program(bundle: Path, told: signal.Signals) -> None:
    command = [*TRIT, "run", str(bundle), "-p", "Once", "-n", "-1", "--ignore-eos", "--temp", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout is not None and process.stdout.read(20)
    process.send_signal(told)
    _, err = process.communicate(timeout=60)
    # A text may have ended before the signal came.
    assert process.returncode in ({130, 0} if told == signal.SIGINT else {-told, 0}), err
    assert "Traceback" not in err


def test_a_server_drains(bundle: Path) -> None:
    command = [*TRIT, "serve", str(bundle), "--listen", "127.0.0.1:0", "--log", "off"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout is not None
    address = process.stdout.readline().split()[-1]
    while process.stdout.readline().strip() != "ready":
        assert process.poll() is None
    body = json.dumps({"prompt": "Once", "max_tokens": 3}).encode()
    request = urllib.request.Request(f"{address}/v1/completions", body, {"content-type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        assert json.load(answer)["choices"][0]["text"]
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in err, err


def test_a_closed_pipe_is_silent(bundle: Path) -> None:
    process = subprocess.Popen(
        [*TRIT, "run", str(bundle), "-p", "Once", "-n", "500", "--ignore-eos"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(5)
    process.stdout.close()
    assert process.wait(60) == 0 and process.stderr.read() == ""


def test_arguments_need_be_no_text(tmp_path: Path) -> None:
    _, err = run("run", os.fsdecode(b"\xff.trit"), "-p", "a", code=3)
    assert "no such file" in err
