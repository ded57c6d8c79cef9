"""Scoreboard of the echo guard: calls in which the client sends the reply back, with and without somebody who cuts in.

Receives replies of the voice, recordings of people and of noises; puts them into simulated rooms. Gives how often an
echo alone would have interrupted its own reply, and how much later somebody real is noticed than if there were no
echo. Who the people are, and that nobody was tuned on whom this reports, is the caller's business.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audio.echo import EchoGuard
from audio.echo_room import EchoRoom, convolve, impulse_response, random_room
from audio.frames import SAMPLE_RATE, VOICE_RATE, AudioFrame, FloatArray, Framer, on_grid
from audio.resample import resample
from audio.segmenter import Segmenter, SegmenterOptions, SpeechStarted
from audio.telephony import AudioDecoder, AudioEncoder
from audio.vad import SileroVad

BARGE_IN_MS = 400
"""Speech it takes while a reply sounds"""
IN_TIME_MS = 200
"""What the guard may add to it"""
LEVELS_DB = ((-5, 0), (0, 5), (5, 15))
"""Somebody against the echo"""
_AFTER_MS = 900
"""So long after an echo's end, speech is blamed on it"""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """Two replies, and somebody who speaks into one of them."""

    room: EchoRoom
    replies: list[tuple[int, FloatArray]]
    """When each is given out, 16 kHz; its samples, 24 kHz"""
    echo: FloatArray  # [T], 16 kHz, like all sound of the microphone
    barge_in: FloatArray  # [T]
    """Echo and somebody"""
    alone: FloatArray  # [T]
    """Somebody without an echo"""
    speaks_at: int
    level_db: float
    """Of somebody against the echo"""
    into_first: bool


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of one call."""

    call: Call
    unguarded: list[bool]
    """For each reply, whether its echo interrupts it"""
    guarded: list[bool]
    late_ms: float | None
    """Somebody over the echo, against somebody alone and unguarded; None: not even heard then"""
    late_alone_ms: float | None


def echo_scoreboard(
    replies: Sequence[FloatArray], people: Sequence[FloatArray], noises: dict[str, FloatArray], seed: int = 0
) -> dict[str, Any]:
    """Measures as many calls as there are people; shares are per cent.

    Args:
        replies: two for each of the people, 24 kHz  # [T] each
        people: speech of a second or more, 16 kHz  # [T] each
        noises: of the household; those of `STEADY` go on in a quarter of the calls, the others make calls of their own
        seed: of the rooms and of when and how loudly people speak
    """
    chance = np.random.default_rng(seed)
    steady = {name: noise for name, noise in noises.items() if name in STEADY}
    clatter = {name: noise for name, noise in noises.items() if name not in STEADY}
    cpu = _Stopwatch()
    pairs = list(zip(replies[::2], replies[1::2], people, strict=False))
    outcomes = [
        _outcome(make_call(first, second, person, steady if number % 4 == _NOISY else {}, chance, number), cpu)
        for number, (first, second, person) in enumerate(pairs)
    ]
    among_clatter = [
        _outcome(make_call(first, second, person, clatter, chance, number), cpu)
        for number, (first, second, person) in enumerate(pairs[:: len(STEADY) + 1] if clatter else [])
    ]
    return {
        "calls": len(outcomes),
        "echo_alone": _false_alarms(outcomes),
        "echo_among_clatter": _false_alarms(among_clatter),
        "barge_in": _noticed(outcomes, [outcome.late_ms for outcome in outcomes])
        | {
            f"{low}..{high} dB": _noticed(chosen, [outcome.late_ms for outcome in chosen])
            for low, high in LEVELS_DB
            if (chosen := [outcome for outcome in outcomes if low <= outcome.call.level_db < high])
        },
        "without_echo": _noticed(outcomes, [outcome.late_alone_ms for outcome in outcomes]),
        "cpu_us_per_frame": round(cpu.seconds / max(1, cpu.frames) * 1e6, 1),
    }


def format_scoreboard(board: dict[str, Any]) -> str:
    """The scoreboard for people."""
    lines = [f"{'replies interrupted by their echo, %':40}{'unguarded':>10}{'guarded':>10}{'first':>8}{'later':>8}"]
    for name in ("echo_alone", "echo_among_clatter"):
        row = board[name]
        if row["replies"]:
            figures = f"{row['unguarded']:10.1f}{row['guarded']:10.1f}{row['first']:8.1f}{row['later']:8.1f}"
            lines.append(f"{name:40}{figures}")
    lines.append(f"{'people noticed':40}{'count':>10}{'in time %':>10}{'p50 ms':>8}{'p95 ms':>8}")
    groups = {"over an echo": board["barge_in"], "without an echo": board["without_echo"]}
    groups |= {name: row for name, row in board["barge_in"].items() if isinstance(row, dict)}
    for name, row in groups.items():
        p95 = "never" if row["late_p95_ms"] is None else f"{row['late_p95_ms']:.0f}"
        lines.append(f"{name:40}{row['count']:10}{row['in_time']:10.1f}{row['late_p50_ms']:8.0f}{p95:>8}")
    lines.append(f"{board['cpu_us_per_frame']} µs a frame")
    return "\n".join(lines)


def make_call(
    first: FloatArray,
    second: FloatArray,
    person: FloatArray,
    noises: dict[str, FloatArray],
    chance: np.random.Generator,
    number: int,
) -> Call:
    """One call; every second person cuts into the first reply, of which nothing is known yet."""
    room = random_room(chance)
    second_at = SAMPLE_RATE + _at_16k(first) + int(chance.uniform(1.2, 2.5) * SAMPLE_RATE)
    length = second_at + _at_16k(second) + 2 * SAMPLE_RATE
    replies = [(SAMPLE_RATE, first), (second_at, second)]
    echo = room.hear(replies, length)
    into_first = number % 2 == 0
    given_at, reply = replies[not into_first]
    latest_s = min(3.0, _at_16k(reply) / SAMPLE_RATE - 1)
    hears_s = room.delay_ms / 1000 + chance.uniform(0.2, max(0.3, latest_s))
    speaks_at = min(given_at + int(hears_s * SAMPLE_RATE), length - 2 * SAMPLE_RATE)
    level_db = chance.uniform(LEVELS_DB[0][0], LEVELS_DB[-1][1])
    spoken = _in_a_room(person, chance) * (_loudness(echo) * 10 ** (level_db / 20))
    voice = np.zeros(length, dtype=np.float32)
    voice[speaks_at : speaks_at + len(spoken)] = spoken[: length - speaks_at]
    silence = _background(noises, length, _loudness(echo), chance)
    telephone = chance.random() < _ON_THE_TELEPHONE
    return Call(
        room=room,
        replies=replies,
        echo=_over_the_wire(echo + silence, telephone),
        barge_in=_over_the_wire(echo + voice + silence, telephone),
        alone=_over_the_wire(voice + silence, telephone),
        speaks_at=speaks_at,
        level_db=level_db,
        into_first=into_first,
    )


class _Stopwatch:
    """Processor time of the guard alone."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.frames = 0

    def time(self, judge: Callable[[AudioFrame], float], frame: AudioFrame) -> float:
        began = time.process_time()
        factor = judge(frame)
        self.seconds += time.process_time() - began
        self.frames += 1
        return factor


