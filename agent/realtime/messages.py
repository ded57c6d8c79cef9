"""Messages: text frames in, client events out; server events in, text out. Pure; where the wire's JSON begins.

A frame that is no message of the protocol is a `ProtocolError`, which names the field at fault as OpenAI's server
does. Nesting is bounded by the parser, lengths by the shapes, the whole by the websocket.
"""

from collections.abc import Sequence
from typing import Annotated, Any, get_args

import pydantic_core
from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails as PydanticError

from agent.realtime.client_events import ClientEvent
from agent.realtime.models import ServerModel
from agent.realtime.problems import ProtocolError
from agent.realtime.server_events import ErrorDetails, ErrorEvent, ServerEvent

_CLIENT: TypeAdapter[ClientEvent] = TypeAdapter(Annotated[ClientEvent, Field(discriminator="type")])
_SERVER: TypeAdapter[ServerEvent] = TypeAdapter(Annotated[ServerEvent, Field(discriminator="type")])
CLIENT_TYPES = tuple(get_args(shape.model_fields["type"].annotation)[0] for shape in get_args(ClientEvent))
_SHOWN = 40
"""Characters of a wrong value that an error repeats"""


def parse_client_event(text: str | bytes) -> ClientEvent:
    """Reads one frame.

    Raises:
        ProtocolError: it is no client event.
    """
    content = parse_object(text)
    try:
        return _CLIENT.validate_python(content)
    except ValidationError as error:
        raise problem_of(error, content, CLIENT_TYPES) from error


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Reads a frame as far as that it is a JSON object.

    Raises:
        ProtocolError: it is not.
    """
    try:
        content = pydantic_core.from_json(text, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:  # half a surrogate, too: nothing of it could be sent on
        raise ProtocolError("invalid_json", f"not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ProtocolError("invalid_json", "a message is a JSON object")
    return content


def problem_of(error: ValidationError, content: dict[str, Any], types: Sequence[str]) -> ProtocolError:
    """The first thing that is wrong with a message, in the words and with the codes of OpenAI's server."""
    first = error.errors(include_url=False, include_context=True)[0]
    param = _param(first["loc"], content, missing=first["type"] == "missing")
    code, message = _described(first, param, types)
    event_id = content.get("event_id")
    return ProtocolError(code, message, param or "type", event_id if isinstance(event_id, str) else None)


def error_event(problem: ProtocolError) -> ErrorEvent:
    """What the client is told."""
    return ErrorEvent(
        error=ErrorDetails(
            type=problem.kind,
            code=problem.code,
            message=problem.message,
            param=problem.param,
            event_id=problem.client_event_id,
        )
    )


def to_json(event: ServerModel, event_id: str, at_ms: int | None = None) -> str:
    """An event as it is sent; `event_id` is one of the server's own, of letters, digits and underscores.

    `at_ms` is its place on the clock of the client's sound, for those who know the extension.
    """
    place = "" if at_ms is None else f'"at_ms":{at_ms},'
    return f'{{"event_id":"{event_id}",{place}{event.model_dump_json()[1:]}'


def parse_server_event(text: str | bytes) -> ServerEvent:
    """Reads an event back, as clients and tests do; without its id.

    Raises:
        ValueError: it is none.
    """
    content = pydantic_core.from_json(text)
    content.pop("event_id", None)
    content.pop("at_ms", None)
    return _SERVER.validate_python(content)


def _param(loc: tuple[int | str, ...], content: object, *, missing: bool) -> str:
    """Where in the message the fault lies: pydantic's place without the names of its own unions."""
    place: list[str] = []
    for number, part in enumerate(loc):
        if isinstance(content, dict) and part in content:
            content = content[part]
            place.append(f".{part}")
        elif isinstance(content, list) and isinstance(part, int):
            content = content[part]
            place.append(f"[{part}]")
        elif missing and number == len(loc) - 1:
            place.append(f".{part}")
    return "".join(place).removeprefix(".")


def _described(first: PydanticError, param: str, types: Sequence[str]) -> tuple[str, str]:
    kind, value = first["type"], first["input"]
    if kind in {"union_tag_invalid", "union_tag_not_found"} and not param:
        known = ", ".join(f"'{name}'" for name in types)
        given = value.get("type") if isinstance(value, dict) else None
        return "invalid_value", f"Invalid value: {_shown(given)}. Supported values are: {known}."
    if kind == "missing":
        return "missing_required_parameter", f"Missing required parameter: '{param}'."
    if kind == "literal_error":
        return "invalid_value", f"Invalid value: {_shown(value)}. Supported: {first['ctx']['expected']}."
    message = first["msg"].removeprefix("Value error, ")
    if kind.endswith("_type"):
        return "invalid_type", f"Invalid type for '{param}': {message}, not {_shown(value)}."
    return "invalid_value", f"Invalid value for '{param}': {message}."


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
