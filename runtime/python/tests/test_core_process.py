"""What happens to a process: forks, Ctrl-C, the interpreter's end. Each in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import trit

LONGEST = 120.0
"""Seconds after which a process counts as hung."""

SETUP = """
import os, signal, sys, threading, time
import numpy as np
import trit
bundle, folder = sys.argv[1:3]
TEXT = "Once upon a time, a fox and a crow"
"""


def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", SETUP + code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Waits for a process that must not hang, and gives how it ended and what it wrote."""
    try:
        out, err = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the process hung: {out}{err}") from None
    assert "panicked" not in err and "PanicException" not in err, err
    return process.returncode, out, err


def run(code: str, *arguments: object) -> str:
    code, out, err = finish(start(code, *arguments))
    assert code == 0, f"{code}: {out}{err}"
    return out


def interrupt_after(process: "subprocess.Popen[str]", word: str) -> None:
    """Sends Ctrl-C once the process has written a line."""
    assert process.stdout is not None
    assert process.stdout.readline().strip() == word
    process.send_signal(signal.SIGINT)


FORK = """
model = trit.Model(bundle, threads=2)
expected = model.generate(TEXT, max_tokens=20, temperature=0).ids
logits = model.logits(TEXT)
stream = model.generate(TEXT, max_tokens=400, ignore_eos=True, stream=True)
next(stream)
sequence = model.sequence(TEXT)
stop = threading.Event()

def busy():
    while not stop.is_set():
        model.generate(TEXT, max_tokens=10)

threads = [threading.Thread(target=busy) for _ in range(2 if sys.argv[3] == "busy" else 0)]
for thread in threads:
    thread.start()
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert model.generate(TEXT, max_tokens=20, temperature=0).ids == expected
            assert (model.logits(TEXT) == logits).all()
            answers = model.generate([TEXT, "The crow"], max_tokens=5, temperature=0)
            assert answers[0].ids == expected[:5]
            assert (sequence.append([5]) == model.logits(sequence.ids)[-1]).all()
            with trit.Model(bundle) as other:
                assert other.generate(TEXT, max_tokens=20, temperature=0).ids == expected
            assert model.perplexity(TEXT) > 1 and len(trit.inspect(bundle)) > 3
            w = trit.pack(np.eye(64, dtype=np.int8))
            assert trit.gemm(np.ones((2, 64), np.float32), w).sum() == 128
            try:
                next(stream)
            except trit.TritError as error:
                assert "fork" in str(error)
                code = 0
            model.close()
        except BaseException as error:
            print("child:", repr(error), flush=True)
        os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
assert model.generate(TEXT, max_tokens=20, temperature=0).ids == expected
list(stream)
print("done")
"""


@pytest.mark.parametrize("parent", ["idle", "busy"])
def test_a_model_works_in_a_forked_child(bundle: Path, tmp_path: Path, parent: str) -> None:
    assert run(FORK, bundle, tmp_path, parent).split() == ["done"]


def test_a_child_ends_without_hanging(bundle: Path, tmp_path: Path) -> None:
    code = """
    model = trit.Model(bundle, threads=2)
    stream = model.generate(TEXT, max_tokens=400, ignore_eos=True, stream=True)
    next(stream)
    pid = os.fork()
    if pid == 0:
        model.generate(TEXT, max_tokens=3)
        sys.exit(7)  # With all that Python does at its end.
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    print("done")
    """
    assert run("if True:" + code, bundle, tmp_path).split() == ["done"]


