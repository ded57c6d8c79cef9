"""Access: hosts, origins and tokens, as headers say them."""

import pytest
from websockets.datastructures import Headers

from agent.server.access import Access, offered_tokens, shows

ACCESS = Access("secret", ["noema.example", "Desk"], ["https://page.example"])


def reason(refusal: object) -> str | None:
    return getattr(refusal, "reason", None)


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8765", "127.0.0.1:8765", "[::1]:8765", "192.168.1.7", "desk:80", "noema.example.", "DESK"],
)
def test_expected_names_and_addresses_come_in(host: str) -> None:
    assert ACCESS.page(Headers({"Host": host})) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "evil@localhost", "127.0.0.1.evil.example", "", "a b", "::1"]
)
def test_other_names_do_not(host: str) -> None:
    assert reason(ACCESS.page(Headers({"Host": host}))) == "host"


def test_a_request_has_one_host() -> None:
    assert reason(ACCESS.page(Headers())) == "host"
    assert reason(ACCESS.page(Headers([("Host", "localhost"), ("Host", "localhost")]))) == "host"


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8765", "http://localhost:8765"),
        ("127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("[::1]:8765", "http://[::1]:8765"),
        ("noema.example", "https://noema.example"),
        ("noema.example:443", "https://noema.example"),
        ("localhost", "https://page.example"),
    ],
)
def test_the_same_origin_and_those_named_may_connect(host: str, origin: str) -> None:
    assert ACCESS.websocket(Headers({"Host": host, "Origin": origin})) is None


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://localhost:9999",
        "https://localhost",
        "null",
        "",
        "file://",
        "http://[bad",
        "http://localhost:8765@evil.example",
        "https://page.example.evil.example",
    ],
)
def test_other_origins_may_not(origin: str) -> None:
    assert reason(ACCESS.websocket(Headers({"Host": "localhost:8765", "Origin": origin}))) == "origin"


def test_programs_name_no_origin() -> None:
    assert ACCESS.websocket(Headers({"Host": "localhost:8765"})) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer secret"},
        {"Authorization": "bearer  secret"},
        {"Sec-WebSocket-Protocol": "realtime, openai-insecure-api-key.secret"},
        {"Authorization": "Bearer x", "Sec-WebSocket-Protocol": "realtime,openai-insecure-api-key.secret"},
    ],
)
def test_the_token_may_stand_in_either_place(headers: dict[str, str]) -> None:
    assert ACCESS.secret(Headers(headers)) is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer Secret"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic secret"},
        {"Sec-WebSocket-Protocol": "secret"},
        {"Authorization": "Bearer sécret"},
    ],
)
def test_anything_else_is_no_token(headers: dict[str, str]) -> None:
    refusal = ACCESS.secret(Headers(headers))
    assert refusal is not None
    assert (refusal.status, refusal.reason) == (401, "token")
    assert refusal.headers["WWW-Authenticate"].startswith("Bearer")


def test_where_no_token_is_needed_any_will_do() -> None:
    assert Access(None, [], []).secret(Headers({"Authorization": "Bearer whatever"})) is None


def test_every_token_offered_is_found() -> None:
    headers = Headers([("Sec-WebSocket-Protocol", "realtime"), ("Sec-WebSocket-Protocol", "openai-insecure-api-key.a")])
    headers["Authorization"] = "Bearer b"
    assert offered_tokens(headers) == ["b", "a"]
    assert shows(headers, "a")
    assert not shows(headers, "c")
