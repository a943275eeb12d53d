"""A program that loads Striate once and then runs each command in a child process.

Each line of standard input is a JSON object: `arguments` for the command line; `threads`; `after`, the
seconds until the child is killed (null for never); `stdout` and `stderr`, the files they go to (null: closed,
as by `2>&-`). For each child it prints two lines: the process id, and at the end the exit code, or minus the
signal.
Loading PyTorch in each child would take most of the time.
"""

import json
import os
import signal
import sys
import time

import torch

# All that training and reporting import is loaded here, not in each child.
import striate.cli
import striate.report.page
import striate.tasks.classification.task
import striate.tasks.seq2seq.task
import striate.training.run


def redirect(name: str, path: str | None) -> None:
    handle = getattr(sys, name).fileno()
    if path is None:  # as the interpreter does if a stream is closed at the start
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
    signal.alarm(240)  # ends a child that hangs
    torch.set_num_threads(order["threads"])
    sys.exit(striate.cli.run(order["arguments"]))  # runs the exit handlers, too


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
