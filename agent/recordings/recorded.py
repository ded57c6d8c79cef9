"""A recorded session, read: a folder in, its description, every input and every event line out.

What `agent.recordings.recording` wrote. Memory does not grow with length.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from agent.config import ConversationConfig, ThinkerConfig
from agent.core.events import FloatArray, SessionEnded
from agent.core.input_log import (
    LogFormatError,
    checked_fields,
    error_text,
    input_from,
    parse_line,
    probability_from_byte,
    unpacked_probabilities,
    whole_number,
)
from agent.core.inputs import AudioInput, Input, Voiced
from agent.core.turn import TurnMachine
from agent.core.turn_options import TurnOptions
from agent.core.turn_state import Step
from agent.errors import RecordingError
from agent.recordings.recording import FORMAT, SOUNDS, SessionInfo
from audio.frames import FRAME_SAMPLES, from_pcm16
from audio.segmenter import SegmenterOptions


def read_info(folder: Path) -> SessionInfo:
    """The description of a recorded session."""
    path = folder / "session.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordingError(f"{folder}: not a recorded session (no session.json)") from None
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{path}: damaged ({error})") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise RecordingError(f"{path}: made by another version; this one reads format {FORMAT}")
    try:
        options = _options(content.pop("options"))
        thinker = ThinkerConfig.model_validate(content.pop("thinker"))
        return SessionInfo(options=options, thinker=thinker, **checked_fields(SessionInfo, content))
    except (LogFormatError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordingError(f"{path}: damaged ({error_text(error)})") from error


def _options(content: dict[str, Any]) -> TurnOptions:
    segmenter = SegmenterOptions(**checked_fields(SegmenterOptions, content.pop("segmenter")))
    content = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    options = TurnOptions(segmenter=segmenter, **checked_fields(TurnOptions, content))
    ConversationConfig.model_validate({name: getattr(options, name) for name in ConversationConfig.model_fields})
    return options


def read_steps(folder: Path) -> Iterator[tuple[Input, Step]]:
    """Every input of a recorded session, in order, and what the turn machine makes of it.

    Raises:
        RecordingError: a line is damaged, or holds what the machine cannot have asked for; with file and line.
    """
    machine = TurnMachine(read_info(folder).options)
    audio, reply = _Sound(folder, "audio"), _Sound(folder, "reply")
    path = folder / "inputs.jsonl"
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    for item in _inputs(parse_line(line), audio, reply):
                        yield item, _push(machine, item)
                except (LogFormatError, EOFError) as error:
                    raise RecordingError(f"{path}, line {number}: {error}") from error
    except FileNotFoundError:
        raise RecordingError(f"{folder}: not a recorded session (no inputs.jsonl)") from None
    finally:
        audio.close()
        reply.close()


def read_event_lines(path: Path) -> Iterator[str]:
    """The canonical lines of an events file."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            yield line.rstrip("\n")


def is_complete(folder: Path) -> bool:
    """Whether a session came to its end, rather than being broken off."""
    last = ""
    for last in read_event_lines(folder / "events.jsonl"):  # noqa: B007 - the last line is what is wanted
        pass
    try:
        return bool(parse_line(last)["type"] == SessionEnded.__name__)
    except LogFormatError:  # torn, or no line at all
        return False


def _push(machine: TurnMachine, item: Input) -> Step:
    """What follows from an input. The machine trusts those it is given, which in a file may be any."""
    try:
        return machine.push(item)
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise LogFormatError(f"this {type(item).__name__} does not fit what comes before it ({reason})") from error


def _inputs(content: dict[str, Any], audio: "_Sound", reply: "_Sound") -> Iterator[Input]:
    if content["type"] == "Audio":
        yield from _frames(content, audio)
        return
    sound = None
    if content["type"] == Voiced.__name__:
        sound = reply.read(whole_number(content, "offset"), whole_number(content, "length"))
    yield input_from(content, sound)


def _frames(content: dict[str, Any], audio: "_Sound") -> Iterator[AudioInput]:
    start = whole_number(content, "start_sample")
    for number, byte in enumerate(unpacked_probabilities(content)):
        place = start + number * FRAME_SAMPLES
        yield AudioInput(place, audio.read_frame(place), probability_from_byte(byte))


class _Sound:
    """One sound file of a session, finalised or not."""

    def __init__(self, folder: Path, name: str) -> None:
        import soundfile

        flac, raw = folder / f"{name}.flac", folder / f"{name}.pcm"
        self._file: Any = None
        self._first = 0
        self._next: int | None = None
        try:
            if flac.exists():
                self._file = soundfile.SoundFile(flac)
            elif raw.exists() and raw.stat().st_size:
                self._file = soundfile.SoundFile(
                    raw, samplerate=SOUNDS[name], channels=1, format="RAW", subtype="PCM_16", endian="LITTLE"
                )
        except soundfile.LibsndfileError as error:
            raise RecordingError(f"{flac}: damaged ({error.error_string})") from error

    def read_frame(self, start_sample: int) -> FloatArray:
        """The next frame; the first one tells where the clock began."""
        if self._next is None:
            self._next = self._first = start_sample
        if start_sample != self._next:
            raise LogFormatError(f"a frame at sample {start_sample}, where {self._next} should follow")
        self._next += FRAME_SAMPLES
        return self.read(start_sample - self._first, FRAME_SAMPLES)

    def read(self, offset: int, length: int) -> FloatArray:
        """Samples at a place; what is missing or damaged raises `EOFError`."""
        import soundfile

        if length == 0:
            return np.zeros(0, dtype=np.float32)
        if self._file is None:
            raise EOFError("its sound is missing")
        try:
            if self._file.tell() != offset:
                self._file.seek(min(offset, self._file.frames))
            pcm = self._file.read(length, dtype="int16")
        except soundfile.LibsndfileError as error:
            raise EOFError(f"its sound is damaged ({error.error_string})") from error
        if len(pcm) < length:
            raise EOFError("its sound ends too early")
        return from_pcm16(pcm)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
