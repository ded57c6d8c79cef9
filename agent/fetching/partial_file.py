"""A file on its way: what has come of it, which version that is, and its hash so far. Knows nothing of networks.

What has come lies in `FILE.part`; `FILE.fetch.json` notes the version as the server named it, so that only the rest of
the same version is put behind it. The notes stay, with the hash, until somebody else has taken that down (`forget`).
"""

import fcntl
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.errors import FetchError, one_line

_CHUNK = 1024 * 1024
_LOCK = ".fetch.lock"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole file."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Version:
    """Which content of a file a server has, in its own words."""

    etag: str = ""
    modified: str = ""
    total: int | None = None
    """Bytes, if it says"""

    @property
    def validator(self) -> str:
        """What `If-Range` may name (RFC 9110, 13.1.5): never a weak tag."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def differs(self, other: "Version") -> bool:
        """Whether both say something of the same, and not the same thing."""
        if self.total is not None and other.total is not None and self.total != other.total:
            return True
        if self.etag and other.etag:
            return self.etag != other.etag
        return bool(self.modified and other.modified and self.modified != other.modified)


class PartialFile:
    """What has come of one file."""

    def __init__(self, target: Path) -> None:
        """Takes up what an earlier run has left."""
        self.target = target
        self.version = Version()
        self.size = 0
        self._path = _part(target)
        self._hash = hashlib.sha256()
        self._take_up()

    @property
    def is_complete(self) -> bool:
        """Everything has come that was announced."""
        return self.size == self.version.total

    def start_over(self, version: Version | None = None) -> None:
        """Drops what has come. In this order: no crash leaves old bytes under the notes of a new version."""
        self._path.open("wb").close()
        self.version, self.size, self._hash = version or Version(), 0, hashlib.sha256()
        _write(_notes(self.target), asdict(self.version))

    @contextmanager
    def growing(self) -> Iterator[Callable[[bytes], None]]:
        """Gives what appends a piece."""
        with self._path.open("ab") as file:

            def append(piece: bytes) -> None:
                file.write(piece)
                file.flush()  # a process that dies loses nothing that has come
                self._hash.update(piece)
                self.size += len(piece)

            yield append

    def finish(self, misfit: Callable[[Path], str] = lambda path: "") -> Fetched:
        """Gives the file its name, once it is safely on the disk.

        Args:
            misfit: says why a whole file is not the one that was wanted; nothing if it is.

        Raises:
            FetchError: it is damaged, by its own checksums, or not the one; it was dropped.
        """
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        if fault := _fault(self._path):
            self.start_over()
            raise FetchError(f"{self.target.name} came damaged ({fault}) and was dropped; fetch it again")
        if fault := misfit(self._path):
            self.start_over()
            raise FetchError(f"{self.target.name}: {fault}")
        fetched = Fetched(self.size, self._hash.hexdigest())
        _write(_notes(self.target), {**asdict(self.version), **asdict(fetched)})
        self._path.replace(self.target)
        _sync(self.target.parent)
        return fetched

    def _take_up(self) -> None:
        version, size = _noted_version(self.target), begun_bytes(self.target)
        if version is None or size > (version.total or size):
            return
        if not version.validator and size != version.total:
            return  # nobody could tell whether the rest belongs to it
        self.version, self.size = version, size
        if size:
            with self._path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    self._hash.update(chunk)


def finished(target: Path) -> Fetched | None:
    """What an earlier run has fetched to the end, if the file still is that; reads all of it."""
    noted = _noted(target)
    return noted if noted and is_whole(target, noted) else None


def finished_bytes(target: Path) -> int | None:
    """How long the file was when an earlier run had fetched it to the end."""
    noted = _noted(target)
    return noted.bytes if noted else None


def is_whole(path: Path, expected: Fetched) -> bool:
    """Whether a file has this size and this hash; reads it only if the size fits."""
    if not path.is_file() or path.stat().st_size != expected.bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == expected.sha256


def forget(target: Path) -> None:
    """Removes the notes on a whole file, whose hash stands elsewhere by now."""
    _notes(target).unlink(missing_ok=True)


def begun_bytes(target: Path) -> int:
    """How much of a file has come, if not all of it."""
    path = _part(target)
    return path.stat().st_size if path.is_file() else 0


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder, made if need be, against another fetch into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / _LOCK).open("ab")
    except OSError as error:
        told = f"nothing can be written to the folder {folder} ({error.strerror})"
        raise FetchError(f"{told}; choose another place (--folder)") from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FetchError(f"another `noema fetch` is at work in {folder}; wait for it, or stop it") from error
        yield


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _notes(target: Path) -> Path:
    return target.with_name(f"{target.name}.fetch.json")


def _noted(target: Path) -> Fetched | None:
    notes = _read(_notes(target))
    size, digest = notes.get("bytes"), notes.get("sha256")
    return Fetched(size, digest) if isinstance(size, int) and isinstance(digest, str) else None


def _noted_version(target: Path) -> Version | None:
    notes = _read(_notes(target))
    etag, modified, total = notes.get("etag"), notes.get("modified"), notes.get("total")
    if isinstance(etag, str) and isinstance(modified, str) and isinstance(total, int | None):
        return Version(etag, modified, total)
    return None


def _fault(path: Path) -> str:
    """What is wrong with a zip file, as every newer checkpoint is: no hash is published, but it has its own."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return ""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        return one_line(error)
    return f"the checksum of {damaged} does not fit" if damaged else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}  # without notes a file starts over
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: dict[str, Any]) -> None:
    aside = path.with_name(f"{path.name}.new")
    aside.write_text(json.dumps(content) + "\n", encoding="utf-8")
    aside.replace(path)


def _sync(folder: Path) -> None:
    """So that a renamed file keeps its name through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
