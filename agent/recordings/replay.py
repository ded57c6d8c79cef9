"""Replay: a recording through the agent, and what came of it.

    a file               runs with a fixed virtual latency per stage: speed 1 and max give the same events
    a recorded session   runs from its input log and gives every event bit for bit, without any model
    --recompute          the models answer the recorded requests again; the first difference is reported

Receives paths and the parts of a session, gives turns and differences. Knows nothing of terminals.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from agent.core.events import (
    DomainEvent,
    FloatArray,
    Heard,
    LanguageIdentified,
    ReplyAudio,
    ReplySentence,
    TurnCommitted,
    TurnEnded,
    UtteranceTaken,
    Warned,
)
from agent.core.input_log import event_line
from agent.core.inputs import (
    AudioInput,
    CancelTurn,
    Decoded,
    Encoded,
    Input,
    ModelRequest,
    Request,
    Think,
    Thought,
    WorkFailed,
)
from agent.core.turn import TurnMachine
from agent.core.turn_options import TurnOptions
from agent.errors import Difference, OutputError, first_known
from agent.inference.model_worker import ModelWorker
from agent.inference.models import EncodedText
from agent.metrics import Metrics, peak_rss_mb
from agent.order import VirtualLatency, VirtualOrder
from agent.recordings.recorded import read_steps
from agent.session import Listener, Parts, run_session
from audio.files import write_audio
from audio.frames import SAMPLE_RATE, VOICE_RATE
from audio.source import file_source

_COSINE_FLOOR = 0.9999


@dataclass(slots=True)
class ReplayTurn:
    """One turn of a replay."""

    number: int
    start_sample: int = 0
    end_sample: int = 0
    heard: str = ""
    paraphrase: bool = True
    sentences: list[str] = field(default_factory=list)
    language: str = ""
    language_probability: float | None = None
    """Where the language was found out"""
    reply_language: str = ""
    reply_audio: str | None = None
    reply_seconds: float = 0.0
    status: str = ""
    latency_ms: dict[str, float | None] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As `noema replay --json` prints it."""
        return {
            "start_ms": self.start_sample * 1000 // SAMPLE_RATE,
            "end_ms": self.end_sample * 1000 // SAMPLE_RATE,
            "heard": self.heard,
            "language": self.language,
            "language_probability": self.language_probability,
            "reply": " ".join(self.sentences),
            "reply_language": self.reply_language,
            "reply_audio": self.reply_audio,
            "latency_ms": self.latency_ms,
        }


@dataclass(slots=True)
class ReplayResult:
    """What came of a replay."""

    bundle: str
    turns: list[ReplayTurn] = field(default_factory=list)
    audio_ms: float = 0.0
    wall_ms: float = 0.0
    warnings: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether a turn stayed without its answer because something went wrong."""
        return any(turn.status == "failed" for turn in self.turns)

    def as_json(self) -> dict[str, Any]:
        """One object, as `noema replay --json` prints it."""
        return {
            "turns": [turn.as_json() for turn in self.turns],
            "audio_ms": round(self.audio_ms),
            "wall_ms": round(self.wall_ms, 1),
            "bundle": self.bundle,
            "peak_rss_mb": peak_rss_mb(),
        }


class TurnCollector:
    """A listener that gathers turns, and writes each one's reply audio when it ends."""

    def __init__(self, result: ReplayResult, metrics: Metrics, audio_stem: Path | None = None) -> None:
        self._result = result
        self._metrics = metrics
        self._audio_stem = audio_stem
        self._turns: dict[int, ReplayTurn] = {}
        self._audio: dict[int, list[FloatArray]] = {}

    async def on_input(self, item: Input) -> None:
        """Counts the sound that came in."""
        if isinstance(item, AudioInput):
            self._result.audio_ms = item.at_sample * 1000 / SAMPLE_RATE

    async def on_event(self, event: DomainEvent) -> None:
        """Notes what belongs to a turn."""
        match event:
            case UtteranceTaken():
                turn = self._turns.setdefault(event.turn, ReplayTurn(event.turn, event.start_sample))
                turn.end_sample = event.end_sample
            case TurnCommitted():
                turn = self._turns.setdefault(event.turn, ReplayTurn(event.turn, event.at_sample, event.at_sample))
                turn.language, turn.reply_language = event.language, event.reply_language
            case LanguageIdentified():
                turn = self._turns[event.turn]
                turn.language, turn.reply_language = event.language, event.reply_language
                turn.language_probability = event.probability
            case Heard():
                self._turns[event.turn].heard = event.text
                self._turns[event.turn].paraphrase = event.paraphrase
            case ReplySentence():
                self._turns[event.turn].sentences.append(event.text)
            case ReplyAudio():
                self._turns[event.turn].reply_seconds += len(event.samples) / VOICE_RATE
                if self._audio_stem is not None:
                    self._audio.setdefault(event.turn, []).append(event.samples)
            case TurnEnded():
                self._end(event)
            case Warned():
                self._result.warnings.append(f"{event.stage}: {event.message}")
            case _:
                pass

    def _end(self, event: TurnEnded) -> None:
        turn = self._turns.pop(event.turn)
        turn.status = event.status
        turn.latency_ms = self._metrics.turn(event.turn)
        audio = self._audio.pop(event.turn, [])
        if audio and self._audio_stem is not None:
            path = self._audio_stem.with_name(f"{self._audio_stem.name}.turn{event.turn:03d}.wav")
            write_audio(path, np.concatenate(audio), VOICE_RATE)
            turn.reply_audio = str(path)
        self._result.turns.append(turn)


