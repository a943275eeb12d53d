"""A program that loads Striate once and then runs commands in children of its own, which can be killed.

Each line of standard input is a JSON object: `arguments` for the command line, and `after`, the seconds
until the child is killed (null: it may come to its end). Each line of standard output is what became of it:
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


def child(arguments: list[str]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os._exit(striate.cli.run(arguments))


def main() -> None:
    torch.set_num_threads(1)  # no thread may run when a process is forked
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            torch.set_num_threads(order["threads"])
            child(order["arguments"])
        if order["after"] is not None:
            time.sleep(order["after"])
            os.kill(pid, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


main()
