"""docs/PROTOCOL.md: every example is a message, every message has an example, every code stands in its table."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
from openai.types.realtime import RealtimeServerEvent, RealtimeTranslationServerEvent
from pydantic import Field, TypeAdapter

from agent.realtime.messages import CLIENT_TYPES, parse_client_event, parse_server_event
from agent.realtime.server_events import ServerEvent
from agent.realtime.translation import TranslationClientEvent, TranslationServerEvent, parse_translation_event

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "PROTOCOL.md").read_text(encoding="utf-8")
EXAMPLES = [
    (kind, json.loads(text))
    for kind, text in re.findall(r"^```json ?([a-z-]*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
]
_TRANSLATION: TypeAdapter[Any] = TypeAdapter(Annotated[TranslationServerEvent, Field(discriminator="type")])


def names(kind: str) -> list[Any]:
    """How the examples of a kind are called."""
    return [pytest.param(message, id=message["type"]) for tag, message in EXAMPLES if tag == kind]


def types_of(union: Any) -> set[str]:
    """The `type`s of a union of models."""
    return {get_args(shape.model_fields["type"].annotation)[0] for shape in get_args(union)}


def check_read_whole(parse: Callable[[str], Any], message: dict[str, Any]) -> None:
    """Nothing in a client's example is passed over, and nothing has to be moved."""
    assert json.loads(parse(json.dumps(message)).model_dump_json(exclude_unset=True)) == message


def check_said_whole(event: Any, message: dict[str, Any], theirs: Any) -> None:
    """A server's example is complete, and OpenAI's package reads it as what it is."""
    said = {"event_id", "at_ms"} & message.keys()
    assert json.loads(event.model_dump_json()) == {key: value for key, value in message.items() if key not in said}
    assert "event_id" in said
    if not message["type"].startswith("noema."):
        read = TypeAdapter(theirs).validate_python(message)
        assert get_args(type(read).model_fields["type"].annotation) == (message["type"],)


def test_every_example_says_who_sends_it() -> None:
    assert {kind for kind, _ in EXAMPLES} == {"client", "server", "translation-client", "translation-server"}


@pytest.mark.parametrize("message", names("client"))
def test_a_clients_example_is_read_whole(message: dict[str, Any]) -> None:
    check_read_whole(parse_client_event, message)


@pytest.mark.parametrize("message", names("server"))
def test_a_servers_example_is_what_is_sent(message: dict[str, Any]) -> None:
    check_said_whole(parse_server_event(json.dumps(message)), message, RealtimeServerEvent)


@pytest.mark.parametrize("message", names("translation-client"))
def test_an_interpreters_client_is_read_whole(message: dict[str, Any]) -> None:
    check_read_whole(parse_translation_event, message)


@pytest.mark.parametrize("message", names("translation-server"))
def test_an_interpreters_example_is_what_is_sent(message: dict[str, Any]) -> None:
    event = _TRANSLATION.validate_python({key: value for key, value in message.items() if key != "event_id"})
    check_said_whole(event, message, RealtimeTranslationServerEvent)


def test_every_message_has_an_example() -> None:
    shown = {kind: {message["type"] for tag, message in EXAMPLES if tag == kind} for kind, _ in EXAMPLES}
    assert shown["client"] == set(CLIENT_TYPES)
    assert shown["server"] == types_of(ServerEvent)
    assert shown["translation-client"] == types_of(TranslationClientEvent)
    ours = types_of(TranslationServerEvent) - shown["server"]
    assert ours <= shown["translation-server"]


def test_every_code_stands_in_the_table() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "agent").rglob("*.py")]
    raised = {code for text in sources for code in re.findall(r'ProtocolError\(\s*"([a-z_]+)"', text)}
    described = (ROOT / "agent" / "realtime" / "messages.py").read_text(encoding="utf-8")
    raised |= set(re.findall(r'return "([a-z_]+)", ', described))
    assert {"invalid_type", "response_cancel_not_active", "input_audio_buffer_full"} < raised
    table = PAGE[PAGE.index("| code |") : PAGE.index("## The extension")]
    assert {code for code in raised if f"`{code}`" not in table} == set()
