"""A program that loads Striate once and runs each call in a child process with a hostile environment.

Each line of standard input is a JSON object: `target`, the `cell` of `environments`, the paths of the
`material`, a `folder` for the call, the `number` of the cell, and whether it is `harmless`. For each line it
prints a JSON object: `code`, the exit code, or minus the signal; `text`, what went to standard error; the
processor `seconds`; and the peak of `bytes` in memory. An order may also have the `words` of a command line.
"""

import contextlib
import gc
import io
import json
import os
import resource
import signal
import stat
import sys
import tempfile
import threading
import traceback
import webbrowser  # noqa: F401  # which `view` imports when it runs
from pathlib import Path

import matplotlib
import torch
from environments import COMMON, bad_paths, variables
from targets import COMMANDS, FUNCTIONS, Material

import striate
import striate.api
import striate.cli
import striate.data.check
import striate.data.detection
import striate.inference.evaluation
import striate.inference.text_evaluation
import striate.report.check_page
import striate.report.page
import striate.report.view_server
import striate.tasks.classification.task
import striate.tasks.seq2seq.task
import striate.training.run
import striate.weights.foreign
from striate.errors import StriateError

HERE = Path(__file__).resolve().parent
RESULT = 200  # the descriptor through which a child answers, above any limit
NOBODY = 65534
MiB = 1 << 20


WARM_UP = [
    COMMANDS[name][0]
    for name in ("train", "evaluate", "embed", "explain", "check", "detection", "seq2seq translate", "doctor")
]
WARM_UP += ["recipes lenet", *COMMANDS["anatomy"][2:], *COMMANDS["weights import"], "weights inspect --help"]


def main() -> None:
    torch.set_num_threads(1)  # no thread may run when a process is forked
    striate.report.view_server.RunServer.serve_forever = lambda server: None  # it would not end
    warm = False
    for line in sys.stdin:
        order = json.loads(line)
        if not warm:
            warm_up(Material(**order["material"]))
            gc.freeze()  # a collection in a child would copy every page
            warm = True
        with tempfile.TemporaryFile() as result:
            pid = os.fork()
            if pid == 0:
                os.dup2(result.fileno(), RESULT)
                child(order)
            _, status, usage = os.wait4(pid, 0)
            code = os.waitstatus_to_exitcode(status)
            result.seek(0)
            text = result.read().decode("utf-8", "replace")
        if code not in range(100):  # it did not end by itself, so the C library may have said why
            text += (Path(order["folder"]) / "stderr").read_text("utf-8", "replace")
        seconds = usage.ru_utime + usage.ru_stime
        answer = {"code": code, "text": text, "seconds": seconds, "bytes": usage.ru_maxrss * 1024}
        print(json.dumps(answer), flush=True)


