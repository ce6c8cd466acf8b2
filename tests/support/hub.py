"""A Hugging Face hub on this machine: it answers as the real one does, with the files that it is given."""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """files: a URL's path -> its content. ranges: those of the GETs so far. url: where it is."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: list = field(default_factory=list)
    url: str = ""


class Answers(BaseHTTPRequestHandler):
    """Requests for files: whole, or from a byte on."""

    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *arguments):
        self.hub = hub
        super().__init__(*arguments)

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.hub.ranges.append(self.headers.get("Range"))
        self.answer(body=True)

    def answer(self, body: bool):
        start = int(re.findall(r"bytes=(\d+)-", self.headers.get("Range", ""))[0]) if self.headers.get("Range") else 0
        whole = self.hub.files.get(self.path.partition("?")[0])
        content = b"Not here" if whole is None else whole[start:]
        self.send_response(404 if whole is None else 206 if start else 200)
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("ETag", f'"{hashlib.sha256(whole or b"").hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *arguments):
        """Say nothing."""


@contextmanager
def served() -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Answers, hub))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    yield hub
    server.shutdown()
