"""Fetching one file: an address in, the whole file and its hash out, whatever the connection does meanwhile.

A try that fails is followed by another, for the rest of the same version of the file. Knows nothing of what files are
for, nor of how the part that has come is kept.
"""

import itertools
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Protocol, cast
from urllib.error import HTTPError, URLError

from agent.errors import FetchError
from agent.fetching.addresses import checked_address, opener_of, request_of, shown
from agent.fetching.answers import asked_seconds, content_range, version_of
from agent.fetching.partial_file import Fetched, PartialFile

_CHUNK = 1024 * 1024
_HEAD = 16
_OK, _PARTIAL, _UNSATISFIABLE = 200, 206, 416
_PASSING = (408, 425, 429)
"""Answers that another try may better, as may every answer from 500 on"""
_LONGEST_ASKED_SECONDS = 300.0
_NOBODY = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
"""There is no such host; that it cannot be asked for just now is another matter"""


@dataclass(frozen=True, slots=True)
class Content:
    """What a file has to be."""

    what: str
    beginnings: tuple[bytes, ...]
    misfit: Callable[[Path], str] = lambda path: ""
    """Why the whole file is not it after all; empty where it is"""


_ELSEWHERE = "check the address, or name another one (--from)"
CHECKPOINT = Content("a checkpoint", (b"PK\x03\x04", *(bytes([0x80, protocol]) for protocol in range(2, 6))))
"""torch's own format is a zip file, its older one pickles"""
SENTENCEPIECE = Content("a SentencePiece model", (b"\n",))
"""A protocol buffer whose first field is the list of pieces"""


class Progress(Protocol):
    """Somebody who watches one file."""

    def began(self, done: int, total: int | None) -> None:
        """The server sends the file from byte `done` on; once a try."""

    def advanced(self, count: int) -> None:
        """So many bytes more."""

    def said(self, message: str) -> None:
        """Something went wrong, and will be tried again."""


