"""The thinker behind a chat endpoint, with a real one on loopback that answers well, badly, slowly or never."""

import asyncio
import json
import ssl
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.config import OpenAiConfig
from agent.core.context import ROLE_AGENT, ROLE_USER
from agent.core.inputs import ContextEntry, Think
from agent.errors import ConfigError, ThinkerError, ThinkerResting
from agent.inference.openai_thinker import ChatEndpoint, OpenAiThinker
from agent.server.tls import self_signed
from tests.agent.chat_server import DONE, Answer, Exchange, chat_server, event, never, says, sends, words

QUESTION = Think(
    1, 1, (ContextEntry(1, ROLE_USER, np.zeros(4, np.float32), "What time is it?", "eng"),), "converse", "eng"
)
IN_TIME = ChatEndpoint("", "default", connect_s=20, first_word_s=20, word_s=20, answer_s=60, rest_s=0)
"""Limits that nothing here reaches"""


async def answered(answer: Answer, think: Think = QUESTION, **limits: Any) -> list[str]:
    async with chat_server(answer) as chat:
        thinker = OpenAiThinker(replace(IN_TIME, base_url=chat.base_url, **limits))
        return [sentence async for sentence in thinker.think(think)]


async def told(answer: Answer, **limits: Any) -> tuple[list[str], str]:
    """What is said before it fails, and what is told of that."""
    said = []
    async with chat_server(answer) as chat:
        try:
            async for sentence in OpenAiThinker(replace(IN_TIME, base_url=chat.base_url, **limits)).think(QUESTION):
                said.append(sentence)  # noqa: PERF401 - what was said before the failure counts
        except ThinkerError as failure:
            return said, str(failure)
    pytest.fail(f"it did not fail, and said {said}")


# What is asked


async def test_the_conversation_is_asked_in_words_one_message_of_each_side_at_a_time() -> None:
    entries = [
        (1, ROLE_USER, "Hello."),
        (2, ROLE_USER, "Are you there?"),
        (2, ROLE_AGENT, "Yes."),
        (2, ROLE_AGENT, "What is it?"),
        (3, ROLE_USER, None),
        (3, ROLE_USER, "Nothing."),
    ]
    context = tuple(ContextEntry(turn, role, None, text, "eng") for turn, role, text in entries)
    think = Think(1, 3, context, "converse", "deu", instructions="You are a pirate.", temperature=0.25)
    async with chat_server(says("Gut.")) as chat:
        thinker = OpenAiThinker(replace(IN_TIME, base_url=chat.base_url + "/", key="secret"))
        assert [sentence async for sentence in thinker.think(think)] == ["Gut."]
    [exchange] = chat.asked
    system, *messages = exchange.question.pop("messages")
    assert exchange.question == {"model": "default", "stream": True, "temperature": 0.25}
    assert exchange.headers["authorization"] == "Bearer secret"
    assert system["role"] == "system"
    assert system["content"].startswith("You are a pirate.\n\nYou are in a spoken conversation.")
    assert " deu." in system["content"]
    assert messages == [
        {"role": "user", "content": "Hello. Are you there?"},
        {"role": "assistant", "content": "Yes. What is it?"},
        {"role": "user", "content": "Nothing."},
    ]


async def test_without_a_key_of_its_own_no_key_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of another service")
    monkeypatch.delenv("HERE", raising=False)
    async with chat_server(says("Late.")) as chat:
        settings = OpenAiConfig(base_url=chat.base_url, key_variable="HERE")
        assert [s async for s in OpenAiThinker(settings.endpoint()).think(QUESTION)] == ["Late."]
    assert "authorization" not in chat.asked[0].headers
    assert "temperature" not in chat.asked[0].question


def test_a_key_read_from_a_file_loses_its_line_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret\n")
    assert OpenAiConfig().key() == "secret"
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    assert OpenAiConfig().key() is None


@pytest.mark.parametrize("key", ["two\nlines", "clé", "a\x00"])
def test_a_key_that_no_header_may_hold_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setattr("os.environ", {"OPENAI_API_KEY": key})
    with pytest.raises(ConfigError, match="the key in OPENAI_API_KEY") as failure:
        OpenAiConfig().key()
    assert key not in str(failure.value)


# What is answered


