"""Listeners: the hub of one live session: follows what both sides say, and lets others listen, each in a language.

A session listener. Receives domain events; hands every sentence to the interpretations into the languages that
somebody listens in, and to no other. The session never waits for it, and it never waits for a listener: work that
piles up is left out, and a listener that does not take what it is told is closed. Knows nothing of sockets.
"""

import asyncio
import base64
import hashlib
import hmac
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.core.events import (
    ConceptsKnown,
    DomainEvent,
    FloatArray,
    Heard,
    ReplyEnded,
    ReplySentence,
    ReplyTruncated,
    SessionEnded,
    Task,
    TurnCommitted,
    TurnEnded,
)
from agent.core.inputs import Input, Role
from agent.errors import Overloaded
from agent.inference.model_worker import ModelWorker
from agent.live.interpretation import Interpretation, Interpreters, Listening, Said
from agent.live.outbox import NORMAL, Farewell, Outbox
from agent.realtime.messages import to_json
from agent.realtime.translation import Source, TranslationClosed, TranslationServerEvent
from audio.voice import Voice

GONE = Farewell(1013, "the session is away; try again later", "away")
_CUTS_KEPT = 256
"""Replies that were cut off; a sentence that waits longer than that has been left out long ago"""


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """How much the listeners of one session may ask for."""

    languages: int = 8
    """At once"""
    backlog: int = 32
    """Sentences that may wait to be interpreted into one language; more leave the oldest out"""
    outbox_bytes: int = 8_388_608
    """What may wait for one listener to take it, two minutes of sound; then it is closed"""


