"""Report: a replay as one HTML file that opens anywhere, without network.

A listener collects what is drawn (waveform, speech probability, segments, when replies sounded and were begun or
interrupted, sound), in memory that does not grow with the recording; `write_report` draws it: inline SVG, embedded
Opus, light and dark.
"""

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np

from agent.core.events import (
    DomainEvent,
    FloatArray,
    ReplyAudio,
    ReplyTruncated,
    Speculated,
    TurnEnded,
    UtteranceTaken,
)
from agent.core.inputs import AudioInput, Input
from agent.errors import OutputError
from agent.metrics import STAGES
from agent.recordings.replay import ReplayResult, ReplayTurn
from audio.frames import SAMPLE_RATE, VOICE_RATE

_COLUMNS = 1600
_MAX_RECORDING_S = 600
_MAX_REPLIES_BYTES = 6_000_000
_MAX_SEGMENTS = 2000
_TEMPLATE = Path(__file__).with_name("report.html")
_LIVE = "(those begun at a pause under them, hollow where speech went on; a line where one was interrupted)"
_STAGE_NAMES = {"encode": "understand", "think": "think", "decode": "say in words", "voice": "voice"}


class _Envelope:
    """The highest value of each stretch of frames; neighbours merge when there are too many."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.frames_each = 1
        self._count = 0

    def add(self, value: float) -> None:
        if self._count % self.frames_each == 0:
            self.values.append(value)
        else:
            self.values[-1] = max(self.values[-1], value)
        self._count += 1
        if len(self.values) > 2 * _COLUMNS:
            pairs = zip(self.values[::2], [*self.values[1::2], 0.0], strict=False)
            self.values = [max(a, b) for a, b in pairs]
            self.frames_each *= 2


class ReportCollector:
    """Gathers what a report shows."""

    def __init__(self) -> None:
        self.levels = _Envelope()
        self.probabilities = _Envelope()
        self.segments: list[tuple[int, int, int]] = []
        self.sounding: list[tuple[int, int, int]] = []
        """When replies sounded, as far as that is known: start, end and turn, on the recording's clock"""
        self.interruptions: list[tuple[int, int]] = []
        """Where speech cut a reply off, and the turn it was the reply to"""
        self.speculations: list[Speculated] = []
        self.replies: dict[int, str] = {}
        self.seconds = 0.0
        self._recording = _Opus(SAMPLE_RATE)
        self._reply: dict[int, list[FloatArray]] = {}
        self._reply_bytes = 0

    async def on_input(self, item: Input) -> None:
        """Takes a frame."""
        if isinstance(item, AudioInput):
            self.levels.add(float(np.abs(item.samples).max()))
            self.probabilities.add(item.probability)
            self.seconds = item.at_sample / SAMPLE_RATE
            if self.seconds <= _MAX_RECORDING_S:
                self._recording.add(item.samples)

    async def on_event(self, event: DomainEvent) -> None:
        """Takes segments and replies."""
        match event:
            case UtteranceTaken() if len(self.segments) < _MAX_SEGMENTS:
                self.segments.append((event.start_sample, event.end_sample, event.turn))
            case ReplyAudio():
                self._reply.setdefault(event.turn, []).append(event.samples)
                self._sound(event)
            case ReplyTruncated() if len(self.interruptions) < _MAX_SEGMENTS:
                self._cut(event)
            case Speculated() if len(self.speculations) < _MAX_SEGMENTS:
                self.speculations.append(event)
            case TurnEnded():
                self._keep_reply(event.turn)
            case _:
                pass

    def _sound(self, event: ReplyAudio) -> None:
        """A reply sounds as soon as it is there and the one before is over."""
        length = len(event.samples) * SAMPLE_RATE // VOICE_RATE
        before = self.sounding[-1] if self.sounding else None
        if before is not None and before[2] == event.turn and before[1] >= event.at_sample:
            self.sounding[-1] = (before[0], before[1] + length, event.turn)
        elif len(self.sounding) < _MAX_SEGMENTS:
            start = max(event.at_sample, before[1] if before is not None else 0)
            self.sounding.append((start, start + length, event.turn))

    def _cut(self, event: ReplyTruncated) -> None:
        now = event.at_sample
        self.interruptions.append((now, event.turn))
        self.sounding = [(start, min(end, now), turn) for start, end, turn in self.sounding if start < now]

    def _keep_reply(self, turn: int) -> None:
        samples = self._reply.pop(turn, [])
        if samples and self._reply_bytes < _MAX_REPLIES_BYTES:
            voice = _Opus(VOICE_RATE)
            voice.add(np.concatenate(samples))
            self.replies[turn] = voice.data_uri()
            self._reply_bytes += len(self.replies[turn])

    def close(self) -> None:
        """Nothing more will come. Safe to repeat, and without a report."""
        self._recording.close()

    def recording(self) -> str:
        """The recording as a data URI; its first ten minutes if it is longer."""
        return self._recording.data_uri()