async def test_each_sentence_is_given_as_soon_as_the_next_word_begins() -> None:
    heard = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.say("It is", " late.", " Good")
        await heard.wait()
        await exchange.say(" night.")
        await exchange.send(DONE)

    async with chat_server(answer) as chat:
        sentences = OpenAiThinker(replace(IN_TIME, base_url=chat.base_url)).think(QUESTION)
        assert await anext(sentences) == "It is late."
        heard.set()
        assert [sentence async for sentence in sentences] == ["Good night."]


async def test_the_answer_may_come_byte_by_byte_among_what_is_not_of_interest() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        chunks = [
            b"\xef\xbb\xbf: keep-alive\r\n\r\n",
            event({"choices": [], "prompt_filter_results": []}),
            event({"choices": [{"delta": {"role": "assistant", "content": None, "reasoning": "He asks"}}]}),
            words("Il est "),
            b"event: chunk\r\nid: 5\r\n" + words("déjà tard.").replace(b"\n", b"\r\n"),
            b": keep-alive\n\n",
            words(" À "),
            event({"choices": [{"delta": {"content": "bientôt 😀"}, "finish_reason": None}], "usage": None}),
            event({"choices": [{"delta": {}, "finish_reason": "stop"}]}),
            event({"choices": [], "usage": {"total_tokens": 9}}),
            DONE,
        ]
        for byte in b"".join(chunks):
            await exchange.send(bytes([byte]))

    assert await answered(answer, replace(QUESTION, reply_language="fra")) == ["Il est déjà tard.", "À bientôt 😀"]


async def test_how_sentences_end_depends_on_the_language() -> None:
    spoken = says("Am", " 5.", " Mai", ".", " Ja", ".")
    assert await answered(spoken, replace(QUESTION, reply_language="deu")) == ["Am 5. Mai.", "Ja."]
    assert await answered(spoken) == ["Am 5.", "Mai.", "Ja."]


async def test_the_last_words_do_not_wait_for_the_connection_to_end() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(words("It is late.") + words(None, finish_reason="stop"))
        await asyncio.Event().wait()

    assert await answered(answer) == ["It is late."]


async def test_a_server_that_does_not_stream_is_understood() -> None:
    content = json.dumps({"choices": [{"message": {"content": "It is late. Good night."}}]}).encode()
    assert await answered(sends(content)) == ["It is late.", "Good night."]


async def test_an_answer_that_does_not_end_is_cut_to_what_can_be_said() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        while True:
            await exchange.say("It is late. ")

    async with chat_server(answer) as chat:
        thinker = OpenAiThinker(replace(IN_TIME, base_url=chat.base_url))
        assert [sentence async for sentence in thinker.think(QUESTION)] == ["It is late."] * 32
        await chat.left.wait()


async def test_a_sentence_that_does_not_end_is_cut_too() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        while True:
            await exchange.say("and on ")

    sentences = await answered(answer)
    assert len(sentences) == 32
    assert max(map(len, sentences)) <= 250


# What goes wrong


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        ("401 Unauthorized", {"error": {"message": "Incorrect API key: secret."}}, "(Incorrect API key: [the key].)"),
        ("429 Too Many Requests", {"error": {"message": "Slow\ndown", "code": 429}}, "(Slow down)"),
        ("404 Not Found", {"error": "model 'default' not found"}, "(model 'default' not found)"),
        ("500 Internal Server Error", {"detail": "x"}, "Error; check model and key"),
        ("503 Service Unavailable", "busy", "Unavailable; check model and key"),
    ],
)
async def test_a_refusal_names_the_reason_and_never_the_key(status: str, body: object, reason: str) -> None:
    said, message = await told(sends(json.dumps(body).encode(), status), key="secret")
    assert said == []
    assert f"answered {status}" in message
    assert reason in message
    assert "secret" not in message


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_the_key_does_not_follow_a_redirect(code: int, caplog: pytest.LogCaptureFixture) -> None:
    async with chat_server(says("Mine."), host="127.0.0.2") as other:
        elsewhere = sends(b"", f"{code} Moved", Location=other.base_url)
        said, message = await told(elsewhere, key="secret")
    assert said == []
    assert other.asked == []
    assert "points elsewhere; check thinker.openai.base_url" in message
    assert other.base_url not in message
    assert f"({other.base_url})" in caplog.text


