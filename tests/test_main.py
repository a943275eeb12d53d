"""Ctrl-C at any moment of the start of a program ends it without a traceback."""

import gc
import signal
import subprocess
import sys

import pytest

from striate import cli

PROGRAM = """
import os, runpy, signal, sys

def interrupted_at(number, argv):
    '''Run a command line with SIGINT at an import; returns exit code and standard error.'''
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(writer, 2)
        imports = [0]
        def hook(event, arguments):
            if event == "import" and signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
                imports[0] += 1
                if imports[0] == number:
                    os.kill(os.getpid(), signal.SIGINT)
        sys.addaudithook(hook)
        sys.argv = ["striate", *argv]
        code = 1
        try:
            runpy.run_module("striate", run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            code = ended.code
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(code or 0)
    os.close(writer)
    with open(reader) as file:
        error = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), error

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a script ignore it
for number in map(int, sys.argv[1].split(",")):
    code, error = interrupted_at(number, sys.argv[2:])
    assert code == 130, (number, code, error)
    assert error in ("", "striate: interrupted\\n"), (number, error)
assert interrupted_at(10**9, sys.argv[2:])[0] == 0
"""


@pytest.mark.parametrize(
    ("argv", "moments"),
    [
        (["weights", "list"], [1, 2, 5, 20, 60, 120, 200]),
        pytest.param(["recipes", "resnet18"], range(1, 1500, 37), marks=pytest.mark.slow),
    ],
    ids=["without torch", "with torch"],
)
def test_an_interrupt_while_starting_is_no_traceback(argv, moments):
    program = [sys.executable, "-c", PROGRAM, ",".join(map(str, moments)), *argv]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_last_garbage_collections_have_nothing_to_look_at(monkeypatch):
    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(cli, "run", lambda argv: 7)
    try:
        from striate import __main__ as program

        with pytest.raises(SystemExit) as ended:
            program.main()
        assert ended.value.code == 7
        assert gc.get_freeze_count() > len(gc.get_objects())
    finally:
        gc.unfreeze()
        signal.signal(signal.SIGINT, handler)
