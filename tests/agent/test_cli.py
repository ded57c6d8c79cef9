"""The command line, as a user meets it: exit codes, one-line errors, no traceback; whatever several commands share."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from agent.cli import main
from agent.commands.live import typed_lines
from audio.devices import load_sounddevice
from audio.errors import DeviceError
from audio.files import write_audio
from tests.agent.server.running import eventually
from tests.noema_command import ROOT, Noema, noema_process


def test_chat_answers_each_line(noema: Noema) -> None:
    result = noema("chat", "--json", stdin="Hello.\nHow are you?\n\n")
    turns = result.json["turns"]
    assert isinstance(turns, list)
    assert [turn["heard"] for turn in turns] == ["Hello.", "How are you?"]
    assert all(turn["reply"].startswith("eng reply") for turn in turns)


def test_the_model_that_chat_thinks_with_can_be_named(noema: Noema) -> None:
    assert noema("chat", "--variant", "base", stdin="Hello.\n").out
    for thinker in ("retrieve", "lcm"):
        named = noema("chat", "--thinker", thinker, "--variant", "planning", stdin="Hello.\n")
        named.fails(1, "has no model 'planning'; it has: base")


def test_what_waits_to_be_read_is_no_fault_when_chat_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, waiting = tmp_path / "typed", 17 * 65_536
    path.write_bytes(bytes(2 * waiting))

    async def interrupted() -> None:
        async with typed_lines():
            await eventually(lambda: os.lseek(sys.stdin.fileno(), 0, os.SEEK_CUR) == waiting)
            await eventually(lambda: len(asyncio.all_tasks()) == 2)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()  # as asyncio.run does in the end

    with path.open() as typed:
        monkeypatch.setattr(sys, "stdin", typed)
        asyncio.run(interrupted())
        for thread in threading.enumerate():
            if thread.name == "noema-stdin":
                thread.join(60)  # what it raises is an error of this test


def test_doctor_knows_what_works(noema: Noema) -> None:
    result = noema("doctor", "--json")
    assert result.code == 0
    findings = result.json["findings"]
    assert isinstance(findings, list)
    states = {finding["part"]: finding["state"] for finding in findings}
    assert states["bundle"] == states["voice"] == states["detector silero"] == "works"


def test_a_file_that_is_not_there(noema: Noema, tmp_path: Path) -> None:
    noema("replay", tmp_path / "none.wav").fails(2, "no such file")
    noema("translate", "none.wav", "--to", "fra").fails(2, "no such file")


@pytest.mark.parametrize("seconds", [0.05, 1.0])
def test_silence_is_no_speech(noema: Noema, tmp_path: Path, seconds: float) -> None:
    path = tmp_path / "quiet.wav"
    write_audio(path, np.zeros(int(16_000 * seconds), np.float32), 16_000)
    result = noema("replay", path, "--json")
    assert result.code == 0
    assert result.json["turns"] == []
    noema("translate", path, "--to", "fra").fails(2, "no speech")


@pytest.mark.parametrize(
    "command",
    [
        ("translate", "Hello.", "--to", "tlh"),
        ("translate", "Hello.", "--to", "fra", "--language", "tlh"),
        ("encode", "Hello.", "--language", ""),
    ],
)
def test_an_unknown_language(noema: Noema, command: tuple[str, ...]) -> None:
    noema(*command).fails(2, "eng")


def test_a_bundle_that_is_missing_or_damaged(noema: Noema, small_bundle: Path, tmp_path: Path) -> None:
    noema("translate", "Hello.", "--to", "fra", bundle=tmp_path / "none").fails(1, "no bundle")
    broken = tmp_path / "broken"
    shutil.copytree(small_bundle, broken)
    [shard] = broken.glob("text_decoder-1-*.safetensors")
    content = shard.read_bytes()
    shard.write_bytes(b"\xff" * 64 + content[64:])
    noema("translate", "Hello.", "--to", "fra", bundle=broken).fails(1, "damaged")
    shard.write_bytes(content[:-1])
    noema("translate", "Hello.", "--to", "fra", bundle=broken).fails(1, "damaged")
    shard.unlink()
    noema("translate", "Hello.", "--to", "fra", bundle=broken).fails(1, "missing")
    assert noema("doctor", bundle=broken).code == 1


def test_parts_of_another_space(noema: Noema, small_bundle: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    shutil.copytree(small_bundle, foreign)
    description = json.loads((foreign / "bundle.json").read_text())
    description["parts"]["text_decoder"]["space_id"] = "0123456789abcdef"
    (foreign / "bundle.json").write_text(json.dumps(description))
    noema("translate", "Hello.", "--to", "fra", bundle=foreign).fails(1, "space")
    concepts = tmp_path / "c.npz"
    noema("encode", "Hello.", "--out", concepts)
    with np.load(concepts) as file:
        content = dict(file)
    np.savez(concepts, **{**content, "space_id": np.array("0123456789abcdef")})
    noema("decode", concepts, "--language", "fra").fails(2, "space")


def test_input_that_is_no_text_or_has_no_end_or_is_closed(noema: Noema, monkeypatch: pytest.MonkeyPatch) -> None:
    assert noema("translate", "--to", "fra", stdin="caf\udce9 noir\n").code == 0
    noema("decode", "--language", "fra", stdin="\udcff\udcfe").fails(2, "not concepts")
    noema("translate", "--to", "fra", stdin="a" * 1_000_000).fails(2, "a line has more than")
    noema("chat", "--json", stdin="a" * 1_000_000).fails(2, "a line has more than")
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["decode", "--language", "fra", "--config", "/nowhere"]) == 2
    sys.stdin.close()  # the empty stream that took its place


def test_a_text_of_more_sentences_than_a_turn_holds(noema: Noema) -> None:
    result = noema("chat", "--json", "--task", "translate", "--to", "fra", stdin="Go! " * 1001)
    assert (result.code, "give at most 1000" in result.err) == (1, True)
    assert noema("chat", "--task", "translate", "--to", "fra", stdin="Go! " * 1001).code == 1
    turn = noema("chat", "--json", "--task", "translate", "--to", "fra", stdin="Go! " * 100).json["turns"][0]  # type: ignore[index]
    assert turn["heard"].count("Go!") == 100


def test_a_device_that_is_not_there(noema: Noema) -> None:
    noema("translate", "Hello.", "--to", "fra", "--device", "foo", bundle=None).fails(2, "choose auto, cpu")


def test_output_that_cannot_be_written(noema: Noema, recording: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    noema("replay", recording, "--out", tmp_path / "file" / "out").fails(2, "not a folder")
    noema("replay", recording, "--report", tmp_path / "none" / "r.html", bundle=tmp_path).fails(1, "cannot be written")
    noema("encode", "Hello.", "--out", tmp_path / "none" / "c.npz").fails(1, "cannot be written")


def test_no_microphone_says_so(noema: Noema) -> None:
    try:
        load_sounddevice()
        told = "the microphone 'no such microphone' cannot be used"
    except DeviceError:
        told = "PortAudio is missing"
    noema("talk", "--input", "no such microphone").fails(1, told)


def test_wrong_options_exit_with_two(noema: Noema, recording: Path) -> None:
    assert noema("replay", recording, "--speed", "fast").code == 2
    assert noema("frobnicate").code == 2
    noema("replay", recording, "--recompute").fails(2, "recorded session")
    noema("decode", "--language", "fra", "--beam", "0").fails(2, "--beam")
    noema("replay", recording, "--task", "translate").fails(2, "Give --to")
    noema("chat", "--task", "transcribe", "--to", "fra").fails(2, "in its own language")
    noema("encode", recording.parent).fails(2, "a folder")


def test_help_imports_nothing_heavy() -> None:
    program = "import sys, agent.cli; agent.cli.build_parser().format_help(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "numpy", "pydantic", "rich", "soundfile", "yaml"} & set(loaded)


def test_every_command_has_examples() -> None:
    for command in (
        *("chat", "talk", "replay", "encode", "decode", "translate", "continue", "summarise", "plan"),
        *("fetch", "doctor", "sessions"),
    ):
        process = noema_process(command, "--help")
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert f"noema {command}" in out.split("examples:")[1]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("serve --port 99999", "--port: a port is a number from 0 to 65535, not 99999; see `noema serve --help`"),
        ("serve --prot 8000", "--prot means nothing here, perhaps --port was meant; see `noema serve --help`"),
        ("sessions prune --day=3 x", "x means nothing here; see `noema sessions prune --help`"),
        ("continu", "COMMAND: invalid choice: 'continu', perhaps continue was meant; see `noema --help`"),
        ("xyz", "sessions; see `noema --help`"),
        ("plan Hello. --variant twotower", "--variant: invalid choice: 'twotower', perhaps two_tower was meant"),
        ("translate Hello.", "the following arguments are required: --to; see `noema translate --help`"),
        ("sessions", "the following arguments are required: ACTION; see `noema sessions --help`"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(noema: Noema, command: str, told: str) -> None:
    noema(*command.split()).fails(2, told)


def test_a_hint_can_be_typed_as_it_stands(noema: Noema, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOEMA_COMMAND", "./scripts/run")
    monkeypatch.setenv("NOEMA_SESSIONS", str(tmp_path))
    noema("serve", "--prot", "1").fails(2, "see `./scripts/run serve --help`")
    noema("sessions", "show", "none").fails(2, "see `./scripts/run sessions list`")
    assert "`./scripts/run talk --record`" in noema("sessions", "list").out


def test_one_turn_is_a_turn(noema: Noema, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOEMA_SESSIONS", str(tmp_path))
    noema("chat", "--record", stdin="Hello.\n")
    assert " 1 turn " in noema("sessions", "list").out
