"""Session: the whole flow of one conversation, as one function you can read aloud.

    listen → segment → (decide) → understand → think → decode → speak → send

Receives a source of frames (and of what a client says between them), an order of inputs, the core that decides,
the shared model worker and a voice; gives every input, every event and every message to its listeners, in order.
What any of it means is decided by the core, without I/O.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from agent.channel import Channel, ChannelClosed
from agent.core.events import DomainEvent
from agent.core.input_log import quantized_probability
from agent.core.inputs import AudioInput, Input
from agent.core.turn_state import Step
from agent.errors import first_known
from agent.inference.model_worker import ModelWorker
from agent.metrics import Metrics
from agent.order import InputOrder
from agent.stages import Stages
from audio.frames import FRAME_SAMPLES, AudioFrame, on_grid
from audio.vad import VoiceActivityDetector
from audio.voice import Voice

if TYPE_CHECKING:
    from agent.core.kept_core import Outstanding

_FRAMES = 50
_SENT = 256


class Listener(Protocol):
    """Someone who follows a session: a recorder, a screen, a loudspeaker, a client."""

    async def on_input(self, item: Input) -> None:
        """An input took effect."""
        ...

    async def on_event(self, event: DomainEvent) -> None:
        """Something happened."""
        ...


@runtime_checkable
class MessageListener(Protocol):
    """Someone who takes what the core says in its wire's language."""

    async def on_message(self, message: Any) -> None:
        """A message is to be sent."""
        ...


class Core(Protocol):
    """Decides what inputs lead to, without I/O: the turn machine, or one that speaks a wire's language too."""

    @property
    def ended(self) -> bool:
        """Whether the session is over."""
        ...

    @property
    def sample(self) -> int:
        """The clock."""
        ...

    def take(self, item: Any) -> Iterable[Step]:
        """What follows from an input, or from what the source of this core gives besides frames."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What a session works with."""

    worker: ModelWorker
    vad: VoiceActivityDetector
    voice: Voice | None
    metrics: Metrics
    session: int = 0


async def run_session(
    source: AsyncGenerator[Any, None],
    order: InputOrder,
    core: Core,
    parts: Parts,
    listeners: Sequence[Listener],
    outstanding: "Sequence[Outstanding]" = (),
) -> None:
    """Runs one conversation until its input is over and everything is answered. Cancelling is safe.

    Args:
        source: `AudioFrame`s; what else it gives goes to the core in its place between them.
        order: which input comes next.
        core: what inputs lead to.
        parts: what computes.
        listeners: who is told; those that have an `on_message` get the core's messages too.
        outstanding: requests that a core which was restored waits for.
    """
    heard: Channel[Any] = Channel(_FRAMES, "block")
    sent: Channel[Step] = Channel(_SENT, "block")
    stages = Stages(parts.session, parts.worker, parts.voice, parts.metrics, order.result)
    for again in outstanding:
        order.requested(again.request, core.sample)
        stages.ask_again(again.request, again.answered)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_listen(source, heard), name="listen")
            tasks.create_task(_segment(heard, parts.vad, order), name="segment")
            tasks.create_task(_decide(core, order, stages, sent, parts.metrics), name="decide")
            tasks.create_task(stages.understand(), name="understand")
            tasks.create_task(stages.hear(), name="hear")
            tasks.create_task(stages.think(), name="think")
            tasks.create_task(stages.decode(), name="decode")
            tasks.create_task(stages.speak(), name="speak")
            tasks.create_task(_send(sent, listeners), name="send")
    except BaseExceptionGroup as group:
        raise first_known(group) from None
    finally:
        parts.worker.forget(parts.session)


async def _listen(source: AsyncGenerator[Any, None], heard: Channel[Any]) -> None:
    """Frames from wherever they come."""
    try:
        with suppress(ChannelClosed):
            async with aclosing(source):
                async for item in source:
                    await heard.send(item)
    finally:
        heard.close()


async def _segment(heard: Channel[Any], vad: VoiceActivityDetector, order: InputOrder) -> None:
    """Frames → inputs with speech probabilities. What a live source had to drop becomes silence."""
    expected: int | None = None
    with suppress(ChannelClosed):
        async for frame in heard:
            if not isinstance(frame, AudioFrame):
                await order.command(frame)
                continue
            start = frame.start_sample if expected is None else expected
            for gap in range(start, frame.start_sample, FRAME_SAMPLES):
                await order.frame(AudioInput(gap, np.zeros(FRAME_SAMPLES, np.float32), 0.0))
            probability = quantized_probability(vad.probability(frame))
            await order.frame(AudioInput(frame.start_sample, on_grid(frame.samples), probability))
            expected = frame.end_sample
    heard.close()
    with suppress(ChannelClosed):
        await order.input_ended()


async def _decide(
    core: Core,
    order: InputOrder,
    stages: Stages,
    sent: Channel[Step],
    metrics: Metrics,
) -> None:
    """Inputs in order → events for the listeners and requests for the stages."""
    try:
        while not core.ended and (item := await order.next()) is not None:
            for step in core.take(item):
                for event in step.events:
                    metrics.observe(event)
                for request in step.requests:
                    order.requested(request, core.sample)
                    stages.work.give(request)
                await sent.send(step)
    finally:
        order.close()
        stages.work.close()
        sent.close()


async def _send(sent: Channel[Step], listeners: Sequence[Listener]) -> None:
    """Everything that happened, in order, to everyone who listens."""
    tellers = [listener.on_message for listener in listeners if isinstance(listener, MessageListener)]
    async for step in sent:
        if step.item is not None:
            for listener in listeners:
                await listener.on_input(step.item)
        for event in step.events:
            for listener in listeners:
                await listener.on_event(event)
        for message in step.messages:
            for tell in tellers:
                await tell(message)
