"""Replays: a file at any speed, a recorded session, recomputing, and what differs."""

import asyncio
import json
import resource
import shutil
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from agent.config import AgentConfig, ThinkerConfig, VoiceConfig
from agent.core.events import DomainEvent, ReplyAudio, Warned
from agent.core.input_log import event_line
from agent.core.inputs import AudioInput, Input, PlaybackPosition, TypedText
from agent.core.turn_options import TurnOptions
from agent.errors import Difference, RecordingError
from agent.live.live_recording import LiveRecording
from agent.opening import Opened, opened
from agent.order import VirtualLatency
from agent.recordings.recorded import is_complete, read_event_lines, read_info, read_steps
from agent.recordings.recording import (
    SessionRecorder,
    finalise_abandoned,
    finalise_unfinished,
    new_session_info,
    unfinished,
)
from agent.recordings.replay import (
    EventComparer,
    Recomputer,
    ReplayResult,
    TurnCollector,
    replay_file,
    replay_session,
)
from agent.session import Listener
from audio.files import write_audio
from tests.agent.server.running import eventually

TASKS = {"listen", "segment", "decide", "understand", "think", "decode", "speak", "send", "loop-lag"}
"""Of a session"""


class Lines:
    """Keeps the canonical lines of events."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.events: list[DomainEvent] = []

    async def on_input(self, item: Input) -> None:
        """Nothing."""

    async def on_event(self, event: DomainEvent) -> None:
        self.lines.append(event_line(event))
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest_asyncio.fixture
async def there(small_bundle: Path) -> AsyncGenerator[Opened, None]:
    config = AgentConfig(bundle=str(small_bundle), device="cpu", thinker=ThinkerConfig(name="lcm"))
    async with opened(config, ["converse", "translate"], spoken=True) as running:
        yield running


def options(there: Opened, **changes: object) -> TurnOptions:
    values: dict[str, object] = {"task": "converse", "languages": ("eng",), "reply_language": "fra"}
    return there.config.turn_options(**{**values, "spoken_reply": True, **changes})  # type: ignore[arg-type]


async def play(
    there: Opened, path: Path, *listeners: Listener, speed: float | None = None, **changes: object
) -> ReplayResult:
    parts, result = there.parts(), ReplayResult("small")
    return await replay_file(
        path,
        speed=speed,
        options=options(there, **changes),
        latency=there.config.virtual_latency.latency(),
        parts=parts,
        listeners=[TurnCollector(result, parts.metrics), *listeners],
        result=result,
    )


async def record(there: Opened, path: Path, folder: Path) -> tuple[Lines, SessionRecorder]:
    lines = Lines()
    info = new_session_info(there.config, options(there), "space")
    recorder = SessionRecorder(folder, info, pytest.fail)
    await play(there, path, lines, recorder)
    return lines, recorder


async def test_a_file_is_heard_and_answered(there: Opened, recording: Path) -> None:
    result = await play(there, recording)
    assert len(result.turns) == 2
    for turn in result.turns:
        assert turn.status == "done"
        assert turn.reply_seconds > 0
        assert turn.latency_ms["first_audio"] is not None
    content = json.loads(json.dumps(result.as_json()))
    assert set(content) == {"turns", "audio_ms", "wall_ms", "bundle", "peak_rss_mb"}
    assert set(content["turns"][0]["latency_ms"]) == {"encode", "think", "decode", "voice", "first_audio"}


async def test_every_speed_gives_the_same_events(there: Opened, recording: Path) -> None:
    at_once, fast, spoken = Lines(), Lines(), Lines()
    await play(there, recording, at_once)
    await play(there, recording, fast, speed=20)
    await play(there, recording, spoken, speed=1)
    assert at_once.lines == fast.lines == spoken.lines
    assert len(at_once.lines) > 10


async def test_a_recorded_session_gives_every_event_bit_for_bit(there: Opened, recording: Path, tmp_path: Path) -> None:
    original, recorder = await record(there, recording, tmp_path / "session")
    recorder.close()
    assert sorted(path.name for path in (tmp_path / "session").iterdir()) == [
        "audio.flac",
        "events.jsonl",
        "inputs.jsonl",
        "reply.flac",
        "session.json",
    ]
    again = Lines()
    recorded = list(read_event_lines(tmp_path / "session" / "events.jsonl"))
    comparer = EventComparer(iter(recorded), "events", complete=is_complete(tmp_path / "session"))
    await replay_session(tmp_path / "session", speed=None, listeners=[again, comparer])
    assert again.lines == original.lines == recorded
    assert comparer.finish() == len(recorded)


async def test_recomputing_finds_the_same_words_and_concepts(there: Opened, recording: Path, tmp_path: Path) -> None:
    _, recorder = await record(there, recording, tmp_path / "session")
    recorder.close()
    recomputer = Recomputer(there.worker)
    await replay_session(tmp_path / "session", speed=None, listeners=[], recomputer=recomputer)
    assert recomputer.compared >= 8
    assert recomputer.lowest_cosine >= 0.9999


async def test_recomputing_reports_words_that_changed(there: Opened, recording: Path, tmp_path: Path) -> None:
    _, recorder = await record(there, recording, tmp_path / "session")
    recorder.close()
    log = tmp_path / "session" / "inputs.jsonl"
    lines = log.read_text().splitlines()
    place = next(n for n, line in enumerate(lines) if '"Decoded"' in line)
    content = json.loads(lines[place])
    lines[place] = json.dumps({**content, "text": "something else"})
    log.write_text("\n".join(lines) + "\n")
    with pytest.raises(Difference, match="something else"):
        await replay_session(tmp_path / "session", speed=None, listeners=[], recomputer=Recomputer(there.worker))


async def test_other_events_are_a_difference(there: Opened, recording: Path) -> None:
    lines = Lines()
    await play(there, recording, lines)
    changed = EventComparer(iter([*lines.lines[:3], "{}", *lines.lines[4:]]), "other")
    with pytest.raises(Difference, match="event 4 differs"):
        await play(there, recording, changed)
    longer = EventComparer(iter([*lines.lines, "{}"]), "other")
    await play(there, recording, longer)
    with pytest.raises(Difference, match="more events"):
        longer.finish()


async def test_a_session_broken_off_is_finalised_at_the_next_start(
    there: Opened, recording: Path, tmp_path: Path
) -> None:
    original, recorder = await record(there, recording, tmp_path / "broken")
    recorder.abandon()  # as a crash would: the lock is gone, nothing is finalised
    with (tmp_path / "broken" / "events.jsonl").open("ab") as file:
        file.write(b'{"type":"Hea')
    assert finalise_unfinished(tmp_path) == [tmp_path / "broken"]
    assert (tmp_path / "broken" / "audio.flac").exists()
    assert not list((tmp_path / "broken").glob("*.pcm"))
    again = Lines()
    await replay_session(tmp_path / "broken", speed=None, listeners=[again])
    assert again.lines == original.lines
    assert finalise_unfinished(tmp_path) == []


async def test_sessions_of_other_names_draw_otherwise_as_their_recordings_say(there: Opened, tmp_path: Path) -> None:
    a, b = (there.turn_options(["eng"], None, session=name) for name in ("sess_a", "sess_b"))
    assert a.seed != b.seed
    assert a == there.turn_options(["eng"], None, session="sess_a")
    info = new_session_info(there.config, a, "space")
    recorder = SessionRecorder(tmp_path / "seeded", info, pytest.fail)
    assert read_info(tmp_path / "seeded").options == a
    recorder.close()


async def test_a_session_being_recorded_is_left_alone(there: Opened, recording: Path, tmp_path: Path) -> None:
    _, recorder = await record(there, recording, tmp_path / "running")
    assert finalise_unfinished(tmp_path) == []
    recorder.close()
    assert read_info(tmp_path / "running").options.reply_language == "fra"


def test_of_a_recording_that_cannot_begin_nothing_stays(tmp_path: Path) -> None:
    info = new_session_info(AgentConfig(), TurnOptions(), "space")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limit[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            SessionRecorder(tmp_path / "session", info, pytest.fail)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(tmp_path.iterdir()) == []


async def test_that_a_recording_is_not_finalised_is_told_on_the_loop(
    there: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOEMA_SESSIONS", str(tmp_path))
    told: list[threading.Thread] = []
    stopped = lambda: told.append(threading.current_thread())  # noqa: E731
    recording = LiveRecording(there, options(there), lambda: True, lambda: None, stopped)
    await recording.on_input(AudioInput(0, np.zeros(320, np.float32), 0.0))
    assert recording._recorder is not None
    (recording._recorder.folder / "audio.flac.part").mkdir()  # nothing can be written there
    await recording.close()
    assert told == [threading.main_thread()]


async def test_a_recording_is_closed_though_every_thread_is_busy_when_its_session_is_cancelled(
    there: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOEMA_SESSIONS", str(tmp_path))
    recording = LiveRecording(there, options(there), lambda: True, lambda: None, lambda: pytest.fail("it stopped"))
    await recording.on_input(AudioInput(0, np.zeros(320, np.float32), 0.0))
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    free = threading.Event()
    busy = asyncio.create_task(asyncio.to_thread(free.wait))
    closing = asyncio.create_task(recording.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    free.set()
    await busy
    await eventually(lambda: not unfinished(tmp_path))


async def test_a_session_of_another_space_is_not_recomputed(there: Opened, recording: Path, tmp_path: Path) -> None:
    _, recorder = await record(there, recording, tmp_path / "session")
    recorder.close()
    with pytest.raises(Difference, match="recorded in space space"):
        Recomputer(there.worker).check_space(read_info(tmp_path / "session").space_id)


async def test_a_log_never_points_beyond_its_sound_wherever_it_is_torn(there: Opened, tmp_path: Path) -> None:
    info = new_session_info(there.config, options(there), "space")
    recorder = SessionRecorder(tmp_path / "torn", info, pytest.fail)
    for number in range(400):  # positions end each row early, and no event is there to flush anything
        await recorder.on_input(AudioInput(number * 320, np.zeros(320, np.float32), 0.0))
        await recorder.on_input(PlaybackPosition((number + 1) * 320, number))
        logged = (tmp_path / "torn" / "inputs.jsonl").read_bytes().count(b'"Audio"')
        assert logged * 640 <= (tmp_path / "torn" / "audio.pcm").stat().st_size
    assert logged > 0, "else nothing has been torn"
    recorder.abandon()


def test_what_was_broken_off_is_finalised_before_it_is_read(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "recording.lock").touch()
    (folder / "audio.pcm").write_bytes(b"\0" * 640)
    log = folder / "events.jsonl"
    log.write_text(log.read_text() + '{"type":"Hea')
    assert not is_complete(folder)
    assert finalise_abandoned(folder)
    assert is_complete(folder)
    assert not finalise_abandoned(folder)


def changed(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """Damage to the first place that holds `old`."""

    def damage(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return damage


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("inputs.jsonl", lambda content: b"nonsense\n" + content, "line 1: not a line"),
        ("inputs.jsonl", lambda content: b"\xff\xfe\n" + content, "line 1: not a line"),
        ("inputs.jsonl", lambda content: content.replace(b'"start_sample":11520', b'"start_sample":777'), "follow"),
        ("audio.flac", lambda content: content[: len(content) // 2] + b"\x55" * 3000, "its sound"),
        ("session.json", lambda content: b'{"format": 2, "options": 5}', "session.json: damaged"),
        ("session.json", lambda content: b'{"format": 99}', "another version"),
        ("session.json", lambda content: b"[" * 200_000, "session.json: damaged"),
        ("session.json", changed(b'"max_waiting_turns": 8', b'"max_waiting_turns": -1'), "session.json: damaged"),
        ("session.json", changed(b'"max_pieces": 4', b'"max_pieces": null'), "max_pieces: Input should be"),
        ("session.json", changed(b'"tail_ms": 160', b'"tail_ms": []'), "tail_ms: Input should be"),
        ("session.json", changed(b'"max_pieces": 4', b'"most_pieces": 4'), "most_pieces is unknown"),
        ("session.json", changed(b'"bundle": "small"', b'"bundle": 5'), "bundle: Input should be"),
        ("inputs.jsonl", changed(b'"start_sample":0,', b'"start_sample":[],'), "line 1: a damaged Audio line"),
        ("inputs.jsonl", changed(b'"probabilities":"', b'"probabilities":5,"was":"'), "line 1: a damaged Audio line"),
        ("inputs.jsonl", changed(b'"offset":2400', b'"offset":-1'), "line 12: a damaged Voiced line"),
        ("inputs.jsonl", changed(b'"index":0', b'"index":5'), "line 11: this Voiced does not fit"),
        ("inputs.jsonl", changed(b'"piece":0', b'"piece":5'), "line 7: this Encoded does not fit"),
    ],
)
def test_a_damaged_session_says_where(tmp_path: Path, name: str, damage: Callable[[bytes], bytes], told: str) -> None:
    path = copied(tmp_path) / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RecordingError, match=told):
        read_info(path.parent), list(read_steps(path.parent))


def test_a_folder_that_is_no_session_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="not a recorded session"):
        read_info(tmp_path)


def copied(tmp_path: Path) -> Path:
    """A recorded session that may be damaged."""
    source = Path(__file__).parents[2] / "recordings" / "first_words"
    return Path(shutil.copytree(source, tmp_path / "session"))


async def test_a_stage_that_fails_is_a_warning_and_the_session_goes_on(there: Opened, recording: Path) -> None:
    lines = Lines()
    result = await play(there, recording, lines, languages=("klingon",))
    assert [turn.status for turn in result.turns] == ["failed", "failed"]
    assert any(isinstance(event, Warned) and "klingon" in event.message for event in lines.events)


async def test_two_sessions_at_once_do_not_disturb_each_other(there: Opened, recording: Path) -> None:
    alone, one, other = Lines(), Lines(), Lines()
    await play(there, recording, alone)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(play(there, recording, one))
        tasks.create_task(play(there, recording, other))
    assert alone.lines == one.lines == other.lines


async def test_cancelling_a_replay_leaves_nothing_running(there: Opened, recording: Path) -> None:
    def running() -> set[str]:
        return {task.get_name() for task in asyncio.all_tasks()} & TASKS

    task = asyncio.create_task(play(there, recording, speed=1))
    await eventually(running)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not running()


@pytest.mark.parametrize(
    ("name", "sound"),
    [
        ("silence", np.zeros(32_000)),
        ("0.05 s", np.full(800, 0.1)),
        ("clipped noise", np.sign(np.random.default_rng(0).normal(size=48_000))),
    ],
)
async def test_odd_sound_ends_sensibly(there: Opened, tmp_path: Path, name: str, sound: np.ndarray) -> None:
    path = tmp_path / "odd.wav"
    write_audio(path, sound.astype(np.float32), 16_000)
    result = await play(there, path)
    assert all(turn.status == "done" for turn in result.turns)
    if name != "clipped noise":
        assert result.turns == []


async def test_typed_text_and_speech_mix_in_one_session(there: Opened, recording: Path) -> None:
    lines, parts, result = Lines(), there.parts(), ReplayResult("small")
    await replay_file(
        recording,
        speed=None,
        options=options(there),
        latency=there.config.virtual_latency.latency(),
        parts=parts,
        listeners=[TurnCollector(result, parts.metrics), lines],
        result=result,
        script=[TypedText(number * 8000, f"Sentence number {number}.") for number in range(5)],
    )
    assert len(result.turns) == 7
    assert {turn.paraphrase for turn in result.turns} == {True, False}
    places = [event.at_sample for event in lines.events]
    assert places == sorted(places)


async def test_a_reply_of_several_long_sentences_ends_however_long_the_voice_is_to_take(
    there: Opened, recording: Path
) -> None:
    """The order waits for the words of one sentence while the voice waits to hand over the sound of another."""
    spoken = Lines()
    config = there.config.model_copy(update={"voice": VoiceConfig(rate_wpm=80)})
    async with opened(config, ["translate"], spoken=True) as slow, asyncio.timeout(60):
        await replay_file(
            recording,
            speed=None,
            options=options(slow, task="translate"),
            latency=VirtualLatency(voice_ms=5000),
            parts=slow.parts(),
            listeners=[spoken],
            result=ReplayResult("small"),
            script=[TypedText(0, "Where is the station now? " * 12)],
        )
    longest = max(sum(e.turn == 1 and e.index == index for e in spoken.of(ReplyAudio)) for index in range(12))
    assert longest > 64, "else nothing ever had to wait"