def _outcome(call: Call, cpu: _Stopwatch) -> _Outcome:
    frames = {kind: list(Framer().push(on_grid(getattr(call, kind)))) for kind in ("echo", "barge_in", "alone")}
    speech = {kind: _probabilities(heard) for kind, heard in frames.items()}
    guarded = {kind: speech[kind] * _factors(call, heard, cpu) for kind, heard in frames.items()}
    expected = _first_after(_starts(call, speech["alone"]), call.speaks_at)
    late: list[float | None] = []
    for kind in ("barge_in", "alone"):
        noticed = _first_after(_starts(call, guarded[kind]), call.speaks_at)
        late.append(None if expected is None else np.inf if noticed is None else (noticed - expected) / _SAMPLES_PER_MS)
    return _Outcome(call, _alarms(call, speech["echo"]), _alarms(call, guarded["echo"]), *late)


def _probabilities(frames: list[AudioFrame]) -> FloatArray:  # [frames]
    detector = SileroVad()
    return np.array([detector.probability(frame) for frame in frames], dtype=np.float32)


def _factors(call: Call, frames: list[AudioFrame], cpu: _Stopwatch) -> FloatArray:  # [frames]
    guard = EchoGuard()
    waiting = list(call.replies)
    factors = []
    for frame in frames:
        while waiting and waiting[0][0] <= frame.start_sample:
            guard.give(waiting.pop(0)[1])
        factors.append(cpu.time(guard.factor, frame))
    return np.array(factors, dtype=np.float32)


def _starts(call: Call, probabilities: FloatArray) -> list[int]:
    """When speech is confirmed, as in a session that is not told what is heard."""
    segmenter = Segmenter(SegmenterOptions())
    spans = [(given_at, given_at + _at_16k(reply)) for given_at, reply in call.replies]
    starts = []
    for frame, probability in zip(Framer().push(np.zeros_like(call.echo)), probabilities, strict=True):
        sounding = any(start <= frame.start_sample < end for start, end in spans)
        events = segmenter.push(frame, float(probability), min_speech_ms=BARGE_IN_MS if sounding else None)
        starts += [event.at_sample for event in events if isinstance(event, SpeechStarted)]
    return starts