def warm_up(material: Material) -> None:
    """Import what commands import when they run: each child would, and not all may read those files."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        for number, line in enumerate(WARM_UP):
            paths = vars(material.replaced(out=str(Path(folder) / str(number))))
            striate.cli.run([word.format(**paths) for word in line.split()])
        for group in ("striate.anatomy", "striate.transforms"):
            for function in FUNCTIONS[group].values():
                function(material)


def child(order: dict) -> None:
    signal.alarm(60)  # ends a child that hangs
    code, errors = 99, None
    try:
        material, errors = prepare(order)
        code = call(
            order["target"], material, order["number"], harmless=order["harmless"], words=order.get("words")
        )
    except BaseException:
        raise_limits()
        os.write(RESULT, traceback.format_exc().encode())
    finally:
        raise_limits()
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        if errors is not None:
            os.lseek(errors, 0, os.SEEK_SET)
            os.write(RESULT, os.read(errors, MiB))
        os._exit(code)


def prepare(order: dict) -> tuple[Material, int | None]:
    """Make the environment of a cell; returns the paths, and a descriptor of what standard error receives."""
    os.environ |= COMMON
    folder = Path(order["folder"])
    folder.mkdir()
    os.chdir(folder)
    cell, material = order["cell"], Material(**order["material"])
    material = material.replaced(**{"out": str(folder / "out"), **bad_paths(cell, folder, order["number"])})
    settings(cell.get("settings", "usual"), folder)
    settings(f"cache {cell.get('cache', 'usual')}", folder)
    switch_torch(cell.get("torch", "usual"))
    errors = redirect(cell.get("streams", "utf-8"), folder)
    set_limit(cell.get("limit", "none"))
    return material, errors


def call(target: str, material: Material, number: int, *, harmless: bool, words: list[str] | None) -> int:
    if target in FUNCTIONS:
        for function in FUNCTIONS[target].values():
            with contextlib.nullcontext() if harmless else contextlib.suppress(StriateError):
                function(material)
        return 0
    lines = COMMANDS[target]
    words = lines[number % len(lines)].split() if words is None else words
    if words[0] == "demo":
        shorten_demo()
    return striate.cli.run([word.format(**vars(material)) for word in words])


def shorten_demo() -> None:
    train = striate.api.train
    striate.train = lambda data, **options: train(data, **{**options, "epochs": 1})


def settings(level: str, folder: Path) -> None:
    """Change the environment, also where it has been read already."""
    for name, value in variables(level, folder).items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if level == "matplotlib":
        matplotlib.rcParams.update({"text.usetex": True, "savefig.format": "pdf", "font.family": "none"})


def switch_torch(level: str) -> None:
    if level in ("float64", "float16"):
        torch.set_default_dtype(getattr(torch, level))
    elif level == "meta":
        torch.set_default_device("meta")
    elif level == "no grad":
        torch.set_grad_enabled(False)


def redirect(level: str, folder: Path) -> int | None:
    """Open the standard streams anew; returns a descriptor of what standard error receives."""
    (folder / "stdin").write_bytes(b"\xff\xfe \n\x80\n" if level == "stdin bytes" else b"")
    errors = os.open(folder / "stderr", os.O_RDWR | os.O_CREAT, 0o600)
    targets = {
        0: os.open(folder / "stdin", os.O_RDONLY),
        1: os.open("/dev/full" if level == "stdout full" else folder / "stdout", os.O_WRONLY | os.O_CREAT),
        2: os.open("/dev/full", os.O_WRONLY) if level == "stderr full" else errors,
    }
    for number, opened in targets.items():
        os.dup2(opened, number)
    encoding = level if level in ("ascii", "latin-1") else "utf-8"
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if level in (f"{name} closed", "all closed"):
            os.close(number)  # as the interpreter does for a stream that is closed at the start
            setattr(sys, name, None)
        else:
            mode = "r" if name == "stdin" else "w"
            raw = io.FileIO(number, mode, closefd=False)
            buffered = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
            kind = "backslashreplace" if name == "stderr" else "strict"
            setattr(sys, name, io.TextIOWrapper(buffered, encoding, kind, write_through=name == "stderr"))
    kept = os.dup(errors)
    os.dup2(kept, RESULT - 1)
    return RESULT - 1 if level != "stderr full" else None


class Started(threading.Event):
    """Ends `Thread.start`, which waits forever if its thread has no memory to run (CPython issue 140746)."""

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None or super().wait(10):
            return super().wait(timeout)
        raise RuntimeError("can't start new thread")  # as when the system refuses the thread


def set_limit(level: str) -> None:
    if level in ("memory", "more memory"):
        threading.Event = Started
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
        lower(resource.RLIMIT_AS, used + (8 * MiB if level == "memory" else 64 * MiB))
    elif level == "descriptors":
        lower(resource.RLIMIT_NOFILE, len(list(Path("/proc/self/fd").iterdir())) - 1)
    elif level == "12 GB":
        lower(resource.RLIMIT_AS, 12 << 30)
    elif level in ("no files", "small files"):
        lower(resource.RLIMIT_FSIZE, 0 if level == "no files" else 4096)
    elif level == "no permission" and os.geteuid() == 0 and open_to_others(HERE):
        os.setegid(NOBODY)
        os.seteuid(NOBODY)


def open_to_others(folder: Path) -> bool:
    """Whether another user can read a folder: Python itself needs the source files of Striate."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in (folder, *folder.parents))


def lower(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def raise_limits() -> None:
    """Undo `set_limit`, to report the result."""
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE):
        resource.setrlimit(kind, (resource.getrlimit(kind)[1],) * 2)


if __name__ == "__main__":
    main()
