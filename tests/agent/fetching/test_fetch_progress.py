"""How far a download has come, on a terminal and elsewhere."""

import io
import os
import pty
import termios

from agent.fetching.fetch import sized
from agent.fetching.fetch_progress import FetchProgress

NAME = "encoder.pt"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar() -> None:
    stream = _Terminal()
    with FetchProgress(NAME, stream) as progress:
        progress.began(0, 2_000_000)
        progress.advanced(500_000)
        progress.said("it broke off")
        progress.began(500_000, 2_000_000)
        progress.advanced(1_500_000)
    shown_text = stream.getvalue()
    assert "it broke off\n" in shown_text
    assert f"{NAME}: 100%" in shown_text
    assert "2.00M/2.00M" in shown_text


def test_a_terminal_without_a_size_shows_lines() -> None:
    """As the ones that programs open, which say 0 times 0: a bar would be nothing."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (0, 0))
    with os.fdopen(theirs, "w") as stream, FetchProgress(NAME, stream) as progress:
        progress.began(0, 2_000_000)
        progress.advanced(2_000_000)
    shown_text = os.read(ours, 1000).decode()
    os.close(ours)
    assert f"{NAME}: 2.0 MB" in shown_text


def test_anything_else_shows_lines() -> None:
    stream = io.StringIO()
    with FetchProgress(NAME, stream) as progress:
        progress.began(500_000, 2_000_000)
        progress.advanced(1_500_000)
    first, last = stream.getvalue().splitlines()
    assert first == f"{NAME}: 2.0 MB, from 500.0 kB on"
    assert last.startswith(f"{NAME}: 2.0 MB, ")
    assert last.endswith("a second, 100 %, 0 s to go")


def test_sizes_are_read_by_people() -> None:
    assert [sized(count) for count in (7, 1_500, 5_000_000, 3_064_365_056)] == ["7 bytes", "1.5 kB", "5.0 MB", "3.1 GB"]
