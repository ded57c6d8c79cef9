"""A conversation with the turn machine: sound and results in, as they would come, events and requests kept."""

from dataclasses import replace
from typing import Any

import numpy as np

from agent.core.events import DomainEvent
from agent.core.inputs import (
    AudioInput,
    CancelTurn,
    CommitTurn,
    Decode,
    Decoded,
    Encoded,
    EncodeSpeech,
    EncodeText,
    Input,
    Request,
    Speak,
    Think,
    Thought,
    Voiced,
)
from agent.core.turn import TurnMachine
from agent.core.turn_options import TurnOptions

DIM = 4
FRAME = 320


class Conversation:
    """A machine, and someone who answers its requests at once, each with one reply sentence."""

    def __init__(self, **options: Any) -> None:
        self.machine = TurnMachine(replace(TurnOptions(), **options))
        self.events: list[DomainEvent] = []
        self.requests: list[Request] = []
        self.waiting: list[Request] = []
        self.answers = True
        self.spoken = "eng"
        self.sample = 0

    def push(self, item: Input) -> None:
        step = self.machine.push(item)
        self.events += step.events
        self.requests += step.requests
        for request in step.requests:
            if isinstance(request, CancelTurn):
                self.waiting = [r for r in self.waiting if r.turn != request.turn]
            elif not isinstance(request, CommitTurn):
                self.waiting.append(request)
        if self.answers:
            self.catch_up()

    def take(self, request: Request) -> None:
        """What the request asks for comes back."""
        self.waiting = [r for r in self.waiting if r is not request]
        for answer in self.answer(request):
            self.push(answer)

    def catch_up(self) -> None:
        """Whatever waits is answered, and so what follows from it."""
        while self.answers and self.waiting:
            self.take(self.waiting[0])

    def answer(self, request: Request) -> list[Input]:
        at, concept = self.sample, np.ones(DIM, np.float32)
        match request:
            case EncodeSpeech(number, turn, piece):
                found = (self.spoken, 0.9) if request.candidates else (None, None)
                return [Encoded(at, number, turn, piece, concept[None], None, True, *found)]
            case EncodeText(number, turn, piece, text):
                return [Encoded(at, number, turn, piece, concept[None], (text,))]
            case Think(number, turn):
                return [
                    Thought(at, number, turn, concept, None, last=False),
                    Thought(at, number, turn, None, None, last=True),
                ]
            case Decode(number, turn, index):
                return [Decoded(at, number, turn, index, "words" if index is None else f"sentence {index}")]
            case Speak(number, turn, index):
                return [
                    Voiced(at, number, turn, index, np.full(2400, 0.1, np.float32), last=False),
                    Voiced(at, number, turn, index, np.zeros(0, np.float32), last=True),
                ]
            case _:
                return []

    def sound(self, seconds: float, *, speech: bool) -> None:
        rng = np.random.default_rng(self.sample)
        for _ in range(round(seconds * 50)):
            samples = rng.normal(0, 0.1 if speech else 0.001, FRAME).astype(np.float32)
            item = AudioInput(self.sample, samples, 1.0 if speech else 0.0)
            self.sample = item.at_sample
            self.push(item)

    def say(self, seconds: float = 1.0) -> None:
        self.sound(seconds, speech=True)
        self.sound(0.6, speech=False)

    def of(self, kind: type) -> list[Any]:
        return [item for item in [*self.events, *self.requests] if isinstance(item, kind)]
