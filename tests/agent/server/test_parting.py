"""Time that is up, whoever the visit's client is; and the places where the user's data lie."""

import asyncio
from pathlib import Path

import pytest

from agent.config import ServerConfig
from agent.data_folder import data_folder
from agent.recordings.recording import sessions_folder
from agent.server.parting import EXPIRED, SILENT, Clock
from agent.store.session_store import store_path


async def test_a_session_that_may_last_no_longer_has_expired() -> None:
    assert await Clock(ServerConfig(idle_s=600)).run_out(lambda: 0.0, lambda: None) is EXPIRED


async def test_a_client_that_says_nothing_is_silent_and_told_until_then_that_the_server_lives() -> None:
    told = asyncio.Event()
    clock = Clock(ServerConfig(idle_s=0.05, keepalive_s=0.01))
    assert await clock.run_out(lambda: float("inf"), told.set) is SILENT
    assert told.is_set()


def test_all_that_is_the_users_lies_in_one_folder_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NOEMA_SESSIONS", "NOEMA_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert {data_folder(), sessions_folder().parent, store_path().parent} == {tmp_path / "noema"}
    monkeypatch.setenv("NOEMA_STORE", str(tmp_path / "elsewhere.db"))
    assert store_path() == tmp_path / "elsewhere.db"