def test_multiprocessing_shares_a_model(bundle: Path, tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text("""
import multiprocessing, sys
import trit

def ids(arguments):
    model, text = arguments
    return model.generate(text, max_tokens=5, temperature=0).ids

if __name__ == "__main__":
    model = trit.Model(sys.argv[1], threads=1)
    texts = ["Once upon a time", "The crow said"]
    expected = [ids((model, text)) for text in texts]
    for method in ["fork", "spawn"]:
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(ids, [(model, text) for text in texts]) == expected, method
    print("done")
""")
    process = subprocess.Popen(
        [sys.executable, str(script), str(bundle)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    code, out, err = finish(process)
    assert (code, out.split()) == (0, ["done"]), err


@pytest.mark.parametrize(
    "work",
    [
        "model.generate(TEXT, max_tokens=900, ignore_eos=True)",
        "list(model.generate(TEXT, max_tokens=900, ignore_eos=True, stream=True))",
        "model.generate([TEXT] * 8, max_tokens=100, ignore_eos=True)",
        "model.generate(TEXT, max_tokens=900, ignore_eos=True, logits_processor=lambda ids, logits: None)",
        "model.logits([5] * 1000)",
        "model.perplexity([5] * 100000)",
        "model.embed([[5] * 1000] * 100)",
        "model.sequence([5] * 1000)",
    ],
)
@pytest.mark.parametrize("ends", ["main", "daemon"])
def test_the_interpreter_ends_in_mid_work(bundle: Path, tmp_path: Path, work: str, ends: str) -> None:
    code = f"""
model = trit.Model(bundle)
model.generate(TEXT, max_tokens=1)

def work():
    while True:
        {work}

threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
for thread in threads:
    thread.start()
time.sleep(0.2)
stream = model.generate(TEXT, max_tokens=900, ignore_eos=True, stream=True)
next(stream)
print("done", flush=True)
if sys.argv[3] == "main":
    del model
sys.exit(5)
"""
    status, out, err = finish(start(code, bundle, tmp_path, ends))
    assert (status, out.split()) == (5, ["done"]), err


@pytest.mark.parametrize(
    "work",
    [
        "model.generate(TEXT, max_tokens=900, ignore_eos=True)",
        "list(model.generate(TEXT, max_tokens=900, ignore_eos=True, stream=True))",
        "model.generate([TEXT] * 8, max_tokens=900, ignore_eos=True)",
        "model.generate(TEXT, max_tokens=900, ignore_eos=True, logits_processor=lambda ids, logits: None)",
        "model.logits([5] * 1000)",
        "model.perplexity([5] * 1000000)",
        "model.embed([[5] * 1000] * 100)",
        "model.sequence([5] * 1000)",
        "model.tokenize(TEXT * 100000)",
    ],
)
def test_ctrl_c_ends_what_runs(bundle: Path, tmp_path: Path, work: str) -> None:
    code = f"""
model = trit.Model(bundle)
expected = model.generate(TEXT, max_tokens=10, temperature=0).ids
sequence = model.sequence(TEXT)
try:
    print("ready", flush=True)
    while True:
        {work}
except KeyboardInterrupt:
    pass
# The model is as good as before.
assert model.generate(TEXT, max_tokens=10, temperature=0).ids == expected
print("stopped")
"""
    process = start(code, bundle, tmp_path)
    interrupt_after(process, "ready")
    status, out, err = finish(process)
    assert (status, out.split()) == (0, ["stopped"]), err


def test_ctrl_c_leaves_a_sequence_as_it_was(bundle: Path, tmp_path: Path) -> None:
    code = """
model = trit.Model(bundle)
sequence = model.sequence(TEXT)
ids = sequence.ids
try:
    print("ready", flush=True)
    while True:
        sequence.append([5] * 900, logits="all")
        sequence.truncate(len(ids))
except KeyboardInterrupt:
    pass
if len(sequence) > len(ids):
    sequence.truncate(len(ids))
assert sequence.ids == ids
assert (sequence.append([5]) == model.logits(ids + [5])[-1]).all()
print("stopped")
"""
    process = start(code, bundle, tmp_path)
    interrupt_after(process, "ready")
    assert finish(process)[:2] == (0, "stopped\n")


@pytest.mark.parametrize("stage", ["reading", "packing", "checking", "quantizing", "writing"])
def test_ctrl_c_in_compile_leaves_nothing(checkpoint: Path, tmp_path: Path, stage: str) -> None:
    code = """
def progress(stage, done, total):
    if stage == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGINT)

try:
    trit.compile(bundle, folder + "/out.trit", progress=progress)
except KeyboardInterrupt:
    print("stopped", os.listdir(folder))
"""
    out = run(code, checkpoint, tmp_path, stage)
    # A small model may be compiled before anybody looks; its bundle is whole then.
    assert out.strip() in {"stopped []", "stopped ['out.trit']", ""}
    if stage == "reading":
        assert out.strip() == "stopped []"
    left = [path.name for path in tmp_path.iterdir()]
    assert left == ([] if out.strip() == "stopped []" else ["out.trit"])
    if left:
        trit.Model(tmp_path / "out.trit").close()


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
def test_ctrl_c_from_outside_ends_compile(checkpoint: Path, tmp_path: Path, delay: float) -> None:
    code = """
print("ready", flush=True)
number = 0
while True:
    trit.compile(bundle, f"{folder}/{number}.trit", targets="all")
    number += 1
"""
    process = start(code, checkpoint, tmp_path)
    assert process.stdout is not None and process.stdout.readline().strip() == "ready"
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status in {1, 130, -signal.SIGINT} and "KeyboardInterrupt" in err
    for path in tmp_path.iterdir():
        assert path.suffix == ".trit", "nothing half written is left"
        trit.Model(path).close()


def test_a_handler_of_ones_own_decides(bundle: Path, tmp_path: Path) -> None:
    code = """
model = trit.Model(bundle)
seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
alone = model.generate(TEXT, max_tokens=200, temperature=0, ignore_eos=True).ids
long = model.logits([5] * 1000)
assert (model.logits([5] * 1000) == long).all()
assert model.generate(TEXT, max_tokens=200, temperature=0, ignore_eos=True).ids == alone

class Stop(Exception): pass
def stop(*_): raise Stop
signal.signal(signal.SIGALRM, stop)
try:
    while True:
        model.generate(TEXT, max_tokens=900, ignore_eos=True)
except Stop:
    signal.setitimer(signal.ITIMER_REAL, 0)
    print("stopped")
"""
    assert run(code, bundle, tmp_path).strip() == "stopped"
