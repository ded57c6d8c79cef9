"""Retention: which recordings stay. Deletes the oldest that are finished, for their age and for the room they take.

Knows the folder of recordings and nothing of what is in them, but whether a server made them: what people record for
themselves is theirs to delete. What is being recorded is never touched.
"""

import json
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from agent.errors import one_line
from agent.recordings.recording import is_recorded_now

_INFO = "session.json"
_DAY_S = 86_400.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long recordings are kept, and how much of the disk they may take; None: no limit."""

    days: float | None
    """Since the recording ended"""
    bytes: int | None
    """Of all of them together"""

    def __str__(self) -> str:
        """For people."""
        days = "no limit of age" if self.days is None else f"{self.days:g} days"
        size = "no limit of size" if self.bytes is None else f"{self.bytes / 1e9:g} GB"
        return f"{days}, {size}"


@dataclass(frozen=True, slots=True)
class _Recording:
    folder: Path
    ended: float
    """When something was last written, seconds since 1970"""
    bytes: int


def prune(root: Path, limits: Retention, *, served_only: bool = True) -> list[Path]:
    """Deletes what is beyond the limits; says what is gone, the oldest first.

    Args:
        root: the folder of recordings.
        limits: what may stay.
        served_only: leave alone, and do not count, what was not recorded by a server.
    """
    infos = [info for info in root.glob(f"*/{_INFO}") if not info.parent.is_symlink()]  # what lies elsewhere stays
    found = [_look_at(info.parent) for info in infos if not served_only or _is_served(info)]
    there = sorted((recording for recording in found if recording is not None), key=lambda recording: recording.ended)
    taken, gone = sum(recording.bytes for recording in there), []
    for recording in there:
        too_old = limits.days is not None and time.time() - recording.ended > limits.days * _DAY_S
        too_much = limits.bytes is not None and taken > limits.bytes
        if not (too_old or too_much) or is_recorded_now(recording.folder):
            continue
        try:
            delete(recording.folder)
        except OSError as error:
            _log.warning("%s is not deleted: %s", recording.folder, one_line(error))
            continue
        taken -= recording.bytes
        gone.append(recording.folder)
    return gone


def delete(folder: Path) -> None:
    """Removes a recording; its description last, so that half of one is found again."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _INFO:
            path.unlink()
    shutil.rmtree(folder)


def _is_served(info: Path) -> bool:
    try:
        content = json.loads(info.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("served") is True


def _look_at(folder: Path) -> _Recording | None:
    try:
        files = [path.stat() for path in folder.iterdir()]
    except OSError as error:  # somebody else has just deleted it, or finalised it
        _log.debug("%s: %s", folder, one_line(error))
        return None
    return _Recording(folder, max(file.st_mtime for file in files), sum(file.st_size for file in files))
