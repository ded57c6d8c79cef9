"""Where a server can be reached, as it tells people."""

import errno
import socket

import pytest

from agent.errors import exit_code, one_line
from agent.server import listening
from agent.server.listening import addresses, is_loopback, refused_to_listen


@pytest.fixture(autouse=True)
def _a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "lan_addresses", lambda: ["192.168.1.7", "2001:db8::7"])


@pytest.mark.parametrize(
    ("host", "urls"),
    [
        ("127.0.0.1", ["http://127.0.0.1:80"]),
        ("localhost", ["http://localhost:80"]),
        ("::1", ["http://[::1]:80"]),
        ("192.168.1.7", ["http://192.168.1.7:80"]),
        ("0.0.0.0", ["http://127.0.0.1:80", "http://192.168.1.7:80"]),
        ("::", ["http://[::1]:80", "http://[2001:db8::7]:80"]),
    ],
)
def test_urls_are_those_that_work(host: str, urls: list[str]) -> None:
    assert addresses(host, 80, "http") == urls


@pytest.mark.parametrize(
    ("host", "only_here"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("LOCALHOST", True), ("0.0.0.0", False), ("desk", False)],
)
def test_loopback_is_this_machine_only(host: str, only_here: bool) -> None:
    assert is_loopback(host) is only_here


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EADDRINUSE, "in use"), "port 80 is taken"),
        (OSError(errno.EADDRNOTAVAIL, "no"), "--host desk is no address of this machine"),
        (OSError(errno.EACCES, "no"), "port 80 is for the system's own servers"),
        (OSError(errno.EMFILE, "too many"), "cannot listen on desk port 80: too many"),
        (socket.gaierror(socket.EAI_NONAME, "no"), "--host desk: no machine is called that"),
    ],
)
def test_what_keeps_it_from_listening_is_told_in_one_line(error: OSError, told: str) -> None:
    known = refused_to_listen("desk", 80, error)
    assert told in one_line(known)
    assert exit_code(known) == 2
