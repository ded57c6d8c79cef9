"""Recorded sessions at the command line: recorded, listed, replayed, recomputed; damaged ones."""

import errno
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.noema_command import ROOT, Noema


def test_a_recorded_session_replays_and_recomputes(noema: Noema, recording: Path, tmp_path: Path) -> None:
    assert noema("replay", recording, "--record", "--out", tmp_path).code == 0
    [name] = [folder.name for folder in (tmp_path / "sessions").iterdir()]
    session = tmp_path / "sessions" / name
    again = noema("replay", session)
    assert again.code == 0
    assert "events, as in" in again.out
    assert "lowest cosine 1.0" in noema("replay", session, "--recompute").out
    events = tmp_path / f"{recording.stem}.events.jsonl"
    noema("replay", recording, "--out", tmp_path, "--against", events).fails(2, "would write it anew")
    compared = noema("replay", session, "--against", events)
    assert (compared.code, compared.out.count("events, as in")) == (0, 2)
    assert noema("replay", session, "--against", session / "events.jsonl").out.count("events, as in") == 1
    events.write_text(events.read_text().replace('"turn":2', '"turn":3'))
    noema("replay", session, "--against", events, "--json").fails(1, "differs")
    noema("replay", session, "--to", "fra").fails(2, "leave those options out")
    assert name in noema("sessions", "list").out
    shown = noema("sessions", "show", name, "--json").json
    assert shown["turns"] == 2
    said: Any = shown["said"]
    speakers = [line["who"] for line in said]
    assert speakers[0] == "user"
    assert "".join(speakers).replace("agentagent", "agent").startswith("useragentuser")
    assert noema("sessions", "export", name, "--out", tmp_path / "x.zip").code == 0
    noema("sessions", "delete", "../elsewhere").fails(2, "no session")
    assert noema("sessions", "delete", name).code == 0
    assert not session.exists()


def test_sessions_of_different_tasks_recompute_in_one_go(noema: Noema, recording: Path, tmp_path: Path) -> None:
    assert noema("replay", recording, "--record", "--text").code == 0
    assert noema("replay", recording, "--record", "--text", "--task", "translate", "--to", "fra").code == 0
    result = noema("replay", *sorted((tmp_path / "sessions").iterdir()), "--recompute")
    assert (result.code, result.err) == (0, "")
    assert result.out.count("lowest cosine 1.0") == 2


def test_a_session_recomputes_with_the_thinker_that_it_had(noema: Noema, recording: Path, tmp_path: Path) -> None:
    assert noema("replay", recording, "--record", "--text", "--thinker", "lcm").code == 0
    [session] = (tmp_path / "sessions").iterdir()
    assert "lowest cosine 1.0" in noema("replay", session, "--recompute").out
    noema("replay", session, "--recompute", "--thinker", "retrieve").fails(2, "leave those options out")
    noema("replay", session, "--variant", "base").fails(2, "leave those options out")


def test_a_damaged_recording_is_wrong_input_and_no_fault_of_ours(noema: Noema, tmp_path: Path) -> None:
    session = tmp_path / "session"
    shutil.copytree(ROOT / "tests" / "recordings" / "first_words", session)
    log = session / "inputs.jsonl"
    log.write_text(log.read_text().replace('"index":0', '"index":5', 1))
    noema("replay", session).fails(2, f"{log}, line 11")


@pytest.mark.parametrize(
    "event",
    [
        '{"type":"X"}',
        '{"type":"X","at_sample":"late"}',
        '{"type":"Heard","at_sample":1}',
        '{"type":"X","at_sample":-1}',
    ],
)
def test_a_damaged_session_is_listed_as_such_and_hides_no_other(noema: Noema, tmp_path: Path, event: str) -> None:
    for name in ("a", "b", "c"):
        shutil.copytree(ROOT / "tests" / "recordings" / "first_words", tmp_path / "sessions" / name)
    with (tmp_path / "sessions" / "b" / "events.jsonl").open("a") as file:
        file.write(event + "\n")
    listed = noema("sessions", "list")
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.splitlines()] == ["a", "b", "c"]
    assert [line.endswith("damaged") for line in listed.out.splitlines()] == [False, True, False]
    noema("sessions", "show", "b").fails(2, "events.jsonl, line")


def test_a_full_disk_stops_the_recording_and_not_the_session(noema: Noema, recording: Path, tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limit[1]))
    try:
        result = noema("replay", recording, "--record", "--json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert result.code == 0, result.err
    assert "recording stopped" in result.err
    assert os.strerror(errno.EFBIG) not in result.err
    turns = result.json["turns"]
    assert isinstance(turns, list)
    assert len(turns) == 2
    listed = noema("sessions", "list")  # the next start finalises what there is
    assert listed.code == 0
    [session] = (tmp_path / "sessions").iterdir()
    assert (session / "audio.flac").exists()
    assert noema("replay", session).code == 0