async def test_the_key_is_shown_only_to_a_server_that_can_prove_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key, _ = self_signed(tmp_path, ["127.0.0.1"])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    async with chat_server(says("It is late."), tls=tls) as chat:
        endpoint = replace(IN_TIME, base_url=chat.base_url, key="secret")
        with pytest.raises(ThinkerError, match="ConnectError"):
            await anext(OpenAiThinker(endpoint).think(QUESTION))
        assert "certificate" in caplog.text
        assert chat.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert [sentence async for sentence in OpenAiThinker(endpoint).think(QUESTION)] == ["It is late."]


async def test_the_address_is_told_to_the_log_alone_and_a_password_in_it_to_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    async with chat_server(says("It is late.")) as chat:
        endpoint = replace(IN_TIME, base_url=chat.base_url.replace("//", "//me:secret@"))
        assert [sentence async for sentence in OpenAiThinker(endpoint).think(QUESTION)] == ["It is late."]
    assert chat.asked[0].headers["authorization"].startswith("Basic ")
    assert "secret" not in caplog.text
    endpoint = replace(IN_TIME, base_url="http://me:secret@127.0.0.1:9/v1")
    with pytest.raises(ThinkerError) as failure:
        await anext(OpenAiThinker(endpoint).think(QUESTION))
    assert str(failure.value).startswith("the chat endpoint gave no answer (ConnectError)")
    assert "http://127.0.0.1:9/v1/chat/completions gave no answer" in caplog.text
    assert "secret" not in caplog.text


async def test_an_address_that_the_endpoint_tells_stays_untold() -> None:
    body = b'{"error": {"message": "no connection to http://10.0.0.7:8000/v1 now"}}'
    _, message = await told(sends(body, "502 Bad Gateway"))
    assert "(no connection to … now)" in message


async def chunked_and_cut(exchange: Exchange) -> None:
    await exchange.begin(**{"Transfer-Encoding": "chunked"})
    content = words("It is late. Good") + b"data: {"
    await exchange.send(f"{len(content) + 50:x}\r\n".encode() + content)


