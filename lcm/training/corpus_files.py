"""Corpus files: what somebody typed in, the files it means and their lines out, unpacked as they are read.

Knows nothing of documents: JSON or prose, a line is a line.
"""

import glob
import gzip
import hashlib
import io
import lzma
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lcm.errors import INSTALL_TRAIN, TrainingDataError

Kind = Literal["text", "jsonl", "parquet"]
_SUFFIXES: dict[str, Kind] = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_PACKED = (".gz", ".xz", ".zst")
LONGEST_LINE = 64 * 1024 * 1024
"""bytes; a longer one is no line but a binary file"""
_FINGERPRINTED = 65_536

DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""what reading a damaged file raises"""


@dataclass(frozen=True, slots=True)
class CorpusFile:
    """One file of a corpus."""

    path: Path
    name: str
    """from the folder that was named on, without its packing: the same wherever the corpus lies"""
    kind: Kind
    size: int
    """bytes, packed"""

    @property
    def identity(self) -> list[Any]:
        """Name, size, and the hash of its beginning.

        Raises:
            TrainingDataError: it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                begins = hashlib.sha256(file.read(_FINGERPRINTED)).hexdigest()[:16]
        except OSError as error:
            raise TrainingDataError(f"cannot read {self.path} ({error.strerror})") from error
        return [self.name, self.size, begins]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file, without its end."""

    number: int
    text: str
    wrong: str
    """Why it cannot be used; then there is no text"""
    read: int
    """bytes of the file, packed, that have been read"""


def corpus_files(named: Sequence[str], kind: Kind | None = None) -> list[CorpusFile]:
    """Files, and what is in folders and matches patterns, in order, each once.

    Args:
        named: paths; folders are searched for the endings that are known; `*`, `?` and `**` as in a shell.
        kind: what they are; else their endings tell.

    Raises:
        TrainingDataError: nothing there, or an ending that tells nothing.
    """
    found: dict[Path, CorpusFile] = {}
    for name in named:
        path = Path(name)
        paths = [path] if path.exists() else [Path(match) for match in sorted(glob.glob(name, recursive=True))]
        if not paths:
            raise TrainingDataError(f"no file {name}")
        for each in paths:
            files = sorted(p for p in each.rglob("*") if p.is_file() and _kind(p)) if each.is_dir() else [each]
            if not files:
                raise TrainingDataError(f"no file that ends in {', '.join(_SUFFIXES)} under {each}")
            for file in files:
                told = kind or _kind(file)
                if told is None:
                    raise TrainingDataError(f"cannot tell what {file} is; say --format text, jsonl or parquet")
                shown = file.relative_to(each) if each.is_dir() else Path(file.name)
                corpus_file = CorpusFile(file, _unpacked_name(shown).as_posix(), told, file.stat().st_size)
                found.setdefault(file.resolve(), corpus_file)
    return list(found.values())


def lines(file: CorpusFile) -> Iterator[Line]:
    """Every line, decoded; a damaged file ends with a line that says so.

    Raises:
        TrainingDataError: the disk refuses to read it.
    """
    number = 0
    try:
        with file.path.open("rb") as raw, _unpacking(raw, file.path.suffix) as content:
            while line := content.readline(LONGEST_LINE):
                number += 1
                cut = len(line) == LONGEST_LINE and not line.endswith(b"\n")
                text, wrong = ("", f"longer than {LONGEST_LINE >> 20} MiB") if cut else _decoded(line)
                yield Line(number, text.removeprefix("\ufeff") if number == 1 else text, wrong, raw.tell())
                while cut and (line := content.readline(LONGEST_LINE)) and not line.endswith(b"\n"):
                    pass
    except DAMAGE as error:
        yield Line(number + 1, "", f"damaged file: {damage(error, f'{file.path}:{number + 1}')}", file.size)


def damage(error: Exception, where: str) -> str:
    """What is wrong with a file.

    Raises:
        TrainingDataError: nothing; it is the disk or the network, and the rest of the file must not be lost for it.
    """
    if isinstance(error, OSError) and error.errno:
        raise TrainingDataError(f"{where}: cannot be read ({error.strerror}); run the same command again") from error
    return str(error)


def _decoded(line: bytes) -> tuple[str, str]:
    try:
        return line.decode("utf-8").rstrip("\r\n"), ""
    except UnicodeDecodeError:
        return "", "not UTF-8"


def _unpacking(raw: io.BufferedReader, suffix: str) -> io.BufferedIOBase:
    if suffix == ".gz":
        return gzip.open(raw)
    if suffix == ".xz":
        return lzma.open(raw)
    if suffix == ".zst":
        arrow = pyarrow("a .zst file")
        return io.BufferedReader(arrow.CompressedInputStream(arrow.PythonFile(raw), "zstd"))
    return raw


def pyarrow(wanted_for: str) -> Any:
    """The package of this name.

    Raises:
        TrainingDataError: it is not installed.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet
    except ImportError as error:
        raise TrainingDataError(f"{wanted_for} needs pyarrow, of the extra `train`: {INSTALL_TRAIN}") from error
    return arrow


def _unpacked_name(path: Path) -> Path:
    return path.with_suffix("") if path.suffix in _PACKED else path


def _kind(path: Path) -> Kind | None:
    return _SUFFIXES.get(_unpacked_name(path).suffix.lower())
