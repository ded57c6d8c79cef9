"""Recordings do not stay for ever: the oldest go, those that a server made, and none that is being recorded."""

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from agent.config import AgentConfig
from agent.core.turn_options import TurnOptions
from agent.recordings.recording import SessionRecorder, new_session_info, sessions_folder, unfinished
from agent.recordings.retention import Retention, prune
from tests.agent.server.running import dialled, eventually, running
from tests.noema_command import Noema

DAY_S = 86_400


def recorded(root: Path, name: str, *, days: float, size: int = 1000, served: bool = True) -> Path:
    """A recording that ended so many days ago."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "session.json").write_text(json.dumps({"served": served}))
    (folder / "audio.flac").write_bytes(bytes(size - (folder / "session.json").stat().st_size))
    for path in folder.iterdir():
        os.utime(path, (time.time() - days * DAY_S,) * 2)
    return folder


def left(root: Path) -> set[str]:
    return {folder.name for folder in root.iterdir()}


def test_tests_delete_nothing_of_their_developers(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert sessions_folder().is_relative_to(tmp_path_factory.getbasetemp())


def test_what_ended_too_long_ago_goes(tmp_path: Path) -> None:
    recorded(tmp_path, "young", days=29)
    old, older = recorded(tmp_path, "old", days=31), recorded(tmp_path, "a", days=300)
    assert prune(tmp_path, Retention(30, None)) == [older, old]
    assert left(tmp_path) == {"young"}


def test_the_oldest_go_until_the_rest_fits(tmp_path: Path) -> None:
    for days in (4, 1, 3, 2):
        recorded(tmp_path, f"{days} days", days=days)
    prune(tmp_path, Retention(None, 2000))
    assert left(tmp_path) == {"1 days", "2 days"}


def test_what_people_recorded_for_themselves_stays_until_they_say_so(tmp_path: Path) -> None:
    recorded(tmp_path, "own", days=300, served=False)
    (recorded(tmp_path, "damaged", days=300) / "session.json").write_text("{")
    assert prune(tmp_path, Retention(30, 1)) == []
    prune(tmp_path, Retention(30, 1), served_only=False)
    assert left(tmp_path) == set()


def test_what_is_being_recorded_stays_whatever_the_limits(tmp_path: Path) -> None:
    info = new_session_info(AgentConfig(), TurnOptions(), "space", served=True)
    recorder = SessionRecorder(tmp_path / "now", info, pytest.fail)
    crashed = SessionRecorder(tmp_path / "crashed", info, pytest.fail)
    crashed.abandon()
    assert prune(tmp_path, Retention(0, 0)) == [tmp_path / "crashed"]
    recorder.close()
    assert prune(tmp_path, Retention(0, 0)) == [tmp_path / "now"]


def test_no_limits_no_loss(tmp_path: Path) -> None:
    recorded(tmp_path, "old", days=9999, size=10_000)
    assert prune(tmp_path, Retention(None, None)) == []


def test_a_limit_of_size_is_no_limit_of_age(noema: Noema, tmp_path: Path) -> None:
    recorded(tmp_path / "sessions", "old", days=9999)
    assert noema("sessions", "prune", "--bytes", "1e9", "--json").json == {"deleted": []}


def test_what_lies_elsewhere_stays(tmp_path: Path, noema: Noema) -> None:
    root, elsewhere = tmp_path / "sessions", recorded(tmp_path, "elsewhere", days=300)
    root.mkdir()
    (root / "link").symlink_to(elsewhere)
    assert prune(root, Retention(30, 0)) == []
    noema("sessions", "delete", "link").fails(2, f"is a link to {elsewhere}")
    assert {path.name for path in elsewhere.iterdir()} == {"session.json", "audio.flac"}


def test_half_of_a_recording_can_be_deleted_again(
    tmp_path: Path, noema: Noema, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, unlink = recorded(tmp_path / "sessions", "a", days=1), os.unlink
    for number in range(30):  # listed in any order
        (folder / f"{number}.flac").touch()

    def refuses(*args: Any, **more: Any) -> None:
        if len(os.listdir(folder)) <= 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        unlink(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuses)
        noema("sessions", "delete", "a").fails(1, os.strerror(errno.EIO))
    assert "a" in noema("sessions", "list").out
    assert noema("sessions", "delete", "a", "a").code == 0
    assert left(folder.parent) == set()


async def test_a_server_finalises_what_one_before_it_left(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOEMA_SESSIONS", str(tmp_path))
    for name in ("a", "b"):
        info = new_session_info(AgentConfig(), TurnOptions(), "space", served=True)
        SessionRecorder(tmp_path / name, info, pytest.fail).abandon()
    with running(str(small_bundle)):
        await eventually(lambda: not unfinished(tmp_path))
    assert left(tmp_path) == {"a", "b"}


async def test_a_server_looks_when_it_starts_and_when_a_recording_begins(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "agent.server.housekeeping")
    monkeypatch.setenv("NOEMA_SESSIONS", str(tmp_path))
    recorded(tmp_path, "first", days=31)
    recorded(tmp_path, "own", days=31, served=False)
    with running(str(small_bundle), record=True, recordings_days=30) as server:
        await eventually(lambda: left(tmp_path) == {"own"})
        recorded(tmp_path, "second", days=31)
        async with dialled(server) as client:
            await client.ask("Hello.")
            await eventually(lambda: "second" not in left(tmp_path))
            assert len(left(tmp_path)) == 2  # the session itself is there
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "1 recordings deleted, from first on",
        "1 recordings deleted, from second on",
    ]


def test_sessions_are_pruned_by_hand(noema: Noema, tmp_path: Path) -> None:
    root = tmp_path / "sessions"
    for name, days in (("old", 40), ("week", 8), ("new", 1)):
        recorded(root, name, days=days, served=False)
    noema("sessions", "prune").fails(2, "Give --days D, --bytes B or both")
    assert noema("sessions", "prune", "--days", "30", "--json").json == {"deleted": ["old"]}
    assert "deleted" in noema("sessions", "prune", "--days", "7").out
    assert "nothing to delete" in noema("sessions", "prune", "--days", "7").out
    assert noema("sessions", "prune", "--bytes", "0", "--json").json == {"deleted": ["new"]}
    assert noema("sessions", "prune", "--days", "-1").code == 2
