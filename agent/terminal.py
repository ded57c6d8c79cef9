"""Terminal: a session drawn as it happens: the level of the sound, what was heard, the reply, the latency.

A listener. On a terminal a last line moves with the sound; elsewhere only finished lines are printed. Knows
nothing of where the sound comes from.
"""

import sys
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from agent.core.events import (
    DomainEvent,
    Heard,
    LanguageIdentified,
    ReplySentence,
    TurnCommitted,
    TurnEnded,
    UserStarted,
    UtteranceTaken,
    Warned,
)
from agent.core.inputs import AudioInput, Input
from agent.metrics import STAGES, Metrics
from audio.frames import SAMPLE_RATE

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

_BLOCKS = " ▁▂▃▄▅▆▇█"
_WIDTH = 56
_FRAMES_PER_COLUMN = 4
_FLOOR_DB = -60.0
_COLOURS = {
    "encode": "blue",
    "think": "magenta",
    "decode": "cyan",
    "voice": "green",
    "first_audio": "white",
}


class Screen:
    """Draws one session. A context manager: leaving it restores the terminal."""

    def __init__(self, metrics: Metrics, console: "Console | None" = None) -> None:
        from rich.console import Console

        self._metrics = metrics

        class Told(Console):
            """Says so when nobody reads any more, where rich would end the process."""

            def on_broken_pipe(self) -> None:
                raise BrokenPipeError

        self._console = console or Told(highlight=False)
        self._live: Live | None = None
        self._levels: deque[tuple[float, bool]] = deque(maxlen=_WIDTH)
        self._energy: list[float] = []
        self._speaking = False
        self._state = "listening"
        self._sample = 0
        self._heard = 0
        self._sure: dict[int, float] = {}
        self._replies: list[ReplySentence] = []

    def __enter__(self) -> "Screen":
        from rich.live import Live

        if self._console.is_terminal:
            self._live = Live(self._line(), console=self._console, refresh_per_second=15, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    async def on_input(self, item: Input) -> None:
        """Moves the level."""
        if not isinstance(item, AudioInput):
            return
        self._sample = item.at_sample
        if self._live is None:
            return
        self._energy.append(float(np.mean(np.square(item.samples))))
        if len(self._energy) == _FRAMES_PER_COLUMN:
            self._levels.append((level(max(self._energy)), self._speaking))
            self._energy.clear()
            self._live.update(self._line())

    async def on_event(self, event: DomainEvent) -> None:
        """Prints what is worth a line."""
        match event:
            case UserStarted():
                self._speaking, self._state = True, "hearing"
            case UtteranceTaken():
                self._speaking = False
            case TurnCommitted():
                self._state = "thinking"
            case LanguageIdentified():
                self._sure[event.turn] = event.probability
            case Heard():
                mark = "≈" if event.paraphrase else "›"
                sure = f" {self._sure[event.turn] * 100:.0f} %" if event.turn in self._sure else ""
                self._print(f"[bold cyan]{mark} heard[/] ([dim]{event.language}{sure}[/])  {_plain(event.text)}")
                self._heard = event.turn
                self._print_replies(event.turn)
            case ReplySentence():
                self._state = "speaking"
                self._replies.append(event)
                if self._heard == event.turn:
                    self._print_replies(event.turn)
            case TurnEnded():
                self._state = "listening"
                self._sure.pop(event.turn, None)
                self._print_replies(event.turn)
                self._print_latency(event)
            case Warned():
                self._print(f"[yellow]! {event.stage}[/]  {_plain(event.message)}")
            case _:
                pass

    def _print(self, markup: str) -> None:
        self._console.print(f"{self._sample / SAMPLE_RATE:6.1f} s  {markup}")

    def _print_replies(self, turn: int) -> None:
        """What was heard is known a little later than the reply, but reads better before it."""
        for event in [reply for reply in self._replies if reply.turn == turn]:
            self._print(f"[bold green]→ reply[/] ([dim]{event.language}[/])  {_plain(event.text)}")
            self._replies.remove(event)

    def _print_latency(self, event: TurnEnded) -> None:
        if event.status != "done":
            self._print(f"[dim]{event.status}[/]")
            return
        times = self._metrics.turn(event.turn)
        parts = [
            f"[{_COLOURS[stage]}]{stage.replace('_', ' ')} {times[stage]:.0f} ms[/]"
            for stage in STAGES
            if times[stage] is not None
        ]
        self._print("[dim]" + "  ".join(parts) + "[/]\n")

    def _line(self) -> "Text":
        from rich.text import Text

        line = Text(f"{self._sample / SAMPLE_RATE:6.1f} s  ")
        for height, speaking in self._levels:
            line.append(_BLOCKS[round(height * (len(_BLOCKS) - 1))], style="green" if speaking else "dim")
        line.append(f"  {self._state}", style="dim")
        return line


def level(energy: float) -> float:
    """Mean square of samples in −1..1 as a height, 0 at −60 dBFS, 1 at full scale."""
    decibels = 10 * np.log10(energy + 1e-12)
    return float(np.clip(1 - decibels / _FLOOR_DB, 0.0, 1.0))


def can_draw() -> bool:
    """Whether a person may be watching."""
    return sys.stdout.isatty()


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
