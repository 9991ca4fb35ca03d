"""Everything public says what it is: `help()`, and the pages that pdoc makes, have nothing else to go by."""

import inspect
import subprocess
import sys

import trit


def members(owner: object) -> list[tuple[str, object]]:
    return [(name, value) for name, value in vars(owner).items() if not name.startswith("_")]


def test_everything_public_has_a_docstring() -> None:
    silent = [
        name for name in trit.__all__ if name != "__version__" and not inspect.getdoc(getattr(trit, name))
    ]
    seen = 0
    for name in trit.__all__:
        value = getattr(trit, name)
        # Exceptions take the attributes of Python's own along.
        if inspect.isclass(value) and not issubclass(value, BaseException):
            for member, _ in members(value):
                seen += 1
                if not inspect.getdoc(getattr(value, member)):
                    silent.append(f"{name}.{member}")
    assert not silent and seen > 5


def test_importing_brings_neither_torch_nor_transformers() -> None:

    program = "import trit, sys; assert not {'torch', 'transformers'} & set(sys.modules), sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
