"""A session that is cut off: what it takes and what comes of it, stored in batches, and what comes back of that."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from agent.core.inputs import (
    AudioCleared,
    AudioCommitted,
    AudioInput,
    CancelTurn,
    CommitTurn,
    ContextForgotten,
    ContextGiven,
    Decode,
    Decoded,
    Encoded,
    EncodeSpeech,
    EncodeText,
    Input,
    PlaybackPosition,
    ReplyCancelled,
    ReplyHeard,
    ReplyRequested,
    Request,
    Result,
    SettingsChanged,
    Speak,
    Think,
    Thought,
    TypedText,
    Voiced,
    WorkFailed,
)
from agent.core.kept_core import KeptCore, Restoration, restored
from agent.core.stored_session import ClientPosition
from agent.core.turn_state import Step
from agent.store.store_database import StoreDatabase
from audio.frames import from_pcm16
from tests.agent.core.test_core_state import plain


def results(request: Request) -> list[Result]:  # noqa: PLR0911 - one for each kind
    """All that comes of a request, the same every time."""
    rng = np.random.default_rng(request.turn)
    concept = rng.normal(size=4).astype(np.float32)
    match request:
        case EncodeSpeech(number, turn, piece):
            found = (request.candidates[-1], 0.9) if request.candidates else (None, None)
            return [Encoded(0, number, turn, piece, concept[None], None, True, *found)]
        case EncodeText(number, turn, piece, text):
            if text == "fails":
                return [WorkFailed(0, number, turn, "understand", "it fails")]
            return [Encoded(0, number, turn, piece, concept[None], (text,))]
        case Think(number, turn):
            parts = [
                Thought(0, number, turn, concept, None, last=False),
                Thought(0, number, turn, None, "b", last=False),
            ]
            return [*parts, Thought(0, number, turn, None, None, last=True)]
        case Decode(number, turn, index):
            return [Decoded(0, number, turn, index, f"sentence {index}")]
        case Speak(number, turn, index):
            sound = from_pcm16(rng.integers(-99, 99, 4800).astype(np.int16))
            stretches = ((sound[:2400], False), (sound[2400:], False), (sound[:0], True))
            return [Voiced(0, number, turn, index, *stretch) for stretch in stretches]
        case _:
            return []


class Talk:
    """A session as it runs: the core takes what comes, results among them; messages are delivered in batches."""

    def __init__(self, core: KeptCore, rng: np.random.Generator, says: Callable[[int], Any] = str) -> None:
        self.core = core
        self.rng = rng
        self.says = says
        self.taken: list[Any] = []
        self.steps: list[list[Step]] = []
        self.pending: dict[int, list[Result]] = {}
        self.wanted: dict[int, int] = {}
        """Request → how many of its results came, as long as there are more to come that somebody waits for"""
        self.given: list[Any] = []
        self.heard = 0

    def take(self, item: Any) -> None:
        self.taken.append(item)
        self.steps.append(self.core.take(item))
        for step in self.steps[-1]:
            self.given += step.messages
            for request in step.requests:
                self._note(request)

    def _note(self, request: Request) -> None:
        if isinstance(request, CancelTurn):  # results that are under way may still come
            gone = [n for n in self.wanted if self.pending[n][0].turn == request.turn and n <= request.last_request]
            self.wanted = {number: came for number, came in self.wanted.items() if number not in gone}
        elif not isinstance(request, CommitTurn):
            self.pending[request.request] = results(request)
            self.wanted[request.request] = 0

    def answer(self, which: int) -> None:
        if self.pending:
            number = list(self.pending)[which % len(self.pending)]
            result, *rest = self.pending[number]
            if number in self.wanted:
                self.wanted[number] += not isinstance(result, WorkFailed)
            if rest:
                self.pending[number] = rest
            else:
                del self.pending[number]
                self.wanted.pop(number, None)
            self.take(replace(result, at_sample=self.core.sample))

    def catch_up(self) -> None:
        while self.pending:
            self.answer(0)

    def sound(self, frames: int, *, speech: bool) -> None:
        for _ in range(frames):
            samples = from_pcm16(self.rng.integers(-3000 if speech else -3, 4, 320).astype(np.int16))
            self.take(AudioInput(self.heard, samples, 1.0 if speech else 0.0))
            self.heard += 320

    def do(self, action: str, number: int) -> None:
        at = self.core.sample
        commands: dict[str, Callable[[], Input]] = {
            "type": lambda: TypedText(at, "fails" if number == 0 else f"Text {number}.", wants_reply=number % 3 > 0),
            "context": lambda: ContextGiven(at, ("user", "agent")[number % 2], "Said before."),
            "forget": lambda: ContextForgotten(at, number % 4, ("user", "agent")[number % 2]),
            "commit": lambda: AudioCommitted(at),
            "clear": lambda: AudioCleared(at),
            "request": lambda: ReplyRequested(
                at, (None, True, False)[number % 3], (None, "Sing.")[number % 2], (None, 0.5)[number % 2]
            ),
            "cancel": lambda: ReplyCancelled(at),
            "heard": lambda: ReplyHeard(at, number % 4, 1000 * number),
            "playback": lambda: PlaybackPosition(at, 2000 * number),
            "settings": lambda: SettingsChanged(
                at,
                "eng",
                (None, "fra")[number % 2],
                "converse",
                detection="manual" if number % 3 == 0 else "vad",
                auto_reply=number % 4 > 0,
                pre_roll_ms=(None, 500)[number % 2],
                idle_timeout_ms=(None, 400)[number % 2],
            ),
        }
        if action == "speech":
            self.sound(6 + 3 * number, speech=True)
        elif action == "silence":
            self.sound(9 + 3 * number, speech=False)  # a soft pause at least
        elif action == "answer":
            for _ in range(number):
                self.answer(number)
        elif action == "catch up":
            self.catch_up()
        elif action == "pause":
            self.catch_up()
            self.sound(10, speech=True)
            self.sound(9, speech=False)
        elif action == "client":
            self.take(self.says(number))
        else:
            self.take(commands[action]())


class Delivery:
    """Takes the core's messages in order, some late, and stores them before they count as sent."""

    def __init__(
        self,
        talk: Talk,
        database: StoreDatabase,
        session_id: str,
        message_text: Callable[[Any], str] = str,
        codec: tuple[Callable[[str], Any], Callable[[Any], str]] = (str, str),
    ) -> None:
        self.talk = talk
        self.message_text = message_text
        self.codec = codec
        self.database = database
        self.session_id = session_id
        self.sent: list[str] = []

    def store(self, late: int) -> None:
        """Stores what was given, but for the last few messages, which are still on their way."""
        given = self.talk.given
        ready = self.texts(given[len(self.sent) : max(len(self.sent), len(given) - late)])
        numbered = list(enumerate(ready, start=len(self.sent) + 1))
        self.sent += ready
        position = ClientPosition(len(self.talk.taken))
        batch = self.talk.core.batch(numbered, len(ready), position)
        with self.database.transaction():
            self.database.append(self.session_id, batch)
        self.database.tidy()

    def come_back(self) -> Restoration | None:
        """What a new process finds."""
        with self.database.transaction():
            stored = self.database.load(self.session_id)
        if stored is None:
            return None
        assert stored.position == ClientPosition(len(self.talk.taken))
        assert stored.last_message == stored.core_messages == len(self.sent)
        return restored(stored, *self.codec)

    def texts(self, messages: list[Any]) -> list[str]:
        return [self.message_text(message) for message in messages]