def listener_token(secret: str) -> str:
    """The token for listeners of a session, 256 bits that tell nothing of the secret, which is the client's alone.

    The same for the same secret: links that were shared hold when the session is taken up again.
    """
    digest = hmac.digest(secret.encode(), b"noema listeners", hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


class ListenerHub:
    """Everyone who listens to one session. `run` has to be running for anything to be said."""

    def __init__(
        self,
        worker: ModelWorker,
        voice: Voice | None,
        *,
        limits: ListenerLimits | None = None,
        changed: Callable[[Mapping[str, int]], None] = lambda count: None,
        goes_on: Callable[[], bool] = lambda: False,
    ) -> None:
        """Nobody may listen yet.

        Args:
            worker: what decodes.
            voice: what speaks; None: there are words only.
            limits: how much it may take.
            changed: told how many listen, by language, whenever that changes.
            goes_on: whether the session, when `run` is cancelled, may be taken up again: its listeners may then, too.
        """
        self.shared = False
        """Whether anybody may listen"""
        self._interpreters = Interpreters(worker, voice, self._stands, self._written)
        self._limits = limits or ListenerLimits()
        self._changed = changed
        self._goes_on = goes_on
        self._over = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._interpretations: dict[str, Interpretation] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._said = self._told = 0
        self._turns: dict[int, Task] = {}
        """Those that are not over"""
        self._cuts: OrderedDict[int, int] = OrderedDict()
        """Turn → sentences of its reply that stay"""
        self._unheard: dict[int, asyncio.Future[str]] = {}
        """Turns whose words somebody waits for"""

    @property
    def count(self) -> dict[str, int]:
        """How many listen, by language."""
        return dict(Counter(one.language for lane in self._interpretations.values() for one in lane.listeners))

    # Listeners

    def share(self, shared: bool) -> None:
        """Lets others listen, or no more: those who do are told that it is over."""
        if self._over.is_set() or shared == self.shared:
            return
        self.shared = shared
        if not shared:
            self._dismiss(self._written(TranslationClosed()), NORMAL)

    def has_room(self, language: str) -> bool:
        """Whether somebody may listen in a language."""
        return language in self._interpretations or len(self._interpretations) < self._limits.languages

    def join(self, language: str, source: Source = "both", *, audio: bool = True) -> Listening:
        """Somebody listens, from the next sentence on.

        Raises:
            Overloaded: too many languages, or nobody may listen (any more).
        """
        if not self.shared:
            raise Overloaded("nobody may listen")
        if not self.has_room(language):
            taken = ", ".join(sorted(self._interpretations))
            raise Overloaded(f"this session is interpreted into as many languages as it may be; choose from {taken}")
        lane = self._interpretations.setdefault(
            language, Interpretation(language, self._interpreters, self._limits.backlog)
        )
        listening = Listening(language, source, audio, self._said, Outbox(self._limits.outbox_bytes))
        lane.listeners.append(listening)
        self._start()
        self._changed(self.count)
        return listening

    def leave(self, listening: Listening) -> None:
        """Somebody listens no more; a language that nobody listens in costs nothing. Safe to call twice."""
        listening.outbox.close(NORMAL)
        lane = self._interpretations.get(listening.language)
        if lane is None or listening not in lane.listeners:
            return
        lane.listeners.remove(listening)
        if not lane.listeners:
            del self._interpretations[listening.language]
            running = self._running.pop(listening.language, None)
            if running is not None:
                running.cancel()
        self._changed(self.count)

    async def run(self) -> None:
        """Interprets until the session is over and all of it was said. Cancelling closes everyone's ears."""
        try:
            async with asyncio.TaskGroup() as self._group:
                self._start()
                await self._over.wait()
                for lane in self._interpretations.values():
                    lane.close()
        except asyncio.CancelledError:
            self.close()
            if self._goes_on():
                self._dismiss(None, GONE)
            raise
        finally:
            self.close()
            self._dismiss(self._written(TranslationClosed()), NORMAL)

    def close(self) -> None:
        """Nothing more will be said. Safe to call twice."""
        self.shared = False
        self._over.set()

    def _dismiss(self, message: str | None, farewell: Farewell) -> None:
        for listening in [one for lane in self._interpretations.values() for one in lane.listeners]:
            if message is not None:
                listening.outbox.put(message)
            listening.outbox.close(farewell)
            self.leave(listening)

    def _start(self) -> None:
        for language, lane in self._interpretations.items():
            if self._group is not None and language not in self._running:
                task = self._group.create_task(lane.run(), name=f"interpret into {language}")
                self._running[language] = task

    def _written(self, event: TranslationServerEvent) -> str:
        self._told += 1
        return to_json(event, f"event_{self._told}")

    # What happens in the session

    async def on_input(self, item: Input) -> None:
        """What came in is nothing to listen to before it is understood."""

    async def on_event(self, event: DomainEvent) -> None:
        """Takes note, and hands on what is said. Never waits."""
        match event:
            case TurnCommitted():
                self._turns[event.turn] = event.task
            case ConceptsKnown() if event.turn in self._turns:  # else it is context, which nobody said now
                self._take_concepts(event)
            case ReplySentence():
                self._take_sentence(event)
            case Heard():
                self._take_words(event.turn, event.text)
            case ReplyTruncated():
                self._cut(event.turn, event.kept_sentences)
            case ReplyEnded():
                if event.status != "done" and event.turn not in self._cuts:
                    self._cut(event.turn, 0)
            case TurnEnded():
                self._turns.pop(event.turn, None)
                self._take_words(event.turn, "")
            case SessionEnded():
                self.close()
            case _:
                pass

    def _take_concepts(self, event: ConceptsKnown) -> None:
        """Whoever listens in the language that is spoken takes the words that the session itself finds for it."""
        own = self._interpretations.get(event.language)
        if own is not None and event.role == "user":
            words = self._unheard.setdefault(event.turn, asyncio.get_running_loop().create_future())
            own.push(self._said_now(event, "user", event.index, words=words))
        others = [lane for lane in self._interpretations.values() if lane is not own]
        for row, concept in enumerate(event.concepts):
            said = self._said_now(event, event.role, event.index + row, concept=concept[None])
            for lane in others:
                lane.push(said)

    def _take_sentence(self, event: ReplySentence) -> None:
        own = self._interpretations.get(event.language)
        if own is not None and event.turn in self._turns:
            words: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            words.set_result(event.text)
            own.push(self._said_now(event, "agent", event.index, words=words))

    def _said_now(
        self,
        event: ConceptsKnown | ReplySentence,
        role: Role,
        index: int,
        *,
        concept: FloatArray | None = None,
        words: asyncio.Future[str] | None = None,
    ) -> Said:
        number = self._said
        self._said += 1
        echo = role == "agent" and self._turns[event.turn] != "converse"
        return Said(number, event.at_sample, event.turn, role, index, echo, concept, words)

    def _take_words(self, turn: int, text: str) -> None:
        words = self._unheard.pop(turn, None)
        if words is not None and not words.done():
            words.set_result(text)

    def _cut(self, turn: int, kept: int) -> None:
        self._cuts[turn] = kept
        while len(self._cuts) > _CUTS_KEPT:
            self._cuts.popitem(last=False)

    def _stands(self, said: Said) -> bool:
        return said.role == "user" or said.index < self._cuts.get(said.turn, said.index + 1)
