"""Our own client against servers that say what ours never would, and against those that it cannot reach."""

import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve

from agent.client.client_connection import Connection, Cut, _refused, connected
from agent.client.server_address import ServerAddress
from agent.errors import RemoteError


@asynccontextmanager
async def hearing(*said: str, reason: str = "") -> AsyncGenerator[Connection, None]:
    """A connection to a server that says this, and closes."""

    async def say(socket: ServerConnection) -> None:
        for text in said:
            await socket.send(text)
        await socket.close(1008, reason)

    async with serve(say, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with connected(ServerAddress(f"ws://127.0.0.1:{port}"), "/") as connection:
            yield connection


@pytest.mark.parametrize("said", ["{", "5", "[]", "{}", '{"type": 5}', "[" * 100_000])
async def test_what_is_no_message_is_the_servers_fault(said: str) -> None:
    async with hearing(said) as connection:
        with pytest.raises(RemoteError, match="what no Noema server says"):
            await connection.receive()


async def test_what_a_server_says_steers_no_terminal() -> None:
    message = {"type": "error", "error": {"message": "\x1b]0;title\x07Été\u009b2J\n", "codes": ["\x7f", 5]}}
    async with hearing(json.dumps(message, ensure_ascii=False), reason="\x1b[2Jgone") as connection:
        heard = await connection.receive()
        assert heard == {"type": "error", "error": {"message": " ]0;title Été 2J ", "codes": [" ", 5]}}
        with pytest.raises(Cut) as cut:
            await connection.receive()
    assert str(cut.value) == " [2Jgone"


async def test_a_proxy_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ws_proxy", "nonsense://proxy")
    monkeypatch.setenv("http_proxy", "nonsense://proxy")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(RemoteError, match=r"nonsense.*proxy's variables"):
        async with connected(ServerAddress("ws://talks.example.org"), "/"):
            pass


def test_the_folder_of_the_certificate_is_the_one_that_holds_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    error = ssl.SSLCertVerificationError()
    error.verify_message = "self-signed certificate"
    assert str(tmp_path / "noema" / "tls") in str(_refused(ServerAddress("wss://192.0.2.7"), error))
