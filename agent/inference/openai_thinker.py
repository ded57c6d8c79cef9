"""`openai`: the conversation's words to any OpenAI-compatible chat endpoint, the sentences of its answer back.

The answer is streamed, and each sentence is given on as soon as it is complete. Runs on the event loop, and whoever
closes the generator closes the connection. The endpoint is trusted with nothing: its time, the bytes it sends and
the sentences taken of it are bounded, and the key goes where the settings say, not where a redirect points. One that
failed is left alone for a while, so that not every turn waits for it. Its address is told to the log alone: errors
may go to clients elsewhere. Knows nothing of concepts and of who answers in its place.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from agent.core.context import ROLE_AGENT
from agent.core.inputs import Think
from agent.errors import ThinkerError, ThinkerResting
from agent.inference.server_sent_events import ServerSentEvents

if TYPE_CHECKING:
    from httpx2 import Response

_MAX_ANSWER_BYTES = 1_000_000
_MAX_ANSWER_SENTENCES = 32
_MAX_REASON_CHARS = 200
_REDIRECTS = range(300, 400)
_ADDRESS = re.compile(r"[a-z]+://\S+", re.IGNORECASE)
_NO_ANSWER = "gave no answer ({}); check thinker.openai in the settings"
_log = logging.getLogger(__name__)
_WRONG_QUESTIONS = frozenset({400, 413, 422})
"""Codes that speak of what was asked, not of who was asked"""


@dataclass(frozen=True, slots=True)
class ChatEndpoint:
    """Where to ask, and how long to wait; times in seconds."""

    base_url: str
    model: str
    key: str | None = field(default=None, repr=False)
    connect_s: float = 3.0
    first_word_s: float = 10.0
    """Until the first words, connecting included"""
    word_s: float = 5.0
    """Between words"""
    answer_s: float = 30.0
    """For all of it, without what the listener takes between words"""
    rest_s: float = 10.0
    """How long it is left alone after a failure"""


class _Failure(ThinkerError):
    """The endpoint failed.

    Args:
        message: for whoever asked.
        logged: in the message's place.
        others: whether others need not ask for a while, either; else only this question was refused.
    """

    def __init__(self, message: str, logged: str | None = None, *, others: bool = True) -> None:
        super().__init__(f"the chat endpoint {message}")
        self.logged = logged or message
        self.others = others


class _Words(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    delta: _Words | None = None
    message: _Words | None = None
    finish_reason: str | None = None


class _Error(BaseModel):
    message: str | None = None


class _Answer(BaseModel):
    """A whole answer, or a stretch of one that is streamed."""

    choices: list[_Choice] | None = None
    error: _Error | str | None = None


class OpenAiThinker:
    """One endpoint. Connections are not kept: one that went stale meanwhile would cost a turn its answer."""

    words_first = True
    speculative = False

    def __init__(self, endpoint: ChatEndpoint, clock: Callable[[], float] = time.monotonic) -> None:
        import httpx2  # late, so that `noema --help` answers at once

        for library in ("httpx2", "httpcore2"):  # they log every request with its address, and the password in it
            logging.getLogger(library).setLevel(logging.WARNING)
        self._endpoint = endpoint
        self._clock = clock
        self._url = httpx2.URL(endpoint.base_url.rstrip("/") + "/chat/completions")
        self._name = str(self._url.copy_with(userinfo=b""))
        self._tls = httpx2.create_ssl_context()  # reads every certificate that the machine trusts: once
        self._rests_until = clock()

    async def think(self, request: Think) -> AsyncGenerator[str, None]:
        """The answer, sentence by sentence; of one that does not end, the first of them.

        Raises:
            ThinkerError: at once, if it failed a moment ago; or it fails now, perhaps in the middle of the answer.
        """
        if self._clock() < self._rests_until:
            raise ThinkerResting("the chat endpoint failed a moment ago")  # why may quote another's conversation
        try:
            async with aclosing(self._sentences(request)) as sentences:
                async for sentence in sentences:
                    yield sentence
        except _Failure as error:
            _log.warning("%s %s", self._name, self._without_key(error.logged))
            if error.others:
                self._rests_until = self._clock() + self._endpoint.rest_s
            raise ThinkerError(self._without_key(str(error))) from error

    def _without_key(self, text: str) -> str:
        """What a server answers may repeat what it was sent."""
        key = self._endpoint.key
        return text.replace(key, "[the key]") if key else text

    async def _sentences(self, request: Think) -> AsyncGenerator[str, None]:
        from lcm.space.sentences import SentenceStream

        said, written = 0, SentenceStream(request.reply_language)
        async with aclosing(self._in_time(request)) as words:
            async for stretch in words:
                for sentence in written.push(stretch)[: _MAX_ANSWER_SENTENCES - said]:
                    yield sentence
                    said += 1
                if said == _MAX_ANSWER_SENTENCES:
                    return
        for sentence in written.flush()[: _MAX_ANSWER_SENTENCES - said]:
            yield sentence
            said += 1
        if not said:
            raise _Failure("answered without a word; check thinker.openai.model")

    async def _in_time(self, request: Think) -> AsyncGenerator[str, None]:
        """The words as they come, as long as they come in time; whatever else goes wrong becomes one error."""
        import httpx2

        limits, now = self._endpoint, asyncio.get_running_loop().time
        begun, patience = now(), limits.first_word_s
        try:
            async with aclosing(self._ask(request)) as words:
                while True:
                    async with asyncio.timeout_at(min(now() + patience, begun + limits.answer_s)) as limit:
                        stretch = await anext(words, None)
                    if stretch is None:
                        return
                    given = now()
                    yield stretch
                    begun += now() - given  # what whoever listens took is not the endpoint's
                    patience = limits.word_s
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, ImportError) as error:
            slow = isinstance(error, TimeoutError) and limit.expired()
            waited = f"after {now() - begun:.0f} s it had not gone on"
            reason = waited if slow else str(error) or type(error).__name__
            ours = slow or isinstance(error, ValueError)  # what the network says names addresses
            told = reason if ours else type(error).__name__
            raise _Failure(_NO_ANSWER.format(told), _NO_ANSWER.format(reason)) from error

    async def _ask(self, request: Think) -> AsyncGenerator[str, None]:
        import httpx2

        key, connect_s = self._endpoint.key, self._endpoint.connect_s
        headers = {"Accept": "text/event-stream, application/json", "Accept-Encoding": "identity"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        async with (
            httpx2.AsyncClient(verify=self._tls, timeout=httpx2.Timeout(None, connect=connect_s)) as client,
            client.stream(
                "POST", self._url, headers=headers, json=self._question(request), follow_redirects=False
            ) as answer,
        ):
            if not answer.is_success:
                raise await self._refusal(answer)
            streamed = "event-stream" in answer.headers.get("content-type", "")
            async with aclosing(_streamed(answer) if streamed else _whole(answer)) as words:
                async for stretch in words:
                    yield stretch

    def _question(self, request: Think) -> dict[str, Any]:
        instructions = (
            "You are in a spoken conversation. Answer in one or two short sentences in the language with the "
            f"ISO 639-3 code {request.reply_language}. No lists, no markup."
        )
        if request.instructions:
            instructions = f"{request.instructions}\n\n{instructions}"
        messages = [{"role": "system", "content": instructions}]
        # One message of each side at a time: some models' templates refuse two.
        for role, entries in groupby((e for e in request.context if e.text), key=lambda e: e.role):
            text = " ".join(entry.text or "" for entry in entries)
            messages.append({"role": "assistant" if role == ROLE_AGENT else "user", "content": text})
        question: dict[str, Any] = {"model": self._endpoint.model, "messages": messages, "stream": True}
        if request.temperature is not None:
            question["temperature"] = request.temperature
        return question

    async def _refusal(self, answer: "Response") -> _Failure:
        code = f"{answer.status_code} {answer.reason_phrase}"
        if answer.status_code in _REDIRECTS:
            elsewhere = answer.headers.get("location", "nowhere")[:_MAX_REASON_CHARS]
            message = f"answered {code}: it points elsewhere; check thinker.openai.base_url"
            return _Failure(message, f"{message} ({elsewhere})")
        content = b"".join([piece async for piece in _bounded(answer)])
        try:
            reason = _reason(_Answer.model_validate_json(content))
        except ValidationError:
            reason = ""
        message = f"answered {code}{reason and f' ({reason})'}; check model and key"
        if answer.status_code in _WRONG_QUESTIONS:
            return _Failure(message, f"answered {code}", others=False)  # the reason may quote the question
        return _Failure(message)


async def _streamed(answer: "Response") -> AsyncGenerator[str, None]:
    """The words of an answer that comes as events. One that just stops was cut off."""
    events = ServerSentEvents()
    async with aclosing(_bounded(answer)) as pieces:
        async for piece in pieces:
            for data in events.push(piece):
                if data == "[DONE]":
                    return
                stretch = _checked(data)
                choice = stretch.choices[0] if stretch.choices else _Choice()
                if choice.delta is not None and choice.delta.content:
                    yield choice.delta.content
                if choice.finish_reason:
                    return
    raise ValueError("it was cut off")


async def _whole(answer: "Response") -> AsyncGenerator[str, None]:
    """The words of an answer from a server that does not stream."""
    whole = _checked(b"".join([piece async for piece in _bounded(answer)]))
    if not whole.choices or whole.choices[0].message is None:
        raise ValueError("what it sent holds no message")
    yield whole.choices[0].message.content or ""


async def _bounded(answer: "Response") -> AsyncGenerator[bytes, None]:
    size = 0
    async for piece in answer.aiter_raw():  # not unpacked: a megabyte of nothing fits into a kilobyte
        size += len(piece)
        if size > _MAX_ANSWER_BYTES:
            raise ValueError(f"more than {_MAX_ANSWER_BYTES} bytes")
        yield piece


def _checked(content: str | bytes) -> _Answer:
    try:
        answer = _Answer.model_validate_json(content)
    except ValidationError as error:
        raise ValueError("what it sent is no chat completion") from error
    if answer.error is not None:
        raise ValueError(_reason(answer) or "it names no reason")
    return answer


def _reason(answer: _Answer) -> str:
    reason = answer.error.message if isinstance(answer.error, _Error) else answer.error
    return _ADDRESS.sub("…", " ".join((reason or "").split()))[:_MAX_REASON_CHARS]
