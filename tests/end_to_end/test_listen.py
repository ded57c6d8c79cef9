"""`noema listen` as its user runs it: a process of its own, a real server, and a session that somebody shares."""

import asyncio
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect

from tests.agent.server.running import Client
from tests.audio.conftest import sound_devices
from tests.end_to_end.served_page import Served, served
from tests.noema_command import ROOT

__all__ = ["sound_devices"]


@pytest.fixture(scope="module")
def server(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("store") / "sessions.sqlite", "--bundle", str(small_bundle)) as running:
        yield running


class Process:
    """A running `noema`, and what it has printed."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.said = ""
        assert process.stdout is not None
        self._fd = process.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._fd, selectors.EVENT_READ)

    def wait_for(self, seen: Callable[[str], bool], limit_s: float) -> bool:
        """Reads until the condition holds; False when it does not in time, or the process ended."""
        deadline = time.monotonic() + limit_s
        while not seen(self.said) and (left := deadline - time.monotonic()) > 0:
            if self._selector.select(left):
                piece = os.read(self._fd, 65_536)
                if not piece:
                    break
                self.said += piece.decode()
        return seen(self.said)

    async def prints(self, *words: str, limit_s: float = 60.0) -> None:
        """Waits until it has printed all of these."""
        found = await asyncio.to_thread(self.wait_for, lambda said: all(word in said for word in words), limit_s)
        assert found, self.said

    async def ends(self) -> int:
        """Waits until it ends; with which code."""
        code = await asyncio.to_thread(self.process.wait, 60)
        self.wait_for(lambda _: False, 0.2)
        return code


@contextmanager
def noema(*args: object, **environment: str) -> Iterator[Process]:
    """A command of ours, both of its streams as one."""
    command = [sys.executable, "-m", "agent", *map(str, args)]
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
    with subprocess.Popen(
        command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield Process(process)
        finally:
            process.kill()


@asynccontextmanager
async def sharing(server: Served, **noema_: Any) -> AsyncGenerator[tuple[Client, dict[str, Any]], None]:
    """The owner of a session, and the session as he shares it."""
    async with connect(f"ws://127.0.0.1:{server.port}/v1/realtime", proxy=None, max_size=None) as socket:
        owner = Client(socket)
        await owner.until("conversation.created")
        updated = await owner.update(output_modalities=["text"], noema={"listeners": True, **noema_})
        yield owner, updated["session"]


async def test_captions_come_as_the_session_goes_on_and_end_with_it(server: Served) -> None:
    async with sharing(server) as (owner, session):
        link = session["noema"]["listeners"]["url"]
        with noema("listen", link, "--language", "eng", "--text") as listener:
            await listener.prints("Listening in eng")
            await owner.ask("The cat is hungry.")
            await listener.prints("≈ speaker  The cat is hungry.\n", "→ agent    eng reply")
            await owner.update(noema={"listeners": False})
            await listener.prints("The session is over.")
            assert await listener.ends() == 0


async def test_it_is_told_by_options_too_and_ends_with_ctrl_c(server: Served) -> None:
    async with sharing(server) as (owner, session):
        token = session["noema"]["listeners"]["token"]
        options = ("--url", server.url, "--session", session["id"], "--language", "fr", "--source", "speaker", "--text")
        with noema("listen", *options, NOEMA_TOKEN=token) as listener:
            await listener.prints("Listening in fra")
            await owner.ask("The cat is hungry.")
            await listener.prints("≈ speaker")
            listener.process.send_signal(signal.SIGINT)
            assert await listener.ends() == 130
            assert "Traceback" not in listener.said
            assert "agent" not in listener.said


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ({"--url": "ws://127.0.0.1:9"}, 1, "is `noema serve` running there?"),
        ({"--session": "sess_other"}, 1, "No such session"),
        ({"--language": "klingon"}, 1, "klingon"),
        ({"--token": "wrong"}, 1, "does not know this token"),
        ({"--language": None}, 2, "--language deu"),
        ({"--session": None}, 2, "--session ID"),
        ({"--url": "nonsense"}, 2, "address of a server"),
    ],
)
async def test_what_cannot_be_listened_to_is_told_in_one_line(
    server: Served, change: dict[str, str | None], code: int, told: str
) -> None:
    async with sharing(server) as (_, session):
        token = session["noema"]["listeners"]["token"]
        options: dict[str, str | None] = {"--url": server.url, "--session": session["id"], "--language": "deu"}
        options |= {"--token": token, **change}
        given = [word for name, value in options.items() if value is not None for word in (name, value)]
        with noema("listen", "--text", *given) as listener:
            assert await listener.ends() == code
            assert listener.said.startswith("noema: ")
            assert told in listener.said
            assert listener.said.count("\n") == 1


async def test_a_server_that_dies_and_comes_back_is_listened_to_again(small_bundle: Path, tmp_path: Path) -> None:
    store = tmp_path / "sessions.sqlite"
    server = Served(store, 0, "--bundle", str(small_bundle))
    async with sharing(server, resume=True) as (owner, session):
        last = owner.told[-1]["event_id"]
        with noema("listen", session["noema"]["listeners"]["url"], "--language", "deu", "--text") as listener:
            await listener.prints("Listening in deu")
            server.kill()
            await listener.prints("connecting again")
            server = Served(store, server.port, "--bundle", str(small_bundle))
            async with connect(f"ws://127.0.0.1:{server.port}/v1/realtime", proxy=None) as socket:
                again = Client(socket)
                resume = {"token": session["noema"]["resume"]["token"], "after_event": last}
                await again.say("session.update", session={"type": "realtime", "noema": {"resume": resume}})
                await again.until("noema.resumed")
                await again.until("noema.listeners", count={"deu": 1})
                await again.ask("Where is the station?")
                await listener.prints("≈ speaker")
    server.stop()


@pytest.mark.slow
async def test_what_is_said_is_heard_from_the_loudspeaker(server: Served, sound_devices: None, tmp_path: Path) -> None:
    if shutil.which("parec") is None:
        pytest.skip("parec missing: apt install pulseaudio-utils")
    heard = tmp_path / "heard.raw"
    command = ["parec", "--device=noema.monitor", "--format=s16le", "--rate=16000", "--channels=1"]
    with heard.open("wb") as file:
        recorder = await asyncio.create_subprocess_exec(*command, stdout=file)
        async with sharing(server) as (owner, session):
            with noema("listen", session["noema"]["listeners"]["url"], "--language", "eng") as listener:
                await listener.prints("Listening in eng")
                await owner.ask("The cat is hungry, and so am I.")
                await listener.prints("≈ speaker", "→ agent")  # so the first has its sound
                await owner.update(noema={"listeners": False})
                await listener.prints("The session is over.")
                assert await listener.ends() == 0
        recorder.terminate()
        await recorder.wait()
    sound = np.fromfile(heard, "<i2").astype(np.float32)
    loud = np.abs(sound) > 1000
    assert loud.any()
    first, last = np.flatnonzero(loud)[[0, -1]]
    assert last - first > 16_000  # a second of it, at least
