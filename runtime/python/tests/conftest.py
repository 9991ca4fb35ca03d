"""What all tests share: a bundle of the shipped model, and folders of their own for what the package remembers."""

import os
import signal
from pathlib import Path

import pytest

import trit

ROOT = Path(os.environ.get("TRIT_REPOSITORY") or Path(__file__).parents[3])
"""The repository, whose models and fixtures the tests read."""


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing that a test compiles is trusted or remembered outside of the tests."""
    for name in ["TRIT_TRUST_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME"]:
        folder = tmp_path_factory.mktemp(name.lower())
        folder.chmod(0o700)
        os.environ[name] = str(folder)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """A shell ignores Ctrl-C for what it runs in the background, and programs that are started there would too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The shipped model's checkpoint."""
    return ROOT / "examples" / "models" / "fables-12m"


@pytest.fixture(scope="session")
def bundle(own_folders: None, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the shipped model."""
    return trit.compile(checkpoint, tmp_path_factory.mktemp("bundle") / "fables-12m.trit").path


@pytest.fixture(scope="session")
def model(bundle: Path) -> trit.Model:
    """The shipped model."""
    return trit.Model(bundle)