def _alarms(call: Call, probabilities: FloatArray) -> list[bool]:
    starts = _starts(call, probabilities)
    after = round((call.room.delay_ms + call.room.jitter_ms + call.room.stall_ms + _AFTER_MS) * _SAMPLES_PER_MS)
    return [any(at <= start < at + _at_16k(reply) + after for start in starts) for at, reply in call.replies]


def _first_after(starts: Iterable[int], sample: int) -> int | None:
    return next((start for start in starts if start > sample), None)


def _false_alarms(outcomes: list[_Outcome]) -> dict[str, Any]:
    guarded = np.array([outcome.guarded for outcome in outcomes]).reshape(-1, 2)
    stalling = np.array([outcome.call.room.stall_ms > 0 for outcome in outcomes], dtype=np.bool_)
    return {
        "replies": guarded.size,
        "unguarded": _percent(np.array([outcome.unguarded for outcome in outcomes])),
        "guarded": _percent(guarded),
        "first": _percent(guarded[:, 0]),
        "later": _percent(guarded[:, 1]),
        "stalling": _percent(guarded[stalling]),
    }


def _noticed(outcomes: list[_Outcome], late_ms: list[float | None]) -> dict[str, Any]:
    late = np.array([lateness for lateness in late_ms if lateness is not None])
    first = np.array([o.call.into_first for o, ms in zip(outcomes, late_ms, strict=True) if ms is not None], dtype=bool)
    p50, p95 = (float(np.sort(late)[min(int(share * len(late)), len(late) - 1)]) for share in (0.5, 0.95))
    return {
        "count": len(late),
        "in_time": _percent(late <= IN_TIME_MS),
        "in_time_first": _percent(late[first] <= IN_TIME_MS),
        "in_time_later": _percent(late[~first] <= IN_TIME_MS),
        "late_p50_ms": round(p50),
        "late_p95_ms": round(p95) if np.isfinite(p95) else None,
    }


def _percent(hits: Any) -> float:
    return round(100 * float(np.mean(hits)), 1) if np.size(hits) else 0.0


def _background(
    noises: dict[str, FloatArray], length: int, loudness: float, chance: np.random.Generator
) -> FloatArray:  # [length]
    """A microphone's own noise, and one of the household's, 10 to 20 dB below the echo."""
    noise = chance.standard_normal(length) * 10 ** (chance.uniform(-75, -50) / 20)
    if noises:
        chosen = noises[sorted(noises)[int(chance.integers(len(noises)))]]
        going_on = np.resize(np.roll(chosen, -int(chance.integers(len(chosen)))), length)
        noise += going_on / _loudness(chosen) * (loudness * 10 ** (-chance.uniform(10, 20) / 20))
    return noise.astype(np.float32)


def _in_a_room(person: FloatArray, chance: np.random.Generator) -> FloatArray:
    """Somebody near the microphone, of loudness 1."""
    response = impulse_response(chance.uniform(0.15, 0.4), chance.uniform(3, 12), chance)
    heard = convolve(person.astype(np.float64), response).astype(np.float32)
    return heard / np.float32(_loudness(heard))


def _over_the_wire(samples: FloatArray, telephone: bool) -> FloatArray:
    """As the session gets it: clipped, and by a part of the clients in G.711."""
    clipped = np.clip(samples, -1, 1).astype(np.float32)
    if not telephone:
        return clipped
    encoder, decoder = AudioEncoder("audio/pcmu"), AudioDecoder("audio/pcmu")
    content = encoder.push(resample(clipped, SAMPLE_RATE, VOICE_RATE)) + encoder.flush()
    return np.concatenate([decoder.push(content), decoder.flush()])[: len(samples)]


def _loudness(samples: FloatArray) -> float:
    """Root mean square of what is not silence."""
    power = np.square(samples[: len(samples) // 320 * 320].reshape(-1, 320), dtype=np.float64).mean(axis=1)
    return float(np.sqrt(power[power > 1e-3 * power.max()].mean()))


def _at_16k(reply: FloatArray) -> int:
    return len(reply) * SAMPLE_RATE // VOICE_RATE


STEADY = ("exercise_bike", "running_tap")
_NOISY = 3
_ON_THE_TELEPHONE = 0.15
_SAMPLES_PER_MS = SAMPLE_RATE // 1000
