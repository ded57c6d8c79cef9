"""What a session says reaches its client in order, whatever the store's disk does."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from agent.core.inputs import AudioInput
from agent.core.kept_core import KeptCore
from agent.core.turn import TurnMachine
from agent.core.turn_options import TurnOptions
from agent.live.delivery import Delivery
from agent.live.live_core import LiveCore, text_of
from agent.live.outbox import Outbox
from agent.realtime.core import RealtimeCore
from agent.realtime.defaults import KnownLanguages, SessionDefaults
from agent.realtime.machine import RealtimeMachine
from agent.realtime.noema_events import NoemaWarning
from agent.store.session_store import SessionStore, new_token, token_hash
from audio.frames import FRAME_SAMPLES

DEFAULTS = SessionDefaults(KnownLanguages(("eng",), ("eng",)))


class Told:
    """A session that is kept, its client and its store's disk."""

    def __init__(self, store: SessionStore) -> None:
        self.store = store
        core = RealtimeCore(TurnMachine(TurnOptions()), RealtimeMachine("sess_test", DEFAULTS))
        self.core = LiveCore(KeptCore(core, text_of), lambda: 24_000)
        self.delivery = Delivery("sess_test", self.core, token_hash(new_token()))
        self.outbox = Outbox(1 << 30)
        self.delivery.connect(self.outbox)
        self.delivery.keep(store)
        self._disk = threading.Event()
        self._hanging: asyncio.Task[bool] | None = None

    def say(self, *words: str) -> None:
        for word in words:
            self.delivery.own(NoemaWarning(code="test", message=word))

    async def hear(self, frames: int) -> None:
        """Silence, one frame after the other."""
        for _ in range(frames):
            item = AudioInput(self.core.sample, np.zeros(FRAME_SAMPLES, np.float32), 0.0)
            self.core.take(item)
            await self.delivery.on_input(item)

    async def disk_hangs(self) -> None:
        """From here on, until `disk_answers`: the store's thread is stuck, as in a write that does not return."""
        stuck = threading.Event()

        def hang(_: object) -> bool:
            stuck.set()
            return self._disk.wait()

        self._hanging = asyncio.create_task(self.store._do(hang))
        await asyncio.to_thread(stuck.wait)

    async def disk_answers(self) -> None:
        self._disk.set()
        if self._hanging is not None:
            await self._hanging

    async def told(self, count: int) -> list[str]:
        """What the client was told next: the words, or the code of what the delivery itself has to say."""
        messages = [json.loads(await self.outbox.take()) for _ in range(count)]
        return [message["message"] if message["code"] == "test" else message["code"] for message in messages]


@asynccontextmanager
async def kept_session(folder: Path) -> AsyncGenerator[Told, None]:
    async with SessionStore(folder / "resume.db", warn=pytest.fail) as store:
        session = Told(store)
        storing = asyncio.create_task(session.delivery.store_batches())
        try:
            yield session
        finally:
            storing.cancel()
            await session.disk_answers()


async def test_what_waits_for_a_disk_that_hangs_is_bounded(tmp_path: Path) -> None:
    async with kept_session(tmp_path) as session:
        session.say("one")
        assert await session.told(1) == ["one"]
        await session.disk_hangs()
        session.say("two", "three")
        most = 0
        while session.delivery.is_kept:
            await session.hear(50)
            session.say("…" * 100)
            most = max(most, session.core.kept.waiting_bytes)
            await asyncio.sleep(0)
            assert most < 12 << 20
        assert (await session.told(3)) == ["noema_resume_lost", "two", "three"]
        assert session.core.kept.waiting == 0
        while session.outbox.bytes:
            await session.told(1)
        await session.hear(50)
        session.say("at once")
        assert await session.told(1) == ["at once"]
        assert session.core.kept.waiting == 0


async def test_what_is_said_while_the_disk_refuses_is_said_all_the_same(tmp_path: Path) -> None:
    async with kept_session(tmp_path) as session:
        session.say("one")
        assert await session.told(1) == ["one"]
        await session.store.delete("sess_test")
        await session.disk_hangs()
        session.say("two")
        while not session.store._line:  # noqa: ASYNC110 - until it is asked for
            await asyncio.sleep(0)
        session.say("three")
        await session.disk_answers()
        assert await session.told(3) == ["noema_resume_lost", "two", "three"]


async def test_a_session_is_forgotten_before_that_is_told(tmp_path: Path) -> None:
    async with kept_session(tmp_path) as session:
        session.say("one")
        assert await session.told(1) == ["one"]
        await session.disk_hangs()
        session.delivery.forget()
        session.say("forgotten")
        await asyncio.sleep(0)
        assert not session.outbox.bytes
        await session.disk_answers()
        assert await session.told(1) == ["forgotten"]
        assert await session.store.load("sess_test") is None
        assert not session.delivery.is_kept
