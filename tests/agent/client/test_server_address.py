"""Addresses of servers, links and tokens, as they are typed."""

from pathlib import Path

import pytest

from agent.client.server_address import address, server_url, share_link
from agent.errors import UsageError


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ws://127.0.0.1:8765", "ws://127.0.0.1:8765"),
        ("http://talks.example.org/", "ws://talks.example.org"),
        ("https://talks.example.org", "wss://talks.example.org"),
        ("wss://[::1]:9000/v1/realtime", "wss://[::1]:9000"),
        ("wss://h/noema/v1/realtime/translations", "wss://h/noema"),
    ],
)
def test_a_server_is_found_by_any_of_its_urls(typed: str, meant: str) -> None:
    assert server_url(typed) == meant


@pytest.mark.parametrize("typed", ["127.0.0.1:8765", "localhost", "ws://", "ftp://h", "ws://h:port", ""])
def test_what_is_no_url_is_refused_with_one_that_is(typed: str) -> None:
    with pytest.raises(UsageError, match="address of a server"):
        server_url(typed)


def test_a_link_holds_server_session_token_and_language() -> None:
    link = share_link("https://h:1234/listen#session=sess_1&token=t0-_&language=deu")
    assert (link.url, link.session, link.token, link.language) == ("wss://h:1234", "sess_1", "t0-_", "deu")
    assert share_link("http://h/listen#session=s").token is None
    with pytest.raises(UsageError, match="quotes"):
        share_link("http://h/listen")


def test_the_token_comes_from_where_it_is_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOEMA_TOKEN", "from-the-environment\n")
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    assert address("ws://h", None, None, None).token == "from-the-environment"
    assert address("ws://h", None, file, None).token == "from-a-file"
    assert address("ws://h", "given", file, None).token == "given"
    file.write_text("two words\n")
    with pytest.raises(UsageError, match="copy it once more"):
        address("ws://h", None, file, None)
    monkeypatch.delenv("NOEMA_TOKEN")
    assert address("ws://h", None, None, None).token is None


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(UsageError, match="empty"):
        address("ws://h", None, empty, None)
    with pytest.raises(UsageError, match="cannot be read"):
        address("ws://h", None, tmp_path / "missing", None)
    with pytest.raises(UsageError, match="no such file"):
        address("wss://h", None, None, tmp_path / "missing")
    with pytest.raises(UsageError, match="wss"):
        address("ws://h", None, None, empty)
    with pytest.raises(UsageError, match="no certificate"):
        address("wss://h", None, None, empty).context()
    with pytest.raises(UsageError, match="character"):
        address("ws://h", "né", None, None)
