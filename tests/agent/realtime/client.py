"""A client of the protocol, a core, and someone who answers its requests: no socket in between.

Every message is read as OpenAI's own package reads it, and as ours does; whatever it says goes into `got`.
"""

import json
from dataclasses import replace
from typing import Any

import numpy as np
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

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
    Result,
    Speak,
    Think,
    Thought,
    Voiced,
    WorkFailed,
)
from agent.core.turn import TurnMachine
from agent.core.turn_options import TurnOptions
from agent.realtime.core import RealtimeCore
from agent.realtime.defaults import KnownLanguages, SessionDefaults
from agent.realtime.machine import RealtimeMachine
from agent.realtime.messages import parse_client_event, parse_server_event, to_json

DIM = 4
FRAME = 320
LANGUAGES = KnownLanguages(
    ("eng", "fra", "spa", "deu", "fin"), ("eng", "fra", "spa", "deu"), {"en": "eng", "fr": "fra", "de": "deu"}
)
DEFAULTS = SessionDefaults(LANGUAGES, voices=("f1", "m3"), space_id="abc", dim=DIM)
OPTIONS = TurnOptions(interruptible=True, assume_playback=True)
_OPENAI: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


class Client:
    """Talks to a core, and keeps what it says."""

    def __init__(self, options: TurnOptions = OPTIONS, **defaults: Any) -> None:
        self.core = RealtimeCore(TurnMachine(options), RealtimeMachine("sess_test", replace(DEFAULTS, **defaults)))
        self.got: list[dict[str, Any]] = []
        self.waiting: list[Request] = []
        self.answers = True
        self.fails: set[type] = set()
        self.sentences = 1
        self.sample = 0
        for message in self.core.wire.opening():
            self._receive(message)

    # What the client does

    def send(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """Sends an event, and gives what comes back before anything else happens."""
        return self._take(parse_client_event(json.dumps({"type": kind, **fields})))

    def update(self, **session: Any) -> list[dict[str, Any]]:
        """Changes the session."""
        return self.send("session.update", session={"type": "realtime", **session})

    def detect(self, **detection: Any) -> list[dict[str, Any]]:
        """Changes the turn detection."""
        return self.update(audio={"input": {"turn_detection": {"type": "server_vad", **detection}}})

    def push_to_talk(self) -> None:
        """The client says when it is done."""
        self.update(audio={"input": {"turn_detection": None}})

    def write(self, text: str, role: str = "user", **fields: Any) -> list[dict[str, Any]]:
        """Adds a text item."""
        part = {"type": "output_text" if role == "assistant" else "input_text", "text": text}
        return self.send("conversation.item.create", item={"type": "message", "role": role, "content": [part]} | fields)

    def sound(self, seconds: float, *, speech: bool) -> None:
        """Is heard."""
        rng = np.random.default_rng(self.sample)
        for _ in range(round(seconds * 50)):
            samples = rng.normal(0, 0.1 if speech else 0.001, FRAME).astype(np.float32)
            item = AudioInput(self.sample, samples, 1.0 if speech else 0.0)
            self.sample = item.at_sample
            self._take(item)

    def say(self, seconds: float = 1.0) -> None:
        """Says something, and waits until that is understood."""
        self.sound(seconds, speech=True)
        self.sound(0.6, speech=False)

    # What it got

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Messages of a type."""
        return [message for message in self.got if message["type"] == kind]

    def last(self, kind: str) -> dict[str, Any]:
        """The last message of a type."""
        return self.of(kind)[-1]

    @property
    def types(self) -> list[str]:
        """What came, in order."""
        return [message["type"] for message in self.got]

    def forget(self) -> None:
        """Looks at what comes from here on."""
        self.got.clear()

    # The other side

    def _take(self, item: Any) -> list[dict[str, Any]]:
        before = len(self.got)
        for step in self.core.take(item):
            for message in step.messages:
                self._receive(message)
            self._note(step.requests)
        received = self.got[before:]
        if self.answers:
            self.catch_up()
        return received

    def push(self, item: Input) -> None:
        """An input takes effect."""
        self._take(item)

    def _receive(self, message: Any) -> None:
        text = to_json(message, f"event_{len(self.got)}")
        assert parse_server_event(text) == message
        if not message.type.startswith("noema."):
            assert type(_OPENAI.validate_json(text)).model_fields["type"].annotation.__args__ == (message.type,)
        self.got.append(json.loads(text))

    def _note(self, requests: list[Request]) -> None:
        for request in requests:
            if isinstance(request, CancelTurn):
                self.waiting = [r for r in self.waiting if r.turn != request.turn]
            elif not isinstance(request, CommitTurn):
                self.waiting.append(request)

    def catch_up(self) -> None:
        """Whatever waits is answered, and so what follows from it."""
        while self.answers and self.waiting:
            self.answer_next()

    def answer_next(self) -> None:
        """The oldest request is answered."""
        request = self.waiting.pop(0)
        for answer in self._answer(request):
            self._take(answer)

    def _answer(self, request: Request) -> list[Result]:
        at, concept = self.sample, np.ones(DIM, np.float32)
        if type(request) in self.fails:
            return [WorkFailed(at, request.request, request.turn, "think", "no thinker")]  # type: ignore[union-attr]
        match request:
            case EncodeSpeech(number, turn, piece):
                found = (request.candidates[-1], 0.9) if request.candidates else (None, None)
                return [Encoded(at, number, turn, piece, concept[None], None, True, *found)]
            case EncodeText(number, turn, piece, text):
                return [Encoded(at, number, turn, piece, concept[None], (text,))]
            case Think(number, turn):
                thoughts = [Thought(at, number, turn, concept, None, last=False)] * self.sentences
                return [*thoughts, Thought(at, number, turn, None, None, last=True)]
            case Decode(number, turn, index):
                return [Decoded(at, number, turn, index, "words" if index is None else f"sentence {index}")]
            case Speak(number, turn, index):
                return [
                    Voiced(at, number, turn, index, np.full(2400, 0.1, np.float32), last=False),
                    Voiced(at, number, turn, index, np.zeros(0, np.float32), last=True),
                ]
            case _:
                raise AssertionError(request)
