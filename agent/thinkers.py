"""Thinkers: the conversation so far in, the concepts (or words) of the reply out, one at a time.

    retrieve    the predicted concept picks the nearest sentence of a reply bank: always fluent
    lcm         the predicted concepts themselves, until the stop head says so
    translate   the user's own concepts, to be said in another language
    transcribe  the user's own concepts, to be said in theirs
    openai      any OpenAI-compatible chat endpoint, through words

Each `think` is a generator: the caller runs it step by step, lets others in between and closes it when nobody
waits any more. Knows nothing of threads, sessions or sound.
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import numpy as np

from agent.context import ROLE_AGENT, ROLE_USER
from agent.errors import ThinkerError
from agent.events import FloatArray
from agent.inputs import ContextEntry, Think

if TYPE_CHECKING:
    from torch import Tensor

    from lcm.engine import Engine
    from lcm.reply_bank import ReplyBank

_REMEMBERED = 16
_MAX_ANSWER_BYTES = 1_000_000
_MAX_ANSWER_SENTENCES = 32


@dataclass(frozen=True, slots=True, eq=False)
class ThoughtPart:
    """One sentence of the reply: a concept, words, or both."""

    concept: FloatArray | None
    """[D]"""
    text: str | None


class Thinker(Protocol):
    """Continues a conversation."""

    @property
    def words_first(self) -> bool:
        """Whether it reads words rather than concepts."""
        ...

    @property
    def uses_model(self) -> bool:
        """Whether it runs on the model's thread; one that waits for a network must not."""
        ...

    def think(self, request: Think) -> Iterator[ThoughtPart]:
        """The reply, sentence by sentence; each `next` is one step."""
        ...


class EchoThinker:
    """`translate` and `transcribe`: what was said, as it was understood."""

    words_first = False
    uses_model = True

    def think(self, request: Think) -> Iterator[ThoughtPart]:
        """The concepts of this very turn."""
        for entry in request.context:
            if entry.turn == request.turn and entry.role == ROLE_USER:
                yield ThoughtPart(entry.concept, None)


class LcmThinker:
    """`lcm`: the model's own concepts."""

    words_first = False
    uses_model = True

    def __init__(self, engine: "Engine", max_concepts: int) -> None:
        self._engine = engine
        self._max_concepts = max_concepts

    def think(self, request: Think) -> Iterator[ThoughtPart]:
        """Concept after concept, each predicted from all before it, until the stop head ends the turn."""
        from lcm.engine import REPEAT_COSINE

        concepts, roles = concept_context(request.context)
        for predicted in _predictions(self._engine, concepts, roles, self._max_concepts):
            if roles[-1] == ROLE_AGENT and cosine(predicted, concepts[-1]) >= REPEAT_COSINE:
                return
            concepts.append(predicted)
            roles.append(ROLE_AGENT)
            yield ThoughtPart(predicted, None)


class RetrieveThinker:
    """`retrieve`: the bank's sentence nearest to each prediction, neither repeating itself nor the user."""

    words_first = False
    uses_model = True

    def __init__(self, engine: "Engine", bank: "ReplyBank", max_sentences: int) -> None:
        self._engine = engine
        self._bank = bank
        self._max_sentences = max_sentences

    def think(self, request: Think) -> Iterator[ThoughtPart]:
        """Sentences of the bank; what was said, not what was predicted, is what the next one follows."""
        import torch

        concepts, roles = concept_context(request.context)
        exclude = {entry.text for entry in request.context[-_REMEMBERED:] if entry.text}
        own = [e.concept for e in request.context if e.turn == request.turn and e.role == ROLE_USER]
        avoid = torch.from_numpy(np.stack([concept for concept in own if concept is not None]))  # [K, D]
        for predicted in _predictions(self._engine, concepts, roles, self._max_sentences):
            reply = self._bank.nearest(
                torch.from_numpy(predicted), request.reply_language, exclude=exclude, avoid=avoid
            )
            if reply.text in exclude:  # nothing new is left to say
                return
            concepts.append(to_array(reply.concept))
            roles.append(ROLE_AGENT)
            exclude.add(reply.text)
            yield ThoughtPart(concepts[-1], reply.text)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected question would arrive without its words, and show the key to whoever the redirect names."""

    def redirect_request(self, *_: object) -> None:
        """None: the redirect itself is the answer, an `HTTPError`."""


class OpenAiThinker:
    """`openai`: words to a chat endpoint, words back. Standard library only."""

    words_first = True
    uses_model = False

    def __init__(self, base_url: str, model: str, api_key: str | None, timeout_s: float) -> None:
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._model = model
        self._api_key = api_key
        self._timeout_s = timeout_s

    def think(self, request: Think) -> Iterator[ThoughtPart]:
        """The endpoint's answer, sentence by sentence; of one that does not end, the first of them."""
        from lcm.space.sentences import split_sentences

        for sentence in islice(split_sentences(self._ask(request), request.reply_language), _MAX_ANSWER_SENTENCES):
            yield ThoughtPart(None, sentence)

    def _ask(self, request: Think) -> str:
        instruction = (
            "You are in a spoken conversation. Answer in one or two short sentences in the language with the "
            f"ISO 639-3 code {request.reply_language}. No lists, no markup."
        )
        messages = [{"role": "system", "content": instruction}]
        messages += [
            {"role": "assistant" if e.role == ROLE_AGENT else "user", "content": e.text}
            for e in request.context
            if e.text
        ]
        body = json.dumps({"model": self._model, "messages": messages}).encode()
        call = urllib.request.Request(self._url, data=body, headers={"Content-Type": "application/json"})
        if self._api_key:
            call.add_unredirected_header("Authorization", f"Bearer {self._api_key}")
        try:
            with urllib.request.build_opener(_NoRedirects).open(call, timeout=self._timeout_s) as answer:
                content = json.loads(self._read(answer))["choices"][0]["message"]["content"]
        except urllib.error.HTTPError as error:
            elsewhere = error.headers.get("Location")
            check = f"it points to {elsewhere}: check thinker.openai.base_url" if elsewhere else "check model and key"
            raise ThinkerError(f"{self._url} answered {error.code} {error.reason}; {check}") from error
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, RecursionError) as error:
            raise ThinkerError(f"{self._url} gave no answer ({error}); check thinker.openai in the settings") from error
        return str(content or "")

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        """The whole answer. The socket's own timeout starts anew with every byte, so the time is kept here."""
        deadline = time.monotonic() + self._timeout_s
        content = bytearray()
        while piece := answer.read1(65_536):
            content += piece
            if len(content) > _MAX_ANSWER_BYTES:
                raise ValueError(f"more than {_MAX_ANSWER_BYTES} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not complete after {self._timeout_s:g} s")
        return bytes(content)


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


def _predictions(engine: "Engine", concepts: list[FloatArray], roles: list[int], limit: int) -> Iterator[FloatArray]:
    """What comes next, again and again; the caller appends what it makes of each before it asks for another."""
    import torch

    from lcm.engine import STOP_PROBABILITY

    for number in range(limit):
        if not concepts:
            return
        context = torch.from_numpy(np.stack(concepts))  # [T, D]
        [ahead] = engine.predict_next([context], [torch.tensor(roles)])
        if number and ahead.ended >= STOP_PROBABILITY:
            return
        yield to_array(ahead.concept)