async def ended_too_early(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.say("It is late. Good")


async def error_between(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.say("It is late. Good")
    await exchange.send(event({"error": {"message": "out of memory"}}))


async def nonsense_between(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.say("It is late. Good")
    await exchange.send(b'data: {"choices": 5}\n\n')


async def stalls_between(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.say("It is late. Good")
    await never(exchange)


async def test_the_time_that_the_listener_takes_is_not_the_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.say("It is late. Good")
        await heard.wait()
        await exchange.say(" night.")
        await exchange.send(DONE)

    async with chat_server(answer) as chat:
        loop, time, taken = asyncio.get_running_loop(), asyncio.get_running_loop().time, [0.0]
        monkeypatch.setattr(loop, "time", lambda: time() + sum(taken))
        sentences = OpenAiThinker(replace(IN_TIME, base_url=chat.base_url)).think(QUESTION)
        assert await anext(sentences) == "It is late."
        taken.append(2 * IN_TIME.answer_s)
        heard.set()
        assert [sentence async for sentence in sentences] == ["Good night."]


@pytest.mark.parametrize(
    ("answer", "limits", "reason"),
    [
        (chunked_and_cut, {}, "RemoteProtocolError"),
        (ended_too_early, {}, "it was cut off"),
        (error_between, {}, "out of memory"),
        (nonsense_between, {}, "no chat completion"),
        (stalls_between, {"word_s": 0.1}, "had not gone on"),
        (stalls_between, {"answer_s": 1.5}, "had not gone on"),
    ],
    ids=["chunk cut", "no end", "error", "nonsense", "word late", "answer late"],
)
async def test_what_was_said_before_a_failure_stays_said(answer: Answer, limits: dict[str, float], reason: str) -> None:
    said, message = await told(answer, **limits)
    assert said == ["It is late."]
    assert reason in message


async def only_alive(exchange: Exchange) -> None:
    await exchange.begin()
    while True:
        await exchange.send(b": keep-alive\n\n")
        await asyncio.sleep(0.01)


async def only_bytes(exchange: Exchange) -> None:
    await exchange.begin()
    while True:
        await exchange.send(b"data: " + b"x" * 65_536)


async def closes(exchange: Exchange) -> None:
    exchange.writer.transport.abort()


@pytest.mark.parametrize(
    ("answer", "limits", "reason"),
    [
        (never, {"first_word_s": 0.1}, "had not gone on"),
        (only_alive, {"first_word_s": 0.1}, "had not gone on"),
        (only_bytes, {}, "more than 1000000 bytes"),
        (closes, {}, "check thinker.openai"),
        (sends(b""), {}, "no chat completion"),
        (sends(b"[" * 100_000), {}, "no chat completion"),
        (sends(b'{"choices": []}'), {}, "no message"),
        (sends(b'{"choices": [{"message": {"content": " \\n"}}]}'), {}, "without a word"),
        (sends(b" " * 1_000_001), {}, "more than 1000000 bytes"),
        (sends(b"\x1f\x8b", **{"Content-Encoding": "gzip"}), {}, "no chat completion"),
        (says(), {}, "without a word"),
    ],
    ids=["silent", "alive", "endless", "closed", "empty", "deep", "no choice", "blank", "large", "packed", "no words"],
)
async def test_an_endpoint_that_fails_says_what_to_do(answer: Answer, limits: dict[str, float], reason: str) -> None:
    said, message = await told(answer, **limits)
    assert said == []
    assert reason in message
    assert "check" in message


async def test_an_endpoint_that_is_not_there_says_what_to_do() -> None:
    with pytest.raises(ThinkerError, match=r"gave no answer.*check thinker\.openai"):
        await anext(OpenAiThinker(replace(IN_TIME, base_url="http://127.0.0.1:9/v1")).think(QUESTION))


async def test_after_a_failure_it_is_left_alone_for_a_while_and_others_are_not_told_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    times = iter([0.0, *(0.0, 0.0), 9.0, *(10.0, 10.0), 19.0, 20.0, 21.0])
    async with chat_server(sends(b'{"error": {"message": "no room"}}', "500 No")) as chat:
        thinker = OpenAiThinker(replace(IN_TIME, base_url=chat.base_url, rest_s=10), lambda: next(times))
        why, later = "the chat endpoint answered 500 No (no room); check model and key", "failed a moment ago"
        for asked, expected in ((1, why), (1, later), (2, why), (2, later)):
            with pytest.raises(ThinkerError) as failure:
                await anext(thinker.think(QUESTION))
            assert str(failure.value).endswith(expected)
            assert isinstance(failure.value, ThinkerResting) == (expected == later)
            assert len(chat.asked) == asked
        assert [record.message.endswith(why.removeprefix("the chat endpoint")) for record in caplog.records] == [
            True
        ] * 2
        chat.answer = says("It is late.")
        for _ in range(2):
            assert [sentence async for sentence in thinker.think(QUESTION)] == ["It is late."]


@pytest.mark.parametrize("status", ["400 Bad Request", "413 Content Too Large", "422 Unprocessable Content"])
async def test_a_question_that_is_refused_keeps_nobody_else_from_asking(
    status: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with chat_server(sends(b'{"error": {"message": "too long"}}', status)) as chat:
        thinker = OpenAiThinker(replace(IN_TIME, base_url=chat.base_url, rest_s=1000))
        with pytest.raises(ThinkerError, match="too long"):
            await anext(thinker.think(QUESTION))
        assert f"answered {status}" in caplog.text
        assert "too long" not in caplog.text  # it may quote what was said
        chat.answer = says("It is late.")
        assert [sentence async for sentence in thinker.think(QUESTION)] == ["It is late."]


# Whoever asked goes away


@pytest.mark.parametrize("answer", [never, only_alive, stalls_between], ids=["unanswered", "begun", "in the middle"])
async def test_cancelling_closes_the_connection_at_once(answer: Answer) -> None:
    async with chat_server(answer) as chat:
        thinker = OpenAiThinker(replace(IN_TIME, base_url=chat.base_url))
        heard = asyncio.Event()

        async def listen() -> None:
            async with aclosing(thinker.think(QUESTION)) as sentences:
                async for _ in sentences:
                    heard.set()

        listening = asyncio.create_task(listen())
        await chat.was_asked.wait()
        if answer is stalls_between:
            await heard.wait()
        listening.cancel()
        await chat.left.wait()
        with pytest.raises(asyncio.CancelledError):
            await listening


async def test_being_cancelled_is_no_failure() -> None:
    async with chat_server(stalls_between) as chat:
        thinker = OpenAiThinker(replace(IN_TIME, base_url=chat.base_url, rest_s=1000))
        async with aclosing(thinker.think(QUESTION)) as sentences:
            assert await anext(sentences) == "It is late."
        await chat.left.wait()
        chat.answer = says("Good night.")
        assert [sentence async for sentence in thinker.think(QUESTION)] == ["Good night."]
