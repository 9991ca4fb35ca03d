"""`trit` and `python -m trit`: the commands that compile, look into, run and serve bundles."""

import signal
import sys

from ._trit import run_command


def main() -> int:
    """Runs the command line of this process, and returns the exit code."""
    # Python's own handler only notes Ctrl-C. The commands take it where they can stop what they do, and elsewhere it
    # ends the process. Where it is ignored, as in the background of a script, it stays ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return run_command(["trit", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
