"""The examples run, as they stand in the repository, with the package that is installed."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples" / "python"


def run(*arguments: str | Path) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_text_is_generated() -> None:
    out = run(EXAMPLES / "generate.py")
    assert "12.6 M ternary weights" in out and "Once upon a time there was" in out and "64 tokens" in out


def test_matrices_are_multiplied() -> None:
    assert "gemm_i8 is exact" in run(EXAMPLES / "matrices.py")


def test_answers_follow_a_schema_and_a_rule(bundle: Path) -> None:
    first, second = run(EXAMPLES / "constrained.py", bundle).splitlines()
    person = ast.literal_eval(first)
    assert set(person) == {"name", "age"} and isinstance(person["age"], int)
    assert len(ast.literal_eval(second)) > 20


def test_the_notebook_runs() -> None:
    client = pytest.importorskip("nbclient", reason="no nbclient: the notebook is not run")
    pytest.importorskip("ipykernel", reason="no ipykernel: the notebook is not run")
    import nbformat

    notebook = nbformat.read(EXAMPLES / "tour.ipynb", as_version=4)
    client.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": EXAMPLES}}).execute()
    printed = "".join(str(cell.get("outputs", "")) for cell in notebook.cells)
    assert "perplexity" in printed and "PackedMatrix" in printed


def test_types_are_right() -> None:
    pytest.importorskip("mypy", reason="no mypy: the examples' types are not checked")
    settings = Path(__file__).parents[3] / "pyproject.toml"
    sources = sorted(EXAMPLES.glob("*.py"))
    assert sources
    environment = {**os.environ, "MYPY_CACHE_DIR": os.devnull}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", settings, *sources],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
