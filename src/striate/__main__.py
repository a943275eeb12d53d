"""`python -m striate` and the `striate` command."""

from __future__ import annotations

import gc
import os
import sys

try:
    import signal
    from types import FrameType
except KeyboardInterrupt:
    os._exit(130)


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from striate.cli import run

        code = run(sys.argv[1:])
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, _exit)  # all that is left is the end of the interpreter
    except KeyboardInterrupt:
        os._exit(130)
    gc.freeze()  # at its end, the interpreter would look for garbage among all objects, those of torch too
    sys.exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Handle Ctrl-C: exit at once while a module is being imported, otherwise raise KeyboardInterrupt.

    An exception during an import may be lost in C code or become another one. There is nothing to clean up.
    """
    caller = frame
    while caller is not None:
        if caller.f_code.co_filename == "<frozen importlib._bootstrap>":
            _exit(number, frame)
        caller = caller.f_back
    raise KeyboardInterrupt


def _exit(number: int, frame: FrameType | None) -> None:
    """Exit at once, with the code that shells use for a signal."""
    os._exit(128 + number)


# Not in a background job of a shell, which ignores SIGINT.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _interrupt)

if __name__ == "__main__":
    main()
