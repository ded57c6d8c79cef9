"""What the server itself adds for clients that asked, and for nobody else: meter, latency, keep-alive, recordings."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.core.input_log import event_line
from agent.recordings.recorded import read_event_lines, read_steps
from audio.frames import FloatArray
from tests.agent.server.running import RunningServer, dialled, eventually, running, wire_sound


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("sessions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOEMA_SESSIONS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def live(small_bundle: Path, sessions: Path) -> Iterator[RunningServer]:
    assert sessions.is_dir()
    with running(str(small_bundle), limits={"keepalive_s": 0.1, "client_recording": True}) as server:
        yield server


@pytest.fixture
def speech(recording: Path) -> FloatArray:
    return wire_sound(recording)


def folders(sessions: Path) -> set[Path]:
    """Of recorded sessions."""
    return set(sessions.iterdir())


def inputs(folder: Path) -> list[dict[str, Any]]:
    """The log of one."""
    return [json.loads(line) for line in (folder / "inputs.jsonl").read_text(encoding="utf-8").splitlines()]


async def test_a_client_that_did_not_ask_gets_nothing_of_it(live: RunningServer, speech: FloatArray) -> None:
    async with dialled(live) as client:
        await client.speak(speech)
        await client.until("response.done")
        await client.ask("Hello.")
        assert not [kind for kind in client.kinds() if kind.startswith("noema.")]


async def test_the_meter_reads_every_tenth_of_a_second(live: RunningServer, speech: FloatArray) -> None:
    async with dialled(live) as client:
        await client.update(noema={"meter": True})
        await client.speak(speech)
        await client.until("response.done")
        meters = [event for event in client.told if event["type"] == "noema.meter"]
        assert [event["audio_ms"] for event in meters] == [100 * n for n in range(1, len(meters) + 1)]
        assert all(0 <= event["level"] <= 1 and 0 <= event["probability"] <= 1 for event in meters)
        assert max(event["level"] for event in meters) > 0.01
        assert max(event["probability"] for event in meters) > 0.5


async def test_the_latency_of_a_reply_follows_it(live: RunningServer, speech: FloatArray) -> None:
    async with dialled(live) as client:
        await client.update(noema={"latency": True})
        await client.speak(speech)
        latency = await client.until("noema.latency")
        response = client.told[-2]["response"]
        assert client.told[-2]["type"] == "response.done"
        assert latency["response_id"] == response["id"]
        assert latency["item_id"] == response["output"][0]["id"]
        assert {"encode", "think"} <= set(latency["ms"])
        assert all(value >= 0 for value in latency["ms"].values())


async def test_a_connection_is_kept_alive_where_a_browser_can_see_it(live: RunningServer) -> None:
    async with dialled(live) as client:
        await client.update(noema={})
        first = await client.until("noema.keepalive")
        second = await client.until("noema.keepalive")
        assert first["event_id"] != second["event_id"]


async def test_a_client_may_have_its_session_recorded(live: RunningServer, sessions: Path) -> None:
    before = folders(sessions)
    async with dialled(live) as client:
        updated = await client.update(output_modalities=["text"], noema={"record": True})
        assert updated["session"]["noema"]["recording"] is True
        await client.ask("Write this down.")
    await eventually(live.idle)
    (folder,) = folders(sessions) - before
    await eventually(lambda: not (folder / "recording.lock").exists())
    lines = inputs(folder)
    assert [line["type"] for line in lines][:2] == ["SettingsChanged", "TypedText"]
    assert lines[1]["text"] == "Write this down."
    again = [event_line(event) for _, step in read_steps(folder) for event in step.events]
    assert again == list(read_event_lines(folder / "events.jsonl"))
    assert len(again) > 5


async def test_nothing_is_recorded_unasked(live: RunningServer, sessions: Path) -> None:
    before = folders(sessions)
    async with dialled(live) as client:
        updated = await client.update(output_modalities=["text"], noema={})
        assert updated["session"]["noema"]["recording"] is False
        await client.ask("Do not write this down.")
    await eventually(live.idle)
    assert folders(sessions) == before


@pytest.fixture
def no_folder(sessions: Path) -> Iterator[None]:
    """Where sessions are to be written down, nothing can be."""
    moved = sessions.rename(sessions.with_name("elsewhere"))
    sessions.write_text("a file where the folder was")
    yield
    sessions.unlink()
    moved.rename(sessions)


@pytest.mark.usefixtures("no_folder")
async def test_a_disk_that_refuses_ends_the_recording_not_the_session(live: RunningServer) -> None:
    async with dialled(live) as client:
        await client.update(output_modalities=["text"], noema={"record": True})
        assert (await client.ask("Hello."))["status"] == "completed"
        warnings = [event["code"] for event in client.told if event["type"] == "noema.warning"]
        assert warnings == ["noema_recording_stopped"]


async def test_an_operator_may_have_every_session_recorded(small_bundle: Path, sessions: Path) -> None:
    before = folders(sessions)
    with running(str(small_bundle), record=True) as server:
        async with dialled(server) as client:
            updated = await client.update(output_modalities=["text"], noema={})
            assert updated["session"]["noema"]["recording"] is True
            await client.ask("Hello.")
        await eventually(server.idle)
    assert len(folders(sessions) - before) == 1


async def test_who_may_not_record_is_told(small_bundle: Path) -> None:
    with running(str(small_bundle)) as server:
        async with dialled(server) as client:
            updated = await client.update(noema={"record": True})
            assert updated["session"]["noema"]["recording"] is False
            warning = await client.until("noema.warning")
            assert "record" in warning["message"]
