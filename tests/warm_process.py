"""A program that loads Striate once and then runs commands in children of its own, as fresh processes would.

Each line of standard input is a JSON object: `arguments` for the command line; `threads`; `after`, the
seconds until the child is killed (null: it may come to its end); `stdout` and `stderr`, the files they go to
(null: closed, as by `2>&-`). Of each child two lines of standard output tell: its process id, and in the end
its exit code, or minus the signal. Loading PyTorch for each child anew would be most of the time.
"""

import json
import os
import signal
import sys
import time

import torch

import striate.cli
import striate.report.page
import striate.runs  # loaded here, not in each child


def redirect(name: str, path: str | None) -> None:
    handle = getattr(sys, name).fileno()
    if path is None:  # what the interpreter does where a stream is closed from the beginning
        os.close(handle)
        setattr(sys, name, None)
        setattr(sys, f"__{name}__", None)
    else:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(opened, handle)
        os.close(opened)


def child(order: dict) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name in ("stdout", "stderr"):
        redirect(name, order[name])
    signal.alarm(240)  # a stuck one ends
    torch.set_num_threads(order["threads"])
    sys.exit(striate.cli.run(order["arguments"]))  # with all that happens at an interpreter's end


def main() -> None:
    torch.set_num_threads(1)  # no thread may run when a process is forked
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            child(order)
        print(pid, flush=True)
        if order["after"] is not None:
            time.sleep(order["after"])
            os.kill(pid, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


main()