class EventWriter:
    """A listener that writes events as canonical lines."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error

    async def on_input(self, item: Input) -> None:
        """Inputs are not events."""

    async def on_event(self, event: DomainEvent) -> None:
        """Writes one line."""
        self._file.write(event_line(event) + "\n")

    def close(self) -> None:
        """Everything is on disk."""
        self._file.close()


class EventComparer:
    """A listener that compares events with the lines they should be, as they come."""

    def __init__(self, expected: Iterator[str], name: str, *, complete: bool = True) -> None:
        self._expected = expected
        self.name = name
        self._complete = complete
        self._count = 0
        self._ran_out = False

    async def on_input(self, item: Input) -> None:
        """Inputs are not compared."""

    async def on_event(self, event: DomainEvent) -> None:
        """Raises `Difference` at the first event that is not the expected one."""
        if self._ran_out:
            return
        self._count += 1
        line, expected = event_line(event), next(self._expected, None)
        if expected is None and not self._complete:
            self._ran_out = True  # the recording was torn off here
            return
        if line != expected:
            raise Difference(f"event {self._count} differs from {self.name}: {_short(expected)} became {_short(line)}")

    def finish(self) -> int:
        """How many events were equal; raises `Difference` if more were expected."""
        missing = None if self._ran_out else next(self._expected, None)
        if missing is not None:
            raise Difference(f"{self.name} has more events; after {self._count} it expects {_short(missing)}")
        return self._count


async def replay_file(
    path: Path,
    *,
    speed: float | None,
    options: TurnOptions,
    latency: VirtualLatency,
    parts: Parts,
    listeners: Sequence[Listener] = (),
    result: ReplayResult,
    script: Sequence[Input] = (),
) -> ReplayResult:
    """Plays a sound file to the agent. Cancelling is safe."""
    source = file_source(path, speed)
    order = VirtualOrder(latency, script)
    start = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as tasks:
            lag = tasks.create_task(parts.metrics.watch_loop(), name="loop-lag")
            try:
                await run_session(source, order, TurnMachine(options), parts, listeners)
            finally:
                lag.cancel()
    except BaseExceptionGroup as group:
        raise first_known(group) from None
    result.wall_ms = (time.perf_counter() - start) * 1000
    return result


async def replay_session(
    folder: Path,
    *,
    speed: float | None,
    listeners: Sequence[Listener],
    recomputer: "Recomputer | None" = None,
) -> None:
    """Runs a recorded session from its input log. Needs no model, no voice and no detector."""
    pace = _Pace(speed)
    for item, step in read_steps(folder):
        await pace.until(item.at_sample)
        if recomputer is not None:
            await recomputer.compare(item)
        for listener in listeners:
            await listener.on_input(item)
            for event in step.events:
                await listener.on_event(event)
        if recomputer is not None:
            recomputer.requested(step.requests)


class Recomputer:
    """Answers recorded requests anew and compares: words equal, concepts alike."""

    def __init__(self, worker: ModelWorker) -> None:
        self._worker = worker
        self._open: dict[int, tuple[int, AsyncGenerator[Any, None]]] = {}
        self.compared = 0
        self.lowest_cosine = 1.0

    def check_space(self, space_id: str) -> None:
        """Raises `Difference` if the session was recorded in another space: nothing in it could be equal."""
        here = self._worker.models.space.space_id
        if here != space_id:
            raise Difference(f"recorded in space {space_id}, this bundle holds {here}; give --bundle with the old one")

    def requested(self, requests: Sequence[Request]) -> None:
        """Notes requests; each is computed when its recorded answer comes up. Those of a cancelled turn never are."""
        for request in requests:
            if isinstance(request, CancelTurn):
                self._open = {n: (turn, answers) for n, (turn, answers) in self._open.items() if turn != request.turn}
            elif isinstance(request, Think) and self._worker.models.remote(request.task) is not None:
                continue  # nobody can compute again what somebody else said
            elif isinstance(request, ModelRequest):
                self._open[request.request] = (request.turn, self._answers(request))

    async def _answers(self, request: ModelRequest) -> AsyncGenerator[Any, None]:
        job = self._worker.submit(0, request)
        async for answer in job.answers():
            yield answer.value

    async def compare(self, item: Input) -> None:
        """Compares a recorded result with a computed one; raises `Difference` at the first that differs."""
        if not isinstance(item, Encoded | Thought | Decoded) or item.request not in self._open:
            if isinstance(item, WorkFailed):
                self._open.pop(item.request, None)
            return
        value = await anext(self._open[item.request][1], None)
        if item.last:
            await self._open.pop(item.request)[1].aclose()
        if isinstance(item, Thought) and item.last:
            self._same(item, "the end of thinking", same=value is None)
            return
        if value is None:
            self._same(item, "no answer any more", same=False)
            return
        self.compared += 1
        match item:
            case Encoded():
                self._alike(item, item.concepts, value.concepts)
                if isinstance(value, EncodedText):
                    self._same(item, "the sentences", same=item.texts == value.texts)
                else:
                    told = f"the language {item.language} (now {value.language})"
                    self._same(item, told, same=item.language == value.language)
            case Thought():
                if item.concept is not None:
                    self._alike(item, item.concept[None], value.concept[None])
                self._same(item, f"«{item.text}» (now «{value.text}»)", same=item.text == value.text)
            case Decoded():
                self._same(item, f"«{item.text}» (now «{value}»)", same=item.text == value)

    def _alike(self, item: Encoded | Thought, recorded: FloatArray, computed: FloatArray) -> None:
        self._same(item, "the number of concepts", same=recorded.shape == computed.shape)
        for a, b in zip_longest(recorded, computed):
            cosine = float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-12))
            self.lowest_cosine = min(self.lowest_cosine, cosine)
            self._same(item, f"a concept (cosine {cosine:.6f})", same=cosine >= _COSINE_FLOOR)

    @staticmethod
    def _same(item: Encoded | Thought | Decoded, what: str, *, same: bool) -> None:
        if not same:
            seconds = item.at_sample / SAMPLE_RATE
            raise Difference(f"recomputing differs at {seconds:.2f} s, turn {item.turn}: {type(item).__name__}, {what}")


class _Pace:
    """Holds a replay back to a multiple of real time; without a speed, only lets other tasks run."""

    _YIELD_EVERY = 64

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._began = time.perf_counter()
        self._count = 0

    async def until(self, sample: int) -> None:
        self._count += 1
        if self._speed is not None:
            wait = sample / SAMPLE_RATE / self._speed - (time.perf_counter() - self._began)
            if wait > 0:
                await asyncio.sleep(wait)
        elif self._count % self._YIELD_EVERY == 0:
            await asyncio.sleep(0)


def _short(line: str | None) -> str:
    if line is None:
        return "nothing more"
    return line if len(line) <= 160 else line[:157] + "..."
