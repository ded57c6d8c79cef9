"""`noema`, as tests run it: what it said and how it ended, in this process or in one of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Result:
    """What `noema` said and how it ended."""

    code: int
    out: str
    err: str
    shows_progress: bool = False
    """True: lines may stand before the error's."""

    def fails(self, code: int, told: str) -> None:
        """One line, what to do, the right code."""
        assert self.code == code, (self.code, self.err)
        assert self.err.count("\n") == 1 or self.shows_progress, self.err
        last = self.err.splitlines()[-1]
        assert last.startswith("noema: ")
        assert told in last
        assert "Traceback" not in self.err

    @property
    def json(self) -> dict[str, object]:
        """The last line of stdout."""
        content = json.loads(self.out.splitlines()[-1])
        assert isinstance(content, dict)
        return content


Noema = Callable[..., Result]


def noema_process(*args: object, environment: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    """A command in a process of its own."""
    command = [sys.executable, "-m", "agent", *map(str, args)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