class _Opus:
    """Sound, compressed as it comes."""

    def __init__(self, rate: int) -> None:
        import soundfile

        self._bytes = io.BytesIO()
        self._file: Any = soundfile.SoundFile(self._bytes, "w", rate, 1, format="OGG", subtype="OPUS")

    def add(self, samples: FloatArray) -> None:
        self._file.write(samples)

    def close(self) -> None:
        self._file.close()

    def data_uri(self) -> str:
        self.close()
        return "data:audio/ogg;base64," + base64.b64encode(self._bytes.getvalue()).decode()


def write_report(path: Path, name: str, result: ReplayResult, collected: ReportCollector) -> None:
    """Writes the file."""
    factor = result.audio_ms / result.wall_ms if result.wall_ms else 0.0
    slots = {
        "title": html.escape(name),
        "facts": html.escape(
            f"{collected.seconds:.1f} s of sound · {len(result.turns)} turns · bundle {result.bundle} · "
            f"{factor:.0f} times as fast as spoken"
        ),
        "timeline": _timeline(collected),
        "recording": collected.recording(),
        "live": _LIVE if collected.speculations or collected.interruptions else "",
        "cut": f"(the first {_MAX_RECORDING_S // 60} minutes)" if collected.seconds > _MAX_RECORDING_S else "",
        "turns": "".join(_turn(turn, collected, result) for turn in result.turns) or "<p>No speech was heard.</p>",
        "warnings": "".join(f'<p class="warning">{html.escape(text)}</p>' for text in result.warnings),
    }
    page = _TEMPLATE.read_text(encoding="utf-8")
    for slot, content in slots.items():
        page = page.replace("{{" + slot + "}}", content)
    try:
        path.write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error


def _timeline(collected: ReportCollector) -> str:
    """Waveform, segments, replies and probability over one axis, as SVG of 1000 by 175."""
    seconds = max(collected.seconds, 0.02)
    peak = max([*collected.levels.values, 0.05])
    levels = [min(1.0, value / peak) for value in collected.levels.values] or [0.0]
    span = len(levels) * collected.levels.frames_each * 0.02 / seconds * 1000
    x = np.linspace(0, span, len(levels))
    top = " ".join(f"{a:.1f},{60 - 50 * v:.1f}" for a, v in zip(x, levels, strict=True))
    bottom = " ".join(f"{a:.1f},{60 + 50 * v:.1f}" for a, v in zip(x[::-1], levels[::-1], strict=True))
    chances = collected.probabilities.values or [0.0]
    line = " ".join(
        f"{a:.1f},{150 - 30 * v:.1f}" for a, v in zip(np.linspace(0, span, len(chances)), chances, strict=True)
    )
    boxes = "".join(_segment(start, end, turn, seconds) for start, end, turn in collected.segments)
    boxes += _lanes(collected, seconds)
    ticks = "".join(_tick(second, seconds) for second in _tick_places(seconds))
    return (
        '<svg viewBox="0 0 1000 175" preserveAspectRatio="none" role="img" '
        'aria-label="waveform, segments, replies and speech probability">'
        f'{boxes}<polygon class="wave" points="{top} {bottom}"/>'
        f'<polyline class="chance" points="{line}"/>{ticks}</svg>'
    )


def _segment(start: int, end: int, turn: int, seconds: float) -> str:
    left = start / SAMPLE_RATE / seconds * 1000
    width = max(1.0, (end - start) / SAMPLE_RATE / seconds * 1000)
    return (
        f'<a href="#turn{turn}"><rect class="segment" x="{left:.1f}" y="2" width="{width:.1f}" height="150">'
        f"<title>turn {turn}: {start / SAMPLE_RATE:.2f}-{end / SAMPLE_RATE:.2f} s</title></rect></a>"
    )


