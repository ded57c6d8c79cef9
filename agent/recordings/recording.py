"""Recording: a session on disk, as it happens; `agent.recordings.recorded` reads it back.

    session.json    options, bundle and versions
    inputs.jsonl    every input in order; frames as rows of speech probabilities
    events.jsonl    every event, canonical
    audio.flac      what was heard, 16 kHz; reply.flac what was said, 24 kHz (raw .pcm until finalised)

Raw PCM while recording, so that a crash loses nothing that reached the disk; FLAC afterwards. A session that
was not finalised (crash, full disk) is finalised at the next start. When the disk refuses, recording stops
with a warning and the session goes on. Memory does not grow with length.
"""

import contextlib
import fcntl
import json
import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np

from agent.config import AgentConfig, Backend, Precision, ThinkerConfig
from agent.core.events import DomainEvent
from agent.core.input_log import (
    audio_line,
    event_line,
    input_line,
    probability_byte,
)
from agent.core.inputs import AudioInput, Input, Voiced
from agent.core.turn_options import TurnOptions
from agent.data_folder import kept_at
from agent.errors import RecordingError, one_line
from audio.frames import SAMPLE_RATE, VOICE_RATE, to_pcm16

FORMAT = 2
_LOCK = "recording.lock"
_ROW_FRAMES = 50
_BLOCK = 65_536
SOUNDS = {"audio": SAMPLE_RATE, "reply": VOICE_RATE}
_log = logging.getLogger(__name__)


def sessions_folder() -> Path:
    """Where sessions are kept: NOEMA_SESSIONS, or the user's data folder."""
    return kept_at("NOEMA_SESSIONS", "sessions")


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What `session.json` says."""

    options: TurnOptions
    bundle: str
    space_id: str
    vad: str
    thinker: ThinkerConfig
    created: str
    versions: dict[str, str]
    precision: Precision = "float32"
    backend: Backend = "noema"
    served: bool = False
    """Whether a server recorded it, for whoever talked with it"""

    def as_json(self) -> dict[str, Any]:
        """The content of `session.json`."""
        return {"format": FORMAT, **asdict(self), "thinker": self.thinker.model_dump(exclude={"openai"})}


def new_session_info(config: AgentConfig, options: TurnOptions, space_id: str, *, served: bool = False) -> SessionInfo:
    """A description of a session that begins now."""
    return SessionInfo(
        options=options,
        bundle=config.bundle,
        space_id=space_id,
        vad=config.vad.name,
        thinker=config.thinker,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"python": platform.python_version()},
        precision=config.precision,
        backend=config.backend,
        served=served,
    )


def new_session_folder(root: Path) -> Path:
    """A folder for a session that begins now; its name sorts by time."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for number in range(1000):
        folder = root / (stamp if number == 0 else f"{stamp}-{number}")
        try:
            folder.mkdir(mode=0o700, parents=True)  # people's voices
        except FileExistsError:
            continue
        return folder
    raise RecordingError(f"{root}: no free name for a new session; look at what is in there")


