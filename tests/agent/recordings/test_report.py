"""Report: when replies sounded, were begun at a pause, and were interrupted, drawn on the recording's own clock."""

from pathlib import Path

import numpy as np

from agent.core.events import DomainEvent, ReplyAudio, ReplyTruncated, Speculated
from agent.core.inputs import AudioInput
from agent.recordings.replay import ReplayResult
from agent.recordings.report import ReportCollector, write_report

SECOND = 16_000


async def collected(*events: DomainEvent) -> ReportCollector:
    collector = ReportCollector()
    for frame in range(0, 10 * SECOND, 320):
        await collector.on_input(AudioInput(frame, np.zeros(320, np.float32), 0.0))
    for event in events:
        await collector.on_event(event)
    return collector


def audio(at: int, turn: int, seconds: float) -> ReplyAudio:
    return ReplyAudio(at, turn, 0, 0, np.zeros(round(24_000 * seconds), np.float32))


async def test_replies_sound_one_after_the_other_until_speech_cuts_them() -> None:
    collector = await collected(
        audio(SECOND, 1, 0.5), audio(SECOND, 1, 0.5), audio(SECOND, 2, 4.0), ReplyTruncated(4 * SECOND, 2, 0, 0)
    )
    assert collector.sounding == [(SECOND, 2 * SECOND, 1), (2 * SECOND, 4 * SECOND, 2)]
    assert collector.interruptions == [(4 * SECOND, 2)]


async def test_the_page_shows_what_a_live_session_did(tmp_path: Path) -> None:
    used, dropped = (Speculated(2 * SECOND, 1, SECOND, used=used) for used in (True, False))
    collector = await collected(dropped, used, audio(2 * SECOND, 1, 3.0), ReplyTruncated(3 * SECOND, 1, 0, 0))
    write_report(tmp_path / "r.html", "talk", ReplayResult("mini"), collector)
    page = (tmp_path / "r.html").read_text()
    assert page.count('class="sounding" x="200.0" y="106" width="100.0"') == 1
    assert 'class="used" x="100.0"' in page
    assert 'class="discarded" x="100.0"' in page
    assert "3.00 s: speech interrupts the reply to turn 1" in page
    assert "begun at a pause" in page


async def test_the_page_of_a_file_says_nothing_of_what_only_live_sessions_do(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", "talk", ReplayResult("mini"), await collected(audio(SECOND, 1, 1.0)))
    assert "begun at a pause" not in (tmp_path / "r.html").read_text()
