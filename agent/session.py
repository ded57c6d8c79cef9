"""Session: the whole flow of one conversation, as one function you can read aloud.

    listen → segment → (decide) → understand → think → decode → speak → send

Receives a source of frames, an order of inputs, the shared model worker and a voice; gives every input and
every event to its listeners, in order. What any of it means is decided by the turn machine, without I/O.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from agent.channel import Channel, ChannelClosed
from agent.errors import first_known
from agent.events import DomainEvent, TurnCommitted
from agent.input_log import quantized_probability
from agent.inputs import AudioInput, Input
from agent.metrics import Metrics
from agent.model_worker import ModelWorker
from agent.order import InputOrder
from agent.stages import Stages
from agent.turn import TurnMachine
from agent.turn_options import TurnOptions
from audio.frames import FRAME_SAMPLES, AudioFrame, on_grid
from audio.vad import VoiceActivityDetector
from audio.voice import Voice

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


@dataclass(frozen=True, slots=True)
class Parts:
    """What a session works with."""

    worker: ModelWorker
    vad: VoiceActivityDetector
    voice: Voice | None
    metrics: Metrics
    session: int = 0


async def run_session(
    source: AsyncGenerator[AudioFrame, None],
    order: InputOrder,
    options: TurnOptions,
    parts: Parts,
    listeners: Sequence[Listener],
) -> None:
    """Runs one conversation until its input is over and everything is answered. Cancelling is safe."""
    frames: Channel[AudioFrame] = Channel(_FRAMES, "block")
    sent: Channel[Input | DomainEvent] = Channel(_SENT, "block")
    machine = TurnMachine(options)
    stages = Stages(parts.session, parts.worker, parts.voice, parts.metrics, order.result)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_listen(source, frames), name="listen")
            tasks.create_task(_segment(frames, parts.vad, order), name="segment")
            tasks.create_task(_decide(machine, order, stages, sent, parts.metrics), name="decide")
            tasks.create_task(stages.understand(), name="understand")
            tasks.create_task(stages.hear(), name="hear")
            tasks.create_task(stages.think(), name="think")
            tasks.create_task(stages.decode(), name="decode")
            tasks.create_task(stages.speak(), name="speak")
            tasks.create_task(_send(sent, listeners), name="send")
    except BaseExceptionGroup as group:
        raise first_known(group) from None


async def _listen(source: AsyncGenerator[AudioFrame, None], frames: Channel[AudioFrame]) -> None:
    """Frames from wherever they come."""
    try:
        with suppress(ChannelClosed):
            async with aclosing(source):
                async for frame in source:
                    await frames.send(frame)
    finally:
        frames.close()


async def _segment(frames: Channel[AudioFrame], vad: VoiceActivityDetector, order: InputOrder) -> None:
    """Frames → inputs with speech probabilities. What a live source had to drop becomes silence."""
    expected: int | None = None
    with suppress(ChannelClosed):
        async for frame in frames:
            start = frame.start_sample if expected is None else expected
            for gap in range(start, frame.start_sample, FRAME_SAMPLES):
                await order.frame(AudioInput(gap, np.zeros(FRAME_SAMPLES, np.float32), 0.0))
            probability = quantized_probability(vad.probability(frame))
            await order.frame(AudioInput(frame.start_sample, on_grid(frame.samples), probability))
            expected = frame.end_sample
    frames.close()
    with suppress(ChannelClosed):
        await order.input_ended()


async def _decide(
    machine: TurnMachine,
    order: InputOrder,
    stages: Stages,
    sent: Channel[Input | DomainEvent],
    metrics: Metrics,
) -> None:
    """Inputs in order → events for the listeners and requests for the stages."""
    try:
        while not machine.ended and (item := await order.next()) is not None:
            step = machine.push(item)
            for event in step.events:
                if isinstance(event, TurnCommitted):
                    metrics.committed(event.turn)
            for request in step.requests:
                order.requested(request, machine.sample)
                stages.work.give(request)
            await sent.send(item)
            for event in step.events:
                await sent.send(event)
    finally:
        order.close()
        stages.work.close()
        sent.close()


async def _send(sent: Channel[Input | DomainEvent], listeners: Sequence[Listener]) -> None:
    """Everything that happened, in order, to everyone who listens."""
    async for item in sent:
        if isinstance(item, DomainEvent):
            for listener in listeners:
                await listener.on_event(item)
        else:
            for listener in listeners:
                await listener.on_input(item)
