"""A web server for tests: it serves files in ranges, and misbehaves where a test wants it to."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Seen:
    """A request, as it came."""

    path: str
    first: int
    """Byte of the file that it asks to begin with"""
    headers: dict[str, str]


class FileServer:
    """Files at addresses; `answers` holds, by path, what the next requests get instead of an honest answer."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = dict(files)
        self.etags = {path: f'"{path}-1"' for path in files}
        self.answers: dict[str, list[Answer]] = {}
        self.seen: list[Seen] = []
        self.announced: dict[str, int] = {}
        """What it says to HEAD, where that is not the size of a file"""
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def starts(self, path: str) -> list[int]:
        """Where each request for a file began."""
        return [seen.first for seen in self.seen if seen.path == path]

    def refuse(self) -> None:
        """Takes no further connections."""
        self._server.shutdown()
        self._server.socket.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0].rpartition("/")[2]
                owner.seen.append(Seen(path, _first(self.headers.get("Range")), dict(self.headers)))
                waiting = owner.answers.get(path)
                answer = waiting.pop(0) if waiting else honest
                answer(Request(self, owner, path))

            def do_HEAD(self) -> None:
                path = self.path.rpartition("/")[2]
                length = owner.announced.get(path, len(owner.files.get(path, b"")))
                self.send_response(200 if length else 404)
                self.send_header("Content-Length", str(length))
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


@dataclass(frozen=True, slots=True)
class Request:
    """One request, and what can be said to it."""

    handler: BaseHTTPRequestHandler
    server: FileServer
    path: str

    @property
    def content(self) -> bytes:
        """The file."""
        return self.server.files[self.path]

    def begin(self, *, ranges: bool = True, length: int | None = None, total: int | None = None) -> bytes:
        """Sends the head of an honest answer, unless told otherwise; returns the body that belongs to it."""
        etag, asked = self.server.etags[self.path], self.handler.headers.get("Range")
        first = _first(asked) if ranges and self.handler.headers.get("If-Range", etag) == etag else 0
        body = self.content[first:]
        if asked and first:
            self.head(206, {"Content-Range": f"bytes {first}-{len(self.content) - 1}/{total or len(self.content)}"})
        else:
            self.head(200, {})
        self.end_head({"Content-Length": str(len(body) if length is None else length), "ETag": etag})
        return body

    def head(self, status: int, headers: dict[str, str]) -> None:
        """Sends a status and headers."""
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name, value)

    def end_head(self, headers: dict[str, str]) -> None:
        """Sends the last headers; empty ones not at all."""
        for name, value in headers.items():
            if value:
                self.handler.send_header(name, value)
        self.handler.end_headers()

    def send(self, body: bytes) -> None:
        """Sends a piece of the body."""
        self.handler.wfile.write(body)


Answer = Callable[[Request], None]


def honest(request: Request) -> None:
    """What is asked for, or 404."""
    if request.path not in request.server.files:
        status(404)(request)
        return
    request.send(request.begin())


def breaking(after: int, *, ranges: bool = True) -> Answer:
    """Hangs up after so many bytes."""

    def answer(request: Request) -> None:
        request.send(request.begin(ranges=ranges)[:after])
        request.handler.close_connection = True

    return answer


def ignoring_ranges(request: Request) -> None:
    """Sends all of the file, whatever part was asked for."""
    request.send(request.begin(ranges=False))


def promising(length: int) -> Answer:
    """Sends the whole file, with another length in the head."""

    def answer(request: Request) -> None:
        request.send(request.begin(length=length))
        request.handler.close_connection = True

    return answer


def replying(body: bytes, content_type: str = "text/html", **headers: str) -> Answer:
    """Something else, with 200."""

    def answer(request: Request) -> None:
        request.head(200, {"Content-Type": content_type, "Content-Length": str(len(body)), **headers})
        request.handler.end_headers()
        request.send(body)

    return answer


def status(code: int, **headers: str) -> Answer:
    """A refusal."""

    def answer(request: Request) -> None:
        request.head(code, {"Content-Length": "0", **{key.replace("_", "-"): value for key, value in headers.items()}})
        request.handler.end_headers()

    return answer


def chunked(pieces: int | None = None) -> Answer:
    """In chunks without a length; the end is marked, unless only so many `pieces` come."""

    def answer(request: Request) -> None:
        request.head(200, {"Transfer-Encoding": "chunked", "ETag": request.server.etags[request.path]})
        request.handler.end_headers()
        size = len(request.content) // 8 + 1
        for number, at in enumerate(range(0, len(request.content), size)):
            if number == pieces:
                request.handler.close_connection = True
                return
            piece = request.content[at : at + size]
            request.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        request.send(b"0\r\n\r\n")

    return answer


def stalling(after: int) -> Answer:
    """Sends so many bytes and then nothing, without hanging up."""

    def answer(request: Request) -> None:
        request.send(request.begin()[:after])
        request.server.closing.wait(30)
        request.handler.close_connection = True

    return answer


def trickling(pieces: int, pause_seconds: float) -> Answer:
    """Slowly, but without ever falling silent for long."""

    def answer(request: Request) -> None:
        body = request.begin()
        size = len(body) // pieces + 1
        for at in range(0, len(body), size):
            request.send(body[at : at + size])
            time.sleep(pause_seconds)

    return answer


def holding(after: int, ready: Callable[[], bool], reached: threading.Event) -> Answer:
    """Sends so many bytes, says when the other side has them, and then nothing."""

    def answer(request: Request) -> None:
        request.send(request.begin()[:after])
        while not ready() and not request.server.closing.wait(0.02):
            pass
        reached.set()
        request.server.closing.wait(60)
        request.handler.close_connection = True

    return answer


def staying(request: Request) -> None:
    """Sends all of it, and does not hang up although it was asked to."""
    request.send(request.begin())
    request.server.closing.wait(30)


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has hung up is what these tests are about."""


def _first(value: str | None) -> int:
    return int(value.removeprefix("bytes=").partition("-")[0]) if value else 0
