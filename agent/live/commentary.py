"""Commentary: what the server itself has to say of a session, and what it counts: a listener.

Meter readings and measured latencies for clients that asked for them; turns, stages and speculation for /metrics.
Nothing of it reaches the core.
"""

import math

from agent.core.events import DomainEvent, ReplyEnded, Speculated, TurnEnded
from agent.core.inputs import AudioInput, Input
from agent.live.delivery import Delivery
from agent.live.telemetry import Telemetry
from agent.metrics import Metrics
from agent.realtime.machine import RealtimeMachine
from agent.realtime.noema_events import LatencyMs, NoemaLatency, NoemaMeter
from agent.realtime.server_events import ResponseDone, ServerEvent
from audio.frames import SAMPLE_RATE

_METER_FRAMES = 5


class Commentary:
    """Follows one session."""

    def __init__(self, wire: RealtimeMachine, delivery: Delivery, metrics: Metrics, telemetry: Telemetry) -> None:
        self._wire = wire
        self._delivery = delivery
        self._metrics = metrics
        self._telemetry = telemetry
        self._energy = 0.0
        self._probability = 0.0
        self._frames = 0
        self._replied: int | None = None
        """The turn whose response is just being told as done"""

    async def on_input(self, item: Input) -> None:
        """Reads the meter."""
        noema = self._wire.settings.noema
        if isinstance(item, AudioInput) and noema is not None and noema.meter:
            self._meter(item)

    async def on_event(self, event: DomainEvent) -> None:
        """Counts."""
        match event:
            case ReplyEnded():
                self._replied = event.turn
            case TurnEnded():
                self._count(event)
            case Speculated():
                self._telemetry.speculations.labels(str(event.used).lower()).inc()
            case _:
                pass

    async def on_message(self, message: ServerEvent) -> None:
        """Tells what a reply took, once it is done."""
        turn, noema = self._replied, self._wire.settings.noema
        if not isinstance(message, ResponseDone) or turn is None:
            return
        self._replied = None
        items = message.response.output
        if noema is not None and noema.latency and items:
            self._delivery.own(
                NoemaLatency(
                    response_id=message.response.id,
                    item_id=items[0].id,
                    speculated=self._metrics.was_speculated(turn),
                    ms=LatencyMs(**self._metrics.turn(turn)),
                )
            )

    def _meter(self, item: AudioInput) -> None:
        self._energy += float(item.samples @ item.samples) / len(item.samples)
        self._probability = max(self._probability, item.probability)
        self._frames += 1
        if self._frames == _METER_FRAMES:
            self._delivery.passing(
                NoemaMeter(
                    audio_ms=item.at_sample * 1000 // SAMPLE_RATE,
                    level=round(math.sqrt(self._energy / _METER_FRAMES), 4),
                    probability=round(self._probability, 3),
                )
            )
            self._frames, self._energy, self._probability = 0, 0.0, 0.0

    def _count(self, event: TurnEnded) -> None:
        self._telemetry.turns.labels(event.status).inc()
        for stage, milliseconds in self._metrics.turn(event.turn).items():
            if milliseconds is not None:
                self._telemetry.stages.labels(stage).observe(milliseconds / 1000)