class SessionRecorder:
    """A listener that writes everything down.

    Args:
        folder: nobody else's, such as `new_session_folder` makes.
        info: what is told of the session.
        warn: takes, for people, why recording stopped.

    Raises:
        OSError: the disk refuses; the folder is gone again.
    """

    def __init__(self, folder: Path, info: SessionInfo, warn: Callable[[str], object]) -> None:
        self.folder = folder
        self._warn = warn
        self._files: dict[str, IO[bytes]] = {}
        self._row = bytearray()
        self._row_start = 0
        self._reply_samples = 0
        with contextlib.ExitStack() as undo:  # of a recording that cannot begin, nothing stays
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = undo.enter_context((folder / _LOCK).open("wb"))
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            text = json.dumps(info.as_json(), indent=1, ensure_ascii=False) + "\n"
            aside = folder / "session.json.part"
            aside.write_text(text, encoding="utf-8")
            aside.rename(folder / "session.json")
            for name in ("inputs.jsonl", "events.jsonl", "audio.pcm", "reply.pcm"):
                self._files[name] = undo.enter_context((folder / name).open("wb"))
            undo.pop_all()

    @property
    def active(self) -> bool:
        """False once the disk has refused."""
        return bool(self._files)

    async def on_input(self, item: Input) -> None:
        """Writes one input down."""
        self._guarded(lambda: self._write_input(item))

    async def on_event(self, event: DomainEvent) -> None:
        """Writes one event down, after the inputs that led to it."""

        def write() -> None:
            self._end_row()
            self._files["inputs.jsonl"].flush()
            self._files["events.jsonl"].write((event_line(event) + "\n").encode())
            self._files["events.jsonl"].flush()

        self._guarded(write)

    def close(self) -> None:
        """Ends the recording and finalises it."""
        self._guarded(self._end_row)
        self._close_files()
        try:
            finalise(self.folder)  # with the lock still held: no other start finalises it as well
        except OSError as error:
            reason = one_line(error)
            self._warn(f"the recording stays unfinished ({reason}); the next start tries again")
        finally:
            self._lock.close()

    def abandon(self) -> None:
        """Stops where it stands, as a crash would: what is on disk waits to be finalised."""
        self._close_files()
        self._lock.close()

    def _write_input(self, item: Input) -> None:
        if isinstance(item, AudioInput):
            if not self._row:
                self._row_start = item.start_sample
            self._row.append(probability_byte(item.probability))
            self._files["audio.pcm"].write(to_pcm16(item.samples).astype("<i2").tobytes())
            if len(self._row) >= _ROW_FRAMES:
                self._end_row()
                self._files["inputs.jsonl"].flush()
            return
        self._end_row()
        offset = self._reply_samples
        if isinstance(item, Voiced):
            self._files["reply.pcm"].write(to_pcm16(item.samples).astype("<i2").tobytes())
            self._reply_samples += len(item.samples)
        self._write_input_line(input_line(item, offset))

    def _end_row(self) -> None:
        if self._row:
            row, self._row = bytes(self._row), bytearray()
            self._write_input_line(audio_line(self._row_start, row))

    def _write_input_line(self, line: str) -> None:
        # Sound before the line that refers to it, which may reach the disk from here on: a torn log never points
        # beyond its sound.
        for name in ("audio.pcm", "reply.pcm"):
            self._files[name].flush()
        self._files["inputs.jsonl"].write((line + "\n").encode())

    def _guarded(self, action: Callable[[], None]) -> None:
        if not self._files:
            return
        try:
            action()
        except OSError as error:
            self._warn(f"recording stopped: {one_line(error)}. The session goes on; so far it is in {self.folder}")
            self._close_files()

    def _close_files(self) -> None:
        files, self._files = self._files, {}
        for file in files.values():
            try:
                file.close()
            except OSError as error:
                _log.debug("closing %s: %s", file.name, error)


def finalise(folder: Path) -> None:
    """Raw PCM → FLAC; torn last lines are cut off. Safe to repeat, and to interrupt."""
    for name, rate in SOUNDS.items():
        raw = folder / f"{name}.pcm"
        if raw.exists():
            _to_flac(raw, folder / f"{name}.flac", rate)
            raw.unlink()
    for name in ("inputs.jsonl", "events.jsonl"):
        _cut_torn_line(folder / name)
    (folder / _LOCK).unlink(missing_ok=True)


def finalise_unfinished(root: Path) -> list[Path]:
    """Finalises every session that a crash or a full disk left behind."""
    return [folder for folder in unfinished(root) if finalise_abandoned(folder)]


def unfinished(root: Path) -> list[Path]:
    """Every session that is being recorded, or was and has to be finalised."""
    return [lock.parent for lock in sorted(root.glob(f"*/{_LOCK}"))]


def finalise_abandoned(folder: Path) -> bool:
    """Finalises one session if it needs it, but not while another process still records it."""
    try:
        with _locked(folder):
            finalise(folder)
    except FileNotFoundError:
        return False
    except OSError as error:
        _log.debug("%s is not finalised: %s", folder, error)
        return False
    return True


def is_recorded_now(folder: Path) -> bool:
    """Whether a process is recording it at this moment."""
    try:
        with _locked(folder):
            return False
    except FileNotFoundError:
        return False
    except OSError:
        return True


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the session's lock; an OSError where another process does."""
    with (folder / _LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _to_flac(raw: Path, flac: Path, rate: int) -> None:
    import soundfile

    aside = flac.with_name(flac.name + ".part")
    if raw.stat().st_size < 2:
        return
    try:
        with (
            raw.open("rb") as source,
            soundfile.SoundFile(aside, "w", rate, 1, format="FLAC", subtype="PCM_16") as target,
        ):
            while content := source.read(2 * _BLOCK):
                target.write(np.frombuffer(content[: len(content) // 2 * 2], dtype="<i2"))
        _check_length(aside, raw.stat().st_size // 2)
        aside.rename(flac)
    except soundfile.LibsndfileError as error:
        raise OSError(f"{flac}: cannot be written ({error.error_string})") from error
    finally:
        aside.unlink(missing_ok=True)


def _check_length(flac: Path, expected: int) -> None:
    """libsndfile does not report every failed write: the raw file goes only when the FLAC holds all of it."""
    import soundfile

    if soundfile.info(flac).frames != expected:
        raise OSError(f"{flac}: written only in part")


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        keep = size
        while keep > 0:
            start = max(0, keep - _BLOCK)
            file.seek(start)
            newline = file.read(keep - start).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            keep = start
        if keep != size:
            file.truncate(keep)
