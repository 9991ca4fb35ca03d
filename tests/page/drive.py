"""Clicks and types through the chat page in headless Chromium, against `trit-run serve`.

    python3 tests/page/drive.py CHROMIUM TRIT_RUN CHAT.trit TEXT.trit [NAME...]

CHAT.trit has a chat template, TEXT.trit has none. NAME: only the tests of these names. After each test, no request has gone
anywhere but to the server, and no error has been reported that the test does not name.
"""

import sys
import time
import traceback

from world import TESTS, World

# Each of these adds its tests to the list.
import policy, chats, conversations, faults, texts, everybody  # noqa: E401, F401


def main():
    chromium, program, chat, text, *names = sys.argv[1:]
    world = World(chromium, program, chat, text)
    passed, failed = 0, 0
    try:
        for function in TESTS:
            if names and function.__name__ not in names:
                continue
            began = time.monotonic()
            try:
                function(world)
                world.check()
                passed += 1
                print(f"ok      {function.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
            except Exception:
                failed += 1
                print(f"FAILED  {function.__name__}", flush=True)
                traceback.print_exc()
                for page, _ in world.pages:
                    print(f"the page reports: {page.errors}", file=sys.stderr)
            finally:
                world.tidy()
    finally:
        world.close()
    print(f"{passed} passed, {failed} failed")
    if failed or not passed:
        sys.exit(1)


if __name__ == "__main__":
    main()
