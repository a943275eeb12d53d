"""Two hosts train one network, one loses its connection in between, and the run recovers.

The hosts are two network namespaces with a torchrun in each, connected by virtual interfaces; they share the
run folder. An undisturbed run comes first: the other must end with the same weights, bit for bit. Needs
Linux, root and iproute2; takes a few minutes; removes its namespaces.

    sudo python benchmarks/two_hosts.py [--log FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

HOSTS = {"a": "10.77.0.1", "b": "10.77.0.2"}
LINK = "eth0"  # the interface's name in each of them
PEER_TIMEOUT = 10  # seconds that a process waits for the other
CUT_OFF = 25  # seconds
LIMIT = 180  # seconds for a run
RUN = ["digits", "--model", "lenet", "--epochs", "12", "--batch", "16", "--save-every", "25"]


class Log:
    """Lines with the time, on the terminal and in a file, with placeholders for local paths."""

    def __init__(self, work: Path) -> None:
        self.lines: list[str] = []
        self._began, self._lock = time.monotonic(), threading.Lock()
        self._hidden = {str(work): "WORK", sys.prefix: "VENV", str(Path(__file__).parents[1]): "STRIATE"}

    def say(self, who: str, text: str) -> None:
        """Write one line."""
        for path, name in self._hidden.items():
            text = text.replace(path, name)
        with self._lock:
            self.lines.append(f"{time.monotonic() - self._began:7.1f} s  {who:6}  {text.rstrip()}")
            print(self.lines[-1], flush=True)


def ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=not check)


@contextlib.contextmanager
def two_hosts() -> Iterator[dict[str, str]]:
    """Create the namespaces and remove them in any case; yields their names."""
    spaces = {host: f"striate-{host}-{os.getpid()}" for host in HOSTS}
    ends = [f"st{host}{os.getpid()}" for host in HOSTS]
    try:
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for (host, address), end in zip(HOSTS.items(), ends, strict=True):
            ip("netns", "add", spaces[host])
            ip("link", "set", end, "netns", spaces[host], "name", LINK)
            ip("-n", spaces[host], "address", "add", f"{address}/24", "dev", LINK)
            for device in ("lo", LINK):
                ip("-n", spaces[host], "link", "set", "dev", device, "up")
        yield spaces
    finally:
        for space in spaces.values():
            ip("netns", "delete", space, check=False)
        ip("link", "delete", ends[0], check=False)


class Host(threading.Thread):
    """A host that runs torchrun, and restarts it after failures, as SLURM and Kubernetes do."""

    def __init__(self, name: str, space: str, out: Path, run: str, log: Log) -> None:
        super().__init__(daemon=True)
        self._name, self._log = name, log
        self._command = [
            "ip", "netns", "exec", space, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2",
            "--nproc-per-node", "1", "--max-restarts", "3", "--monitor-interval", "1", "--rdzv-id", run,
            "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{HOSTS['a']}:29400", "--local-addr", HOSTS[name],
            "--rdzv-conf", f"is_host={name == 'a'},keep_alive_interval=2,join_timeout=60",
            "-m", "striate", "train", *RUN, "--name", run, "--out", str(out),
        ]  # fmt: skip
        self.code: int | None = None
        self._process: subprocess.Popen[str] | None = None
        self._over = False

    def run(self) -> None:
        """Run until it succeeds."""
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": LINK,
            "STRIATE_PEER_TIMEOUT": str(PEER_TIMEOUT),
        }  # fmt: skip
        for attempt in range(5):
            if attempt:
                self._log.say(self._name, "(torchrun has failed on this host and is restarted)")
            self._process = subprocess.Popen(
                self._command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                start_new_session=True,
            )  # fmt: skip
            assert self._process.stdout is not None
            for line in self._process.stdout:
                if _relevant(line):
                    self._log.say(self._name, _short(line))
            self.code = self._process.wait()
            if self.code == 0 or self._over:
                return

    def stop(self) -> None:
        """End it if it is still running."""
        self._over = True
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)


def _relevant(line: str) -> bool:
    """Whether a line is Striate's or of torchrun's log, and not part of a traceback."""
    kept = ("striate:", "resuming", "warning", "epoch", "model ", "top-1")
    return line.startswith(kept) or bool(re.match(r"[WE]\d{4} .*(elastic|rendezvous)", line))


def _short(line: str) -> str:
    """A line of torchrun's log without its time and source line."""
    return re.sub(r"^([WE])\d{4} \S+ \d+ \S+\] ", r"torchrun: ", line)[:240]


def step_of(folder: Path) -> int:
    """The step of the newest checkpoint."""
    return max((int(p.stem) for p in (folder / "state").glob("[0-9]*.safetensors")), default=0)


def train(name: str, spaces: dict[str, str], out: Path, log: Log, cut_at: int | None) -> str:
    """One run on both hosts; returns the SHA-256 of its weights."""
    from striate import bundle

    hosts = [Host(host, space, out, name, log) for host, space in spaces.items()]
    for host in hosts:
        host.start()
    try:
        until = time.monotonic() + LIMIT
        while any(host.is_alive() for host in hosts) and time.monotonic() < until:
            time.sleep(0.2)
            if cut_at is not None and step_of(out / name) >= cut_at:
                cut_at = None
                log.say("ip", f"b: link down, at step {step_of(out / name)}")
                ip("-n", spaces["b"], "link", "set", "dev", LINK, "down")
                time.sleep(CUT_OFF)
                log.say("ip", f"b: link up, after {CUT_OFF} s")
                ip("-n", spaces["b"], "link", "set", "dev", LINK, "up")
    finally:
        for host in hosts:
            host.stop()
    if any(host.code != 0 for host in hosts):
        raise SystemExit(f"{name}: not finished within {LIMIT} s, exit codes {[host.code for host in hosts]}")
    return bundle.inspect(out / name / "last.safetensors").weights_sha256


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--log", type=Path, help="file for what is printed")
    options = parser.parse_args()
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("ip") is None:
        print("skipped: network namespaces need Linux, root and iproute2")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the namespaces are removed
    with tempfile.TemporaryDirectory() as work, two_hosts() as spaces:
        log, out = Log(Path(work)), Path(work) / "runs"
        log.say("", f"striate train {' '.join(RUN)}, on two hosts with a process each")
        calm = train("calm", spaces, out, log, None)
        log.say("", f"weights {calm[:16]} of the undisturbed run")
        cut = train("cut-off", spaces, out, log, step_of(out / "calm") // 3)
        log.say("", f"weights {cut[:16]} of the run whose host b was cut off for {CUT_OFF} s")
        log.say("", "the same, bit for bit" if calm == cut else "NOT THE SAME")
    if options.log is not None:
        options.log.write_text("\n".join(log.lines) + "\n")
    return int(calm != cut)


if __name__ == "__main__":
    sys.exit(main())
