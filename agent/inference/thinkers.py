"""Thinkers: the conversation so far in, the concepts (or words) of the reply out, one at a time.

    retrieve    the predicted concept picks the nearest sentence of a reply bank: always fluent
    lcm         the predicted concepts themselves, until the stop head says so
    translate   the user's own concepts, to be said in another language
    transcribe  the user's own concepts, to be said in theirs
    openai      any OpenAI-compatible chat endpoint, through words (`openai_thinker.py`)

Each `think` is a generator: the caller runs it step by step, lets others in between and closes it when nobody
waits any more. Knows nothing of threads or sound, and of a session no more than its number.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from agent.core.context import ROLE_AGENT, ROLE_USER
from agent.core.events import FloatArray
from agent.core.inputs import ContextEntry, Think

if TYPE_CHECKING:
    from torch import Tensor

    from agent.inference.kept_conversations import KeptConversations
    from lcm.reply_bank import ReplyBank

_REMEMBERED = 16


@dataclass(frozen=True, slots=True, eq=False)
class ThoughtPart:
    """One sentence of the reply: a concept, words, or both."""

    concept: FloatArray | None
    """[D]"""
    text: str | None


@dataclass(frozen=True, slots=True)
class Setback:
    """Something went wrong, and the reply goes on, or ends with what was said."""

    message: str
    again: bool = False
    """What went wrong a moment ago still stands in the way"""


class Thinker(Protocol):
    """Continues a conversation, on the model's thread."""

    @property
    def words_first(self) -> bool:
        """Whether it reads words rather than concepts."""
        ...

    @property
    def speculative(self) -> bool:
        """Whether it may be asked for a reply that nobody may want."""
        ...

    def think(self, request: Think, session: int = 0) -> Iterator[ThoughtPart]:
        """The reply, sentence by sentence; each `next` is one step. No other session has this number."""
        ...


class RemoteThinker(Protocol):
    """Continues a conversation in words, somewhere else: it waits for a network, so it runs on the event loop."""

    @property
    def words_first(self) -> bool:
        """As of a `Thinker`."""
        ...

    @property
    def speculative(self) -> bool:
        """False where each call is paid for."""
        ...

    def think(self, request: Think) -> AsyncGenerator[str, None]:
        """The reply, sentence by sentence. Closing it, or cancelling whoever waits for it, ends the connection."""
        ...


class EchoThinker:
    """`translate` and `transcribe`: what was said, as it was understood."""

    words_first = False
    speculative = True

    def think(self, request: Think, session: int = 0) -> Iterator[ThoughtPart]:
        """The concepts handed over: those of the turn, or of what was not said yet."""
        for entry in request.context:
            if entry.role == ROLE_USER and entry.concept is not None:
                yield ThoughtPart(entry.concept, None)


class LcmThinker:
    """`lcm`: the model's own concepts."""

    words_first = False
    speculative = True

    def __init__(self, conversations: "KeptConversations", max_concepts: int) -> None:
        self._conversations = conversations
        self._max_concepts = max_concepts

    def think(self, request: Think, session: int = 0) -> Iterator[ThoughtPart]:
        """Concept after concept, each predicted from all before it, until the stop head ends the turn."""
        from lcm.engine import REPEAT_COSINE

        concepts, roles = concept_context(request.context)
        for step in self._conversations.ahead(session, concepts, roles, self._max_concepts, request.seed):
            predicted = to_array(step.concept)
            if roles[-1] == ROLE_AGENT and cosine(predicted, concepts[-1]) >= REPEAT_COSINE:
                return
            concepts.append(predicted)
            roles.append(ROLE_AGENT)
            yield ThoughtPart(predicted, None)


class RetrieveThinker:
    """`retrieve`: the bank's sentence nearest to each prediction, neither repeating itself nor the user."""

    words_first = False
    speculative = True

    def __init__(self, conversations: "KeptConversations", bank: "ReplyBank", max_sentences: int) -> None:
        self._conversations = conversations
        self._bank = bank
        self._max_sentences = max_sentences

    def think(self, request: Think, session: int = 0) -> Iterator[ThoughtPart]:
        """Sentences of the bank; what was said, not what was predicted, is what the next one follows."""
        import torch

        concepts, roles = concept_context(request.context)
        exclude = {entry.text for entry in request.context[-_REMEMBERED:] if entry.text}
        asked = [entry for entry in request.context if entry.turn == request.turn and entry.role == ROLE_USER]
        own, _ = concept_context(asked)
        avoid = torch.from_numpy(np.stack(own)) if own else None  # [K, D]
        for step in self._conversations.ahead(session, concepts, roles, self._max_sentences, request.seed):
            reply = self._bank.nearest(step.choosing, request.reply_language, exclude=exclude, avoid=avoid)
            if reply.text in exclude:  # nothing new is left to say
                return
            concepts.append(to_array(reply.concept))
            roles.append(ROLE_AGENT)
            exclude.add(reply.text)
            yield ThoughtPart(concepts[-1], reply.text)


def concept_context(entries: Sequence[ContextEntry]) -> tuple[list[FloatArray], list[int]]:
    """The concepts of a conversation and their roles; sentences known in words only are left out."""
    known = [(entry.concept, entry.role) for entry in entries if entry.concept is not None]
    return [concept for concept, _ in known], [role for _, role in known]


def cosine(a: FloatArray, b: FloatArray) -> float:
    """How alike two concepts are, −1..1."""
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-12))


def to_array(concept: "Tensor") -> FloatArray:
    """A concept outside the model: float32 on the CPU, owning its memory."""
    array: FloatArray = concept.detach().to("cpu").float().numpy().copy()
    return array