def free_bytes(folder: Path) -> int:
    """What the disk of a folder still takes."""
    return shutil.disk_usage(folder).free


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How much patience, and how much room."""

    timeout_seconds: float = 30.0
    """To connect, and between two pieces of a file: slow is fine, silent is not"""
    retries: int = 5
    """In a row without one new byte"""
    first_wait_seconds: float = 1.0
    """Before the first retry; doubles with every further one"""
    longest_wait_seconds: float = 60.0
    spare_bytes: int = 256 * 1024 * 1024
    """What shall stay free on the disk"""
    free_bytes: Callable[[Path], int] = free_bytes


class _BrokenOff(Exception):
    """A try that failed in a way that another may not."""

    def __init__(self, message: str, wait_seconds: float | None = None, *, nobody: bool = False) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds
        """As the server asks for"""
        self.nobody = nobody
        """There is no server"""


class Download:
    """One file on its way. Interrupting it is safe: another one goes on where it stopped."""

    def __init__(
        self, url: str, target: Path, content: Content, progress: Progress, options: FetchOptions | None = None
    ) -> None:
        """`target` is where the file shall lie; what an earlier run has left of it is taken up."""
        self._address, self._name, self._content = checked_address(url), target.name, content
        self._progress, self._options = progress, options or FetchOptions()
        self._opener = opener_of(self._address)
        self._file = PartialFile(target)
        self._furthest = self._file.size
        self._answered = False

    def run(self) -> Fetched:
        """Fetches what is missing.

        Raises:
            FetchError: no try got further, or what came is not the file. What to do is in the message.
        """
        idle = 0
        while not self._file.is_complete:
            before = self._furthest
            try:
                self._try()
            except _BrokenOff as broken:
                idle = 1 if self._furthest > before else idle + 1
                self._wait(idle, broken)
        return self._file.finish(self._misfit)

    def _misfit(self, path: Path) -> str:
        fault = self._content.misfit(path)
        return fault and f"{shown(self._address)} sent another file ({fault}), which was dropped; {_ELSEWHERE}"

    def _wait(self, idle: int, broken: _BrokenOff) -> None:
        options, asked = self._options, broken.wait_seconds
        nobody = broken.nobody and not self._answered  # one that has answered will be back
        if idle > (min(options.retries, 1) if nobody else options.retries):
            advice = f"{_ELSEWHERE}; or run it again later" if nobody else "run it again later to resume"
            raise FetchError(f"{self._name}: {broken}; tried {idle} times; {advice}") from broken
        if asked is not None and asked > _LONGEST_ASKED_SECONDS:
            told = f"{broken} and asks to wait {asked:.0f} seconds"
            raise FetchError(f"{self._name}: {told}; run it again then to resume") from broken
        wait = min(options.first_wait_seconds * 2.0 ** (idle - 1), options.longest_wait_seconds)
        wait = wait if asked is None else asked
        self._progress.said(f"{self._name}: {broken}; trying again in {wait:.0f} s")
        time.sleep(wait)

    def _try(self) -> None:
        with self._asked() as response:
            self._answered = True
            pieces = self._continued(response) if self._is_rest(response) else self._from_the_start(response)
            self._make_sure_of_room()
            self._progress.began(self._file.size, self._file.version.total)
            self._receive(pieces)

    def _asked(self) -> HTTPResponse:
        headers = {"User-Agent": "noema", "Accept-Encoding": "identity"}
        if self._file.size and (validator := self._file.version.validator):
            headers |= {"Range": f"bytes={self._file.size}-", "If-Range": validator}
        request = request_of(self._address, headers)
        try:
            return cast(HTTPResponse, self._opener.open(request, timeout=self._options.timeout_seconds))
        except HTTPError as error:
            self._answered = True
            with error:
                raise self._refused(error) from None
        except (OSError, HTTPException) as error:
            reason = error.reason if isinstance(error, URLError) else error
            if isinstance(reason, ssl.SSLCertVerificationError):
                told = f"the certificate of {self._host} is not trusted ({reason.verify_message})"
                advice = "if your network has an authority of its own, name its file in SSL_CERT_FILE"
                raise FetchError(f"{self._name}: {told}; {advice}") from error
            raise self._broken(reason) from error

    def _refused(self, error: HTTPError) -> Exception:
        answer = f"{self._host} answers {error.code} {error.reason}"
        if error.code == _UNSATISFIABLE:
            self._file.start_over()
            return _BrokenOff(f"{answer} to a request for the rest, so it starts over")
        if error.code in _PASSING or error.code >= 500:
            return _BrokenOff(answer, asked_seconds(error.headers.get("Retry-After")))
        return self._unusable(f"{answer} for {shown(self._address)}")

    def _unusable(self, what: str) -> FetchError:
        return FetchError(f"{self._name}: {what}; {_ELSEWHERE}")

    def _broken(self, reason: object) -> _BrokenOff:
        if isinstance(reason, TimeoutError):
            return _BrokenOff(f"{self._host} has been silent for {self._options.timeout_seconds:g} s")
        what = (reason.strerror if isinstance(reason, OSError) else None) or str(reason) or type(reason).__name__
        unknown = isinstance(reason, socket.gaierror) and reason.errno in _NOBODY
        nobody = unknown or isinstance(reason, ConnectionRefusedError)
        return _BrokenOff(f"the connection to {self._host} failed ({what})", nobody=nobody)

    @property
    def _host(self) -> str:
        return self._address.hostname or ""

    def _is_rest(self, response: HTTPResponse) -> bool:
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise self._unusable(f"{self._host} sends it packed ({encoding})")
        if response.status == _PARTIAL and self._file.size:
            return True
        if response.status != _OK:
            raise self._unusable(f"{self._host} answers {response.status} for {shown(self._address)}")
        return False

    def _continued(self, response: HTTPResponse) -> Iterator[bytes]:
        """The rest of what is here; if it is the rest of something else, nothing of it is used."""
        first, total = content_range(response.headers.get("Content-Range", ""))
        version = version_of(response.headers, self._promised(response, self._file.size) if total is None else total)
        if first != self._file.size or self._file.version.differs(version):
            self._file.start_over()
            raise _BrokenOff("the file on the server has changed, so it starts over")
        self._file.version = replace(self._file.version, total=version.total)
        return self._pieces(response)

    def _from_the_start(self, response: HTTPResponse) -> Iterator[bytes]:
        """All of it. Only once its beginning is right, what is here already makes room for it."""
        total = self._promised(response, 0)
        pieces = self._pieces(response)
        head = b""
        while len(head) < _HEAD and (piece := next(pieces, b"")):
            head += piece
        if head.startswith(self._content.beginnings):
            self._file.start_over(version_of(response.headers, total))
            return itertools.chain([head], pieces)
        if len(head) < min(_HEAD, total or 0):
            raise _BrokenOff(f"the connection ended after {len(head)} bytes")
        is_page = head.lstrip().startswith(b"<")
        sent = "a web page" if is_page else f"something that begins with {head[:4]!r}" if head else "nothing"
        advice = "log in to your network if it asks for that, or name another address (--from)"
        told = f"{self._name}: {shown(self._address)} sent {sent}, not {self._content.what}"
        raise FetchError(f"{told}; {advice if is_page else _ELSEWHERE}")

    def _promised(self, response: HTTPResponse, first: int) -> int | None:
        """How long the file is, by what of it is to come; None where its end will be marked."""
        length = response.headers.get("Content-Length", "")
        if length.isdecimal():
            return first + int(length)
        if not response.chunked:
            raise self._unusable(f"{self._host} does not say how long it is")
        return None

    def _pieces(self, response: HTTPResponse) -> Iterator[bytes]:
        if not response.chunked:
            response.length = None  # read on past what was promised: what is longer is no file to trust
        while True:
            try:
                piece = response.read1(_CHUNK)
            except (OSError, HTTPException) as error:
                if self._file.is_complete:  # only the end of the connection was still to come
                    return
                raise self._broken(error) from error
            if not piece:
                return
            yield piece

    def _receive(self, pieces: Iterator[bytes]) -> None:
        file, total = self._file, self._file.version.total
        with file.growing() as append:
            for piece in pieces:
                append(piece)
                self._furthest = max(self._furthest, file.size)
                self._progress.advanced(len(piece))
                if total is not None and file.size > total:
                    break
        if total is None:
            file.version = replace(file.version, total=file.size)
        elif file.size < total:
            raise _BrokenOff(f"the connection ended after {sized(file.size)} of {sized(total)}")
        elif file.size > total:
            file.start_over()
            raise self._unusable(f"{self._host} sent more than the {total:,} bytes it promised")

    def _make_sure_of_room(self) -> None:
        folder, options = self._file.target.parent, self._options
        missing = (self._file.version.total or self._file.size) - self._file.size
        free = options.free_bytes(folder)
        if missing + options.spare_bytes > free:
            needed = f"{sized(missing)} are to come and {sized(options.spare_bytes)} shall stay free"
            advice = "make room, or choose another place (--folder)"
            raise FetchError(f"{self._name}: the disk of {folder} has {sized(free)} left, but {needed}; {advice}")


def sized(count: int) -> str:
    """`3064365056` → `3.1 GB`."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"
