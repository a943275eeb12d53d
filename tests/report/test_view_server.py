"""The page of all runs: what it serves, what it refuses, and that it follows a run that trains."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import struct
import threading
import time

import pytest
from browser import needs_chromium

from striate import bundle, cli
from striate.errors import UsageError
from striate.report.run_table import ALIVE_SECONDS, RunTable
from striate.report.view_server import RunServer

RESULTS = "epoch,step,lr,train_loss,val_loss,val_top1,seconds\n1,5,0.1,2.0,1.9,0.25,3.5\n"


@pytest.fixture
def folder(tmp_path):
    """Two runs, one of them with a hostile name, and files that are no runs."""
    for name, model, epochs in (("a-lenet", "lenet", 2), ("<img src=x onerror=alert(1)>", "resnet18", 3)):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(
            f"task: classification\nmodel: {model}\nepochs: {epochs}\ndata: /x/flowers\n"
        )
        (run / "results.csv").write_text(RESULTS)
        (run / "report.html").write_text(f"<p>{model}")
        (run / "best.safetensors").write_bytes(b"weights")
    (tmp_path / "runs" / "notes.txt").write_text("no run")
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "config.yaml").write_text("a: [")
    (tmp_path / "secret.html").write_text("secret")
    (tmp_path / "runs" / "link.html").symlink_to(tmp_path / "secret.html")
    return tmp_path / "runs"


@pytest.fixture
def server(folder):
    with RunServer(folder) as started:
        thread = threading.Thread(target=started.serve_forever, args=[0.02], daemon=True)
        thread.start()
        yield started
        started.shutdown()
        thread.join()


def answer(server, path, method="GET", host=None):
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{server.server_address[1]}")
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read(), dict(response.getheaders())


def test_runs_and_their_files(server):
    status, content, headers = answer(server, "/runs.json")
    runs = {run["name"]: run for run in json.loads(content)["runs"]}
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert runs.keys() == {"a-lenet", "<img src=x onerror=alert(1)>", "broken"}
    assert runs["a-lenet"]["epochs"]["val_top1"] == [0.25]
    assert (runs["a-lenet"]["config"]["model"], runs["a-lenet"]["state"]) == ("lenet", "finished")
    assert (runs["broken"]["config"], runs["broken"]["epochs"]) == ({}, {})
    status, content, headers = answer(server, "/a-lenet/report.html")
    assert (status, content) == (200, b"<p>lenet")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    status, content, headers = answer(server, "/")
    assert (status, headers["X-Content-Type-Options"]) == (200, "nosniff")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.html", "/%2e%2e/secret.html", "//etc/passwd", "/link.html", "/a-lenet/best.safetensors",
        "/notes.txt", "/a-lenet", "/a-lenet/%00.html", "/missing.html", "/a-lenet/../../secret.html",
    ],
)  # fmt: skip
def test_nothing_else_is_served(server, path):
    assert answer(server, path)[:2] == (404, b"404 Not Found\n")


def test_only_get_requests_to_this_computer_are_answered(server):
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        assert answer(server, "/runs.json", method)[0] == 501
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example"):
        assert answer(server, "/runs.json", host=host)[0] == 403
    assert answer(server, "/runs.json", host=f"localhost:{server.server_address[1]}")[0] == 200
    assert server.server_address[0] == "127.0.0.1"


def test_malformed_requests_and_closed_connections_print_nothing(server, folder, capfd):
    assert answer(server, "/", host="[")[0] == 400
    assert answer(server, "http://[/")[0] == 400
    (folder / "a-lenet" / "large.csv").write_bytes(b"x" * 20_000_000)
    with socket.create_connection(server.server_address[:2]) as connection:
        reset = struct.pack("ii", 1, 0)  # closing does not wait for the answer
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        connection.sendall(b"GET /a-lenet/large.csv HTTP/1.0\r\nHost: localhost\r\n\r\n")
        connection.recv(1)
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(10)
    assert capfd.readouterr().err == ""


def test_a_taken_port_is_reported(server):
    with pytest.raises(UsageError, match="address already in use"):
        RunServer(server.RequestHandlerClass.args[0].folder, server.server_address[1])


def test_states_of_a_run(folder):
    run, now = folder / "a-lenet", time.time()
    state = lambda: next(row["state"] for row in RunTable(folder).rows() if row["name"] == "a-lenet")
    os.utime(run / "report.html", (now - 500, now - 500))
    assert state() == "training"  # results that are newer than the report
    for name in ("results.csv", "config.yaml"):
        os.utime(run / name, (now - ALIVE_SECONDS - 9,) * 2)
    assert state() == "stopped"
    (run / "state").mkdir()  # a checkpoint was written
    assert state() == "training"


def test_a_study_shows_the_means_of_its_runs_and_a_search_its_choice(run, tmp_path):
    rows = {1: "1,5,0.1,2.0,1.0,0.5,3\n2,10,0.1,1.0,0.8,0.7,3\n", 2: "1,5,0.1,1.0,1.0,0.9,3\n"}
    for study, extra in (("cv", "folds: 2\n"), ("search", "lr: 0.2\nepochs: null\nname: null\nout: runs\n")):
        for fold, lines in rows.items():
            one = tmp_path / study / f"run-{fold}"
            one.mkdir(parents=True)
            shutil.copy(run.best, one)
            tested = {"top1": fold / 4}
            bundle.add_metrics(one / "best.safetensors", {"val_top1": 0.5, "val_loss": fold, "test": tested})
            (one / "results.csv").write_text(RESULTS.splitlines()[0] + "\n" + lines)
            (one / "config.yaml").write_text(
                f"model: lenet\nlr: 0.{fold}\nfold: {fold}\nepochs: 3\nout: {study}\n"
            )
        (tmp_path / study / "config.yaml").write_text(f"model: lenet\n{extra}")
    (tmp_path / "search" / "tune.json").write_text("{}")
    found = {row["name"]: row for row in RunTable(tmp_path).rows()}
    cv, search = found["cv"], found["search"]
    assert (cv["best"]["test_top1"], cv["best"]["val_loss"]) == (0.375, 1.5)
    assert cv["epochs"]["val_top1"] == [pytest.approx(0.7)]  # of the epochs that all have
    assert (search["best"]["test_top1"], search["epochs"]["val_top1"]) == (0.5, [0.9])
    assert cv["state"] == "training"


def test_only_changed_files_are_read_again(folder, monkeypatch):
    table = RunTable(folder)
    before = table.rows()
    read = []
    monkeypatch.setattr(
        "striate.report.run_table.read_bytes", lambda path, limit: read.append(path) or b"epoch\n7\n"
    )
    assert table.rows() == before
    with (folder / "a-lenet" / "results.csv").open("a") as file:
        file.write("2,10,0.1,nan,,0.5,3.5\n")
    changed = next(row for row in table.rows() if row["name"] == "a-lenet")
    assert (read, changed["epochs"]) == ([folder / "a-lenet" / "results.csv"], {"epoch": [7.0]})


@needs_chromium
def test_the_page_sorts_filters_and_follows_a_run(server, folder, browser):
    page = browser
    page.window(1400)
    page.open(f"{server.url}#lang=en")
    wait = "new Promise(done => {{ const look = () => {0} ? done(true) : setTimeout(look, 20); look(); }})"
    page.evaluate(wait.format("document.documentElement.dataset.ready"))
    names = lambda: page.evaluate("[...document.querySelectorAll('td.name')].map(cell => cell.textContent)")
    assert set(names()) == {"a-lenet", "<img src=x onerror=alert(1)>", "broken"}
    page.click("[data-key=name]")
    page.click("[data-key=name]")
    assert names()[0] == "broken"  # the last name
    page.enter("input[type=search]", "model:lenet finished")
    assert (names(), page.text(".status")) == (["a-lenet"], "1 of 3 runs")
    assert page.count(".panels svg") == 4  # lr, train_loss, val_loss, val_top1
    # From now on it asks more often.
    page.evaluate("window.later = setTimeout; setTimeout = (act, time) => later(act, time / 20)")
    page.evaluate("window.kept = fetch; fetch = () => Promise.reject(new Error())")
    page.evaluate(wait.format("document.querySelector('.status').textContent.includes('has ended')"))
    page.evaluate("fetch = window.kept")
    page.evaluate(wait.format("document.querySelector('.status').textContent === '1 of 3 runs'"))
    page.enter("input[type=search]", "model:lenet")
    (folder / "a-lenet" / "results.csv").write_text(RESULTS + "2,10,0.1,1.5,1.2,0.75,3.5\n")
    page.evaluate(
        wait.format("[...document.querySelectorAll('td')].some(c => c.textContent === '75.0\\u00a0%')")
    )
    assert page.text(".state-training") == "training"  # its results are newer than its report
    assert page.overflow(390) <= 0
    assert page.errors == []
    assert {address.partition("/runs.json")[0].rstrip("/") for address in page.requests} == {
        server.url.rstrip("/")
    }


def test_the_command_serves_until_it_is_stopped(folder, capsys, monkeypatch):
    monkeypatch.setattr(RunServer, "serve_forever", lambda server: (_ for _ in ()).throw(KeyboardInterrupt))
    assert cli.run(["view", str(folder), "--port", "0", "--no-open", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["url"].startswith("http://127.0.0.1:")
    assert told["folder"] == str(folder)
    assert cli.run(["view", str(folder / "missing"), "--no-open"]) == 3
    assert "no such file or folder" in capsys.readouterr().err