def _lanes(collected: ReportCollector, seconds: float) -> str:
    """When replies sounded, were begun at a pause, and were interrupted."""
    lanes = [
        _bar("sounding", 106, start, end, seconds, f"reply to turn {turn}") for start, end, turn in collected.sounding
    ]
    for event in collected.speculations:
        kind, told = ("used", "and used") if event.used else ("discarded", "and dropped: speech went on")
        title = f"turn {event.turn}: begun at a pause {told}"
        lanes.append(_bar(kind, 114, event.begun_sample, event.at_sample, seconds, title))
    for place, turn in collected.interruptions:
        x = place / SAMPLE_RATE / seconds * 1000
        title = f"<title>{place / SAMPLE_RATE:.2f} s: speech interrupts the reply to turn {turn}</title>"
        lanes.append(f'<line class="interruption" x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="120">{title}</line>')
    return "".join(lanes)


def _bar(kind: str, y: int, start: int, end: int, seconds: float, title: str) -> str:
    left, right = (min(place / SAMPLE_RATE / seconds, 1.0) * 1000 for place in (start, end))
    return (
        f'<rect class="{kind}" x="{left:.1f}" y="{y}" width="{max(right - left, 1.0):.1f}" height="6">'
        f"<title>{title}</title></rect>"
    )


def _tick_places(seconds: float) -> list[float]:
    step = next(s for s in (1, 2, 5, 10, 30, 60, 300, 600, 1800, 3600, 36_000) if seconds / s <= 12 or s == 36_000)
    return [float(place) for place in np.arange(0, seconds, step)]


def _tick(second: float, seconds: float) -> str:
    x = second / seconds * 1000
    label = f"{second:.0f} s" if seconds < 120 else f"{int(second // 60)}:{int(second % 60):02d}"
    return f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="153" y2="158"/><text x="{x:.1f}" y="172">{label}</text>'


def _turn(turn: ReplayTurn, collected: ReportCollector, result: ReplayResult) -> str:
    content = turn.as_json()
    label = "heard, as a paraphrase" if turn.paraphrase else "typed"
    sure = "" if turn.language_probability is None else f", {turn.language_probability * 100:.0f} % sure"
    audio = collected.replies.get(turn.number)
    player = f'<audio controls preload="none" src="{audio}"></audio>' if audio else ""
    status = f' <span class="warning">{turn.status}</span>' if turn.status != "done" else ""
    return (
        f'<article id="turn{turn.number}"><h2>{content["start_ms"] / 1000:.2f}-{content["end_ms"] / 1000:.2f} s'
        f"{status}</h2>"
        f'<p class="label">{label} ({html.escape(turn.language)}{sure})</p><p>{html.escape(turn.heard) or "—"}</p>'
        f'<p class="label">reply ({html.escape(turn.reply_language)})</p>'
        f'<p class="reply">{html.escape(content["reply"]) or "—"}</p>{player}{_latency(turn, result)}</article>'
    )


def _latency(turn: ReplayTurn, result: ReplayResult) -> str:
    """One bar a stage, side by side: all turns on one scale."""
    stages = [stage for stage in STAGES if stage in _STAGE_NAMES]
    totals = [sum(other.latency_ms.get(s) or 0.0 for s in stages) for other in result.turns]
    scale = 1000 / max([*totals, 1.0])
    bars, left = [], 0.0
    for stage in stages:
        spent = turn.latency_ms.get(stage)
        if spent is None:
            continue
        bars.append(
            f'<rect class="{stage}" x="{left:.1f}" y="0" width="{max(spent * scale, 1.5):.1f}" height="14">'
            f"<title>{_STAGE_NAMES[stage]}: {spent:.1f} ms</title></rect>"
        )
        left += spent * scale
    if not bars:
        return ""
    legend = " ".join(
        f'<span><i class="{stage}"></i>{_STAGE_NAMES[stage]} {spent:.0f} ms</span>'
        for stage in stages
        if (spent := turn.latency_ms.get(stage)) is not None
    )
    return (
        '<svg class="latency" viewBox="0 0 1000 14" preserveAspectRatio="none" role="img" aria-label="latency">'
        f'{"".join(bars)}</svg><p class="legend">{legend}</p>'
    )
