"""How a download is shown: a bar in a terminal that has a width, now and then a line anywhere else.

Knows nothing of networks.
"""

import os
import time
from types import TracebackType
from typing import NoReturn, Self, TextIO

from tqdm import tqdm

from agent.fetching.fetch import sized

_LINE_SECONDS = 15.0


class FetchProgress:
    """Shows one file on its way: how much of it is here, how fast the rest comes, how long that takes."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self._name, self._stream = name, stream
        self._bar: tqdm[NoReturn] | None = None
        self._total: int | None = None
        self._done = self._first = 0
        self._began_at = self._told_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif error is None and self._total is not None:
            self._tell()

    def began(self, done: int, total: int | None) -> None:
        """The server sends the file from byte `done` on; once a try."""
        self._done = self._first = done
        self._total = total
        self._began_at = self._told_at = time.monotonic()
        if not _has_width(self._stream):
            whole = "a file of unknown size" if total is None else sized(total)
            self._line(f"{self._name}: {whole}" + (f", from {sized(done)} on" if done else ""))
            return
        if self._bar is not None:
            self._bar.close()
        self._bar = tqdm(
            desc=self._name, initial=done, total=total, unit="B", unit_scale=True, dynamic_ncols=True, file=self._stream
        )

    def advanced(self, count: int) -> None:
        """So many bytes more."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._told_at >= _LINE_SECONDS:
            self._tell()

    def said(self, message: str) -> None:
        """Something went wrong, and will be tried again."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._line(message)

    def _tell(self) -> None:
        self._told_at = time.monotonic()
        rate = (self._done - self._first) / max(self._told_at - self._began_at, 1e-3)
        line = f"{self._name}: {sized(self._done)}, {sized(round(rate))} a second"
        if self._total is not None and rate > 0:
            line += f", {100 * self._done // self._total} %, {(self._total - self._done) / rate:.0f} s to go"
        self._line(line)

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


def _has_width(stream: TextIO) -> bool:
    """Whether it is a terminal with room for a bar: one that does not know its size would show none at all."""
    if not stream.isatty():
        return False
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except OSError:
        return True
