"""Thinkers: the bank's, the model's own, and one behind a real HTTP endpoint."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from agent.config import OpenAiConfig, ThinkerConfig
from agent.context import Conversation
from agent.errors import ThinkerError
from agent.events import Task
from agent.inputs import EncodeText, Think
from agent.models import Models
from agent.thinkers import OpenAiThinker
from tests.small_bundle import DIM


@pytest.fixture(scope="module")
def models(small_bundle: Path) -> Models:
    return Models.load(str(small_bundle), device="cpu", tasks=("converse", "translate", "transcribe"))


def conversation(models: Models, *turns: str) -> Conversation:
    talk = Conversation(64)
    for turn, text in enumerate(turns, start=1):
        encoded = models.encode_text(EncodeText(0, turn, 0, text, "eng"))
        talk.said(turn, "user", encoded.concepts, encoded.texts, "eng")
    return talk


def think(talk: Conversation, turn: int, language: str = "eng", task: Task = "converse") -> Think:
    return Think(0, turn, talk.view(), task, language)


def test_the_bank_answers_in_the_language_asked_for(models: Models) -> None:
    talk = conversation(models, "The cat is hungry.")
    for language in ("eng", "fra", "spa", "deu"):
        parts = list(models.think(think(talk, 1, language)))
        assert 1 <= len(parts) <= 2
        assert all(part.text is not None and part.text.startswith(language) for part in parts)


def test_the_bank_does_not_repeat_itself(models: Models) -> None:
    talk = Conversation(64)
    said: list[str] = []
    encoded = models.encode_text(EncodeText(0, 0, 0, "The cat is hungry.", "eng"))
    for turn in range(1, 5):
        talk.said(turn, "user", encoded.concepts, None, "eng")
        for part in models.think(think(talk, turn)):
            assert part.text is not None
            said.append(part.text)
            talk.agent_said(turn, part.concept, part.text, "eng")
    assert len(said) == len(set(said))


def test_translate_says_what_was_said_in_this_turn_only(models: Models) -> None:
    talk = conversation(models, "The cat is hungry.", "Where is it? Good morning.")
    parts = list(models.think(think(talk, 2, "deu", "translate")))
    assert len(parts) == 2
    assert all(part.text is None and part.concept is not None for part in parts)


def test_the_model_itself_stops_in_time(small_bundle: Path) -> None:
    models = Models.load(
        str(small_bundle), device="cpu", tasks=("converse",), thinker=ThinkerConfig(name="lcm", max_concepts=3)
    )
    parts = list(models.think(think(conversation(models, "The cat is hungry."), 1)))
    assert 1 <= len(parts) <= 3
    assert all(part.concept is not None and part.concept.shape == (DIM,) for part in parts)


class Endpoint(BaseHTTPRequestHandler):
    """Answers as a chat endpoint does; what it was asked is kept."""

    asked: ClassVar[list[dict[str, Any]]] = []
    keys: ClassVar[list[str | None]] = []
    answer: ClassVar[tuple[int, bytes]] = (200, b"")
    location: ClassVar[str | None] = None

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        Endpoint.asked.append(json.loads(self.rfile.read(length)))
        Endpoint.keys.append(self.headers["Authorization"])
        code, body = Endpoint.answer
        self.send_response(code)
        if Endpoint.location is not None:
            self.send_header("Location", Endpoint.location)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def openai(small_bundle: Path, base_url: str) -> Models:
    settings = ThinkerConfig(name="openai", openai=OpenAiConfig(base_url=base_url, timeout_s=5))
    return Models.load(str(small_bundle), device="cpu", tasks=("converse",), thinker=settings)


def test_an_endpoint_reads_the_words_and_its_sentences_come_one_by_one(small_bundle: Path, endpoint: str) -> None:
    content = {"choices": [{"message": {"content": "It is late. Good night."}}]}
    Endpoint.answer = (200, json.dumps(content).encode())
    models = openai(small_bundle, endpoint)
    assert models.thinker("converse").words_first
    talk = Conversation(8)
    talk.said(1, "user", np.zeros((1, DIM), np.float32), ("What time is it?",), "eng")
    assert [part.text for part in models.think(think(talk, 1))] == ["It is late.", "Good night."]
    assert Endpoint.asked[-1]["messages"][-1] == {"role": "user", "content": "What time is it?"}


def test_an_endpoint_that_does_not_stop_is_cut_to_what_can_be_said(small_bundle: Path, endpoint: str) -> None:
    content = {"choices": [{"message": {"content": "It is late. " * 1000}}]}
    Endpoint.answer = (200, json.dumps(content).encode())
    parts = list(openai(small_bundle, endpoint).thinker("converse").think(think(Conversation(8), 1)))
    assert [part.text for part in parts] == ["It is late."] * 32


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_the_key_does_not_follow_a_redirect(endpoint: str, code: int) -> None:
    asked: list[str | None] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()

        do_POST = do_GET

    with HTTPServer(("127.0.0.2", 0), Elsewhere) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            Endpoint.answer = (code, b"")
            Endpoint.location = f"http://127.0.0.2:{other.server_port}/v1"
            thinker = OpenAiThinker(endpoint, "default", "secret", 5)
            with pytest.raises(ThinkerError, match=f"points to {Endpoint.location}.*base_url"):
                list(thinker.think(think(Conversation(8), 1)))
        finally:
            Endpoint.location = None
            other.shutdown()
            thread.join()
    assert Endpoint.keys[-1] == "Bearer secret"
    assert asked == []


def test_a_key_read_from_a_file_loses_its_line_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret\n")
    assert OpenAiConfig().key() == "secret"
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    assert OpenAiConfig().key() is None


@pytest.mark.parametrize(
    "answer",
    [(500, b""), (200, b"not json"), (200, b'{"choices": []}'), (200, b" " * 1_000_001)],
    ids=["error", "no json", "no choice", "endless"],
)
def test_an_endpoint_that_fails_says_what_to_do(small_bundle: Path, endpoint: str, answer: tuple[int, bytes]) -> None:
    Endpoint.answer = answer
    models = openai(small_bundle, endpoint)
    with pytest.raises(ThinkerError, match="check"):
        list(models.think(think(conversation(models, "Hello."), 1)))


def test_an_endpoint_that_is_not_there_says_what_to_do(small_bundle: Path) -> None:
    models = openai(small_bundle, "http://127.0.0.1:9/v1")
    with pytest.raises(ThinkerError, match="gave no answer"):
        list(models.think(think(conversation(models, "Hello."), 1)))
