"""What the files of checks have in common: finding checks, running them, demanding errors."""

import json
import sys
import time
import traceback
import urllib.request

CHECKS = []


def check(function):
    """A check: a function of the server's address."""
    CHECKS.append(function)
    return function


def main():
    url = sys.argv[1]
    failed = 0
    for function in CHECKS:
        try:
            function(url)
            print(f"ok      {function.__name__}", flush=True)
        except Exception:  # noqa: BLE001  Every check runs, whatever happened to the others.
            failed += 1
            print(f"FAILED  {function.__name__}\n{traceback.format_exc()}", flush=True)
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks passed")
    sys.exit(1 if failed else 0)


def ask(url, path, body=None):
    """What an address answers that belongs to no package."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def idle(url):
    return not any(slot["is_processing"] for slot in ask(url, "/slots"))


def raises(kind, call, **wanted):
    """The exception of that very class which `call` must raise, with the attributes that are wanted."""
    try:
        call()
    except Exception as error:  # noqa: BLE001
        assert type(error) is kind, f"{type(error).__name__} instead of {kind.__name__}: {error}"
        for name, value in wanted.items():
            assert getattr(error, name) == value, f"{name} is {getattr(error, name)!r}, expected {value!r}: {error}"
        return error
    raise AssertionError(f"no {kind.__name__}")


def wait_until(condition, what):
    """Waits for something that must happen; a minute is for ever."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"{what} never happened")
