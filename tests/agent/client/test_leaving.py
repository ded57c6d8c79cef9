"""Our own client leaves, or comes back to a server that has its mind on something else."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from agent.client import realtime_client
from agent.client.realtime_client import RealtimeClient
from agent.client.server_address import ServerAddress
from tests.agent.client.test_realtime_client import OPENING, Talk
from tests.agent.server.running import RunningServer, eventually, running


@pytest.fixture(scope="module")
def live(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(str(small_bundle), store=tmp_path_factory.mktemp("store") / "sessions.sqlite") as server:
        yield server


async def test_who_leaves_for_good_is_forgotten(live: RunningServer) -> None:
    store = live.talks._house.store
    assert store is not None
    talk = Talk(f"ws://127.0.0.1:{live.port}")
    async with talk.running():
        talk.type("Forget this.")
        await talk.until("response.done", 1)
        token = talk.client._token
        assert token is not None
        assert await live.call(store.find(token)) is not None
    assert await live.call(store.find(token)) is None
    await eventually(live.idle)


class Hesitant:
    """A server that says so much to each who comes back, and no more."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[str | None] = []
        """Tokens, as they were shown"""

    async def talk(self, socket: ServerConnection) -> None:
        noema = json.loads(await socket.recv())["session"]["noema"]
        if noema["resume"] is True:
            session = {"noema": {"resume": {"token": "t"}}}
            await socket.send(json.dumps({"type": "session.updated", "session": session, "event_id": "event_1"}))
            await socket.close()
            return
        self.asked.append(noema["resume"]["token"])
        if self.answers:
            await socket.send(json.dumps(self.answers.pop(0)))
        await socket.wait_closed()


async def test_a_server_that_does_not_answer_who_comes_back_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same token, whatever it complains of meanwhile."""
    monkeypatch.setattr(realtime_client, "_RESUME_S", 0.2)
    server = Hesitant({"type": "error", "error": {"code": "busy", "message": "One moment."}})
    told: list[str] = []

    async def heard(message: dict[str, Any]) -> None:
        pass

    async with serve(server.talk, "127.0.0.1", 0) as listening:
        place = ServerAddress(f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
        task = asyncio.create_task(RealtimeClient(place, OPENING, heard, told.append).run())
        await eventually(lambda: len(server.asked) == 2)
        task.cancel()
        await asyncio.wait([task])
    assert server.asked == ["t", "t"]
    assert told[-1] == "the server does not take the conversation up again; connecting again"