def check_goes_on(talk: Talk, delivery: Delivery, taken: int, sent: list[str], back: Restoration) -> None:
    """What came back after `taken` items and takes those that followed does what was done."""
    goes_on = [step for item in talk.taken[taken:] for step in back.core.take(item)]
    rest = [step for steps in talk.steps[taken:] for step in steps]
    assert plain([step.events for step in goes_on]) == plain([step.events for step in rest])
    assert requests_of(goes_on) == requests_of(rest)
    messages = [message for step in goes_on for message in step.messages]
    assert [*sent, *delivery.texts([*back.messages, *messages])] == delivery.texts(talk.given)


def requests_of(steps: list[Step]) -> list[object]:
    return [plain(request) for step in steps for request in step.requests]


def cuts(talk: Talk, delivery: Delivery, script: list[tuple[str, int]]) -> Iterator[tuple[int, list[str], Restoration]]:
    """Runs a script; after each batch, how many items were taken, what had been sent, and what came back."""
    for action, number in script:
        if action != "store":
            talk.do(action, number)
            continue
        delivery.store(late=number % 3)
        back = delivery.come_back()
        if back is not None:
            outstanding = {again.request.request: again.answered for again in back.core.outstanding}
            assert outstanding == talk.wanted
            assert plain(back.core.core) == plain(talk.core.core)
            yield len(talk.taken), list(delivery.sent), back
