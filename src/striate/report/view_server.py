"""Serve a folder of runs to a browser on this computer: read-only, on the loopback address."""

from __future__ import annotations

import errno
import os
import sys
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from striate import strict_json
from striate.errors import UsageError
from striate.report import templates
from striate.report.run_table import RunTable
from striate.sections import Phrase

HOST = "127.0.0.1"
# The files of a run that are served.
_TYPES = {
    ".html": "text/html; charset=utf-8", ".png": "image/png", ".csv": "text/csv; charset=utf-8",
    ".yaml": "text/plain; charset=utf-8",
}  # fmt: skip
_MAX_BYTES = 1 << 30  # of a file
# Pages may run their own script and ask for runs.json, nothing else.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class RunServer(ThreadingHTTPServer):
    """A server of the runs in a folder; `serve_forever` and `shutdown` as those of its base class.

    Args:
        folder: with a folder for each run; nothing outside of it is served.
        port: 0 for a free one.

    Raises:
        UsageError: the port is taken or not allowed.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        try:
            super().__init__((HOST, port), partial(_Handler, RunTable(folder)))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            fix = "Choose another --port, or leave it out"
            raise UsageError(f"--port {port}", os.strerror(error.errno).lower(), fix) from error

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing if the browser has closed the connection, as it does with a page that is left."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET requests: the page, the table of the runs, and files of the runs; refuses all others."""

    server_version, sys_version = "striate", ""

    def __init__(self, table: RunTable, *arguments: Any) -> None:
        self._table = table
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Answer a request."""
        try:
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
            path = unquote(urlsplit(self.path).path, errors="surrogateescape")
        except ValueError:  # such as `[`, which begins an IPv6 address
            self._fail(HTTPStatus.BAD_REQUEST)
            return
        if host not in (HOST, "localhost"):
            self._fail(HTTPStatus.FORBIDDEN)  # another name would let a web page read the answer
            return
        if path == "/":
            page = templates.render(
                "view.html", title=Phrase("Runs"), scripts=("lines.js", "view.js"), full_width=True
            )
            self._send(page.encode("utf-8", "replace"), _TYPES[".html"])
        elif path == "/runs.json":
            text = strict_json.dumps({"folder": str(self._table.folder), "runs": self._table.rows()})
            self._send(text.encode("utf-8", "replace"), "application/json")
        else:
            self._send_file(path)

    def _send_file(self, path: str) -> None:
        root = self._table.folder.resolve()
        try:
            wanted = (root / path.lstrip("/")).resolve()
            allowed = wanted.is_relative_to(root) and wanted.suffix in _TYPES and wanted.is_file()
            content = wanted.read_bytes() if allowed and wanted.stat().st_size <= _MAX_BYTES else None
        except (OSError, ValueError, RuntimeError):  # a zero byte, a loop of links, no permission
            content = None
        if content is None:
            self._fail(HTTPStatus.NOT_FOUND)
            return
        self._send(content, _TYPES[wanted.suffix])

    def _send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind, "Content-Length": str(len(content)), "Cache-Control": "no-store",
            "Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin", "Referrer-Policy": "no-referrer",
        }  # fmt: skip
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _fail(self, status: HTTPStatus) -> None:
        self._send(f"{status.value} {status.phrase}\n".encode(), "text/plain; charset=utf-8", status)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing for each request."""
