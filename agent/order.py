"""Order: which input comes next.

    ArrivalOrder   a live session: inputs in the order they arrive, stamped with the clock as they do
    VirtualOrder   a file: every result takes effect a fixed number of samples after its request, whatever the
                   machine needed; the file waits for it. So speed 1 and speed max give the same events.

Receives frames, results and commands; gives inputs. Knows nothing of what they mean.
"""

import heapq
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from agent.channel import Channel, ChannelClosed
from agent.core.inputs import (
    AudioInput,
    CancelTurn,
    CommitTurn,
    Decode,
    EncodeSpeech,
    EncodeText,
    Input,
    InputEnded,
    Request,
    Result,
    Speak,
    Think,
)
from audio.frames import SAMPLE_RATE

_INPUTS_WAITING = 64


@dataclass(frozen=True, slots=True)
class VirtualLatency:
    """What a stage takes on the clock of a file's replay, in milliseconds."""

    encode_ms: int = 60
    think_ms: int = 40
    decode_ms: int = 40
    voice_ms: int = 20

    def of(self, request: Request) -> int:
        """In samples."""
        match request:
            case EncodeSpeech() | EncodeText():
                milliseconds = self.encode_ms
            case Think():
                milliseconds = self.think_ms
            case Decode():
                milliseconds = self.decode_ms
            case _:
                milliseconds = self.voice_ms
        return milliseconds * SAMPLE_RATE // 1000


class InputOrder(Protocol):
    """Where the machine's next input comes from."""

    async def frame(self, item: AudioInput) -> None:
        """Takes a frame; waits or drops as the kind of session wants."""
        ...

    async def command(self, item: Any) -> None:
        """Takes anything but frames and results: what the source gave between its frames, or what a user does."""
        ...

    async def input_ended(self) -> None:
        """No more frames and no more commands."""
        ...

    async def result(self, item: Result) -> None:
        """Takes what a stage answered."""
        ...

    def requested(self, request: Request, at_sample: int) -> None:
        """A request went out: a result will come (or, for `CancelTurn`, none of that turn's)."""
        ...

    async def next(self) -> Any:
        """The next input, or what the source gave besides frames; None when nothing will come."""
        ...

    def close(self) -> None:
        """Nobody asks for inputs any more: whoever waits to hand one over stops waiting."""
        ...


class ArrivalOrder:
    """Inputs as they arrive. Frames beyond what fits are dropped at the source, which counts them.

    The clock is the samples received, unless there is no sound to count and another is given.
    """

    def __init__(self, clock: Callable[[], int] | None = None) -> None:
        self._sample = 0
        self._clock = clock or (lambda: self._sample)
        self._inputs: Channel[Any] = Channel(_INPUTS_WAITING, "block")

    async def frame(self, item: AudioInput) -> None:
        """Takes a frame, waiting for room: the microphone's own queue is the one that drops."""
        await self._inputs.send(item)

    async def command(self, item: Any) -> None:
        """Takes text, a setting, a playback position, a client's event: anything but frames and results."""
        await self._inputs.send(item)

    async def input_ended(self) -> None:
        """Lets the machine finish what is under way."""
        await self._inputs.send(InputEnded(self._clock()))

    async def result(self, item: Result) -> None:
        """Takes a result; one that comes when the session is over is dropped."""
        with suppress(ChannelClosed):
            await self._inputs.send(item)

    def requested(self, request: Request, at_sample: int) -> None:
        """Nothing to note: results come when they come."""

    async def next(self) -> Any:
        """The oldest input, stamped with the clock; what is no input has no stamp."""
        try:
            item = await self._inputs.receive()
        except ChannelClosed:
            return None
        if isinstance(item, AudioInput):
            self._sample = item.at_sample
            return item
        if isinstance(item, Input):
            item = replace(item, at_sample=self._clock())  # type: ignore[arg-type]  # mypy mistrusts unions here
        return item

    def close(self) -> None:
        """No more inputs are taken."""
        self._inputs.close()


class VirtualOrder:
    """Inputs by their place on the file's clock. `script` holds commands whose place is known beforehand."""

    def __init__(self, latency: VirtualLatency, script: Iterable[Input] = ()) -> None:
        self._latency = latency
        self._frames: Channel[AudioInput] = Channel(8, "block")
        self._script = sorted(script, key=lambda item: item.at_sample)
        self._due: list[tuple[int, int, Request]] = []
        self._results: dict[int, Channel[Result]] = {}
        self._held: AudioInput | None = None
        self._ended = False
        self._sample = 0

    async def frame(self, item: AudioInput) -> None:
        """Takes a frame, waiting until the machine wants it."""
        await self._frames.send(item)

    async def command(self, item: Any) -> None:
        """A file gives frames and nothing else: what is said besides stands in the script."""
        raise TypeError(f"a file has no {type(item).__name__}")

    async def input_ended(self) -> None:
        """The file is over."""
        self._frames.close()

    async def result(self, item: Result) -> None:
        """Keeps a result until its time has come; one of a cancelled turn is dropped."""
        channel = self._results.get(item.request)
        if channel is not None:
            with suppress(ChannelClosed):
                await channel.send(item)

    def requested(self, request: Request, at_sample: int) -> None:
        """Sets the time at which the (first) result of a request takes effect."""
        if isinstance(request, CancelTurn):
            self._forget(request.turn)
        if isinstance(request, CancelTurn | CommitTurn):
            return
        self._results[request.request] = Channel(64, "block")
        heapq.heappush(self._due, (at_sample + self._latency.of(request), request.request, request))

    def _forget(self, turn: int) -> None:
        for _, number, request in self._due:
            if request.turn == turn:
                self._results.pop(number).close()
        self._due = [entry for entry in self._due if entry[2].turn != turn]
        heapq.heapify(self._due)

    async def next(self) -> Input | None:
        """The input with the earliest place; at the same place: commands, results, frames, the end."""
        await self._hold_frame()
        frame = self._held.at_sample if self._held is not None else None
        command = self._script[0].at_sample if self._script else None
        due = self._due[0][0] if self._due else None
        end = self._sample if frame is None and command is None and not self._ended else None
        if command is not None and _first(command, due, frame):
            self._sample = max(self._sample, command)
            return self._script.pop(0)
        if due is not None and _first(due, frame, end):
            return await self._take_result()
        if self._held is not None:
            item, self._held = self._held, None
            self._sample = item.at_sample
            return item
        if end is not None:
            self._ended = True
            return InputEnded(end)
        return None

    def close(self) -> None:
        """Takes no more frames."""
        self._frames.close()

    async def _hold_frame(self) -> None:
        if self._held is not None or self._ended:
            return
        try:
            self._held = await self._frames.receive()
        except ChannelClosed:
            self._held = None

    async def _take_result(self) -> Input:
        due, number, request = heapq.heappop(self._due)
        result = await self._results[number].receive()
        if result.last:
            del self._results[number]
        else:
            # In the same answer, a next thought takes as long again, the rest of a sentence no time.
            follows = 0 if isinstance(request, Speak) else self._latency.of(request)
            heapq.heappush(self._due, (due + follows, number, request))
        self._sample = max(self._sample, due)
        return replace(result, at_sample=due)


def _first(place: int, *others: int | None) -> bool:
    return all(other is None or place <= other for other in others)
