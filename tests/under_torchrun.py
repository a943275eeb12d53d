"""Two processes under torchrun: how a test starts them, and a command in which the second one dies."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import striate.cli
from striate.training.checkpointer import Checkpointer


def torchrun(program, *arguments):
    """Run a program of the tests in two processes of one thread, which torchrun restarts once."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "--monitor-interval", "0.1", program, *arguments]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    own = {"OMP_NUM_THREADS": "1", "STRIATE_PEER_TIMEOUT": "60", "PYTHONPATH": path}
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-6000:]


def run_killed(arguments, out):
    """The second process dies after seven steps; torchrun starts both again."""
    rank, restarted = int(os.environ["RANK"]), os.environ["TORCHELASTIC_RESTART_COUNT"] != "0"
    after_step = Checkpointer.after_step

    def dying(checkpointer):
        if rank == 1 and checkpointer._state.step == 7 and not restarted:
            os.kill(os.getpid(), signal.SIGKILL)
        after_step(checkpointer)

    printed = io.StringIO()
    with patch.object(Checkpointer, "after_step", dying), contextlib.redirect_stdout(printed):
        code = striate.cli.run([*arguments, "--name", "killed", "--json"])
    (out / f"printed-{rank}").write_text(printed.getvalue())
    assert code == 0, code
