"""`noema replay` and the first minute: recordings through the agent, and what is shown of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from agent.commands.first_minute import SAMPLE
from audio.files import write_audio
from tests.noema_command import ROOT, Noema, noema_process


def test_replay_prints_one_object_with_the_agreed_keys(noema: Noema, recording: Path, tmp_path: Path) -> None:
    result = noema("replay", recording, "--json", "--out", tmp_path / "out")
    assert (result.code, result.err) == (0, "")
    assert set(result.json) == {"turns", "audio_ms", "wall_ms", "bundle", "peak_rss_mb"}
    turns = result.json["turns"]
    assert isinstance(turns, list)
    assert len(turns) == 2
    for turn in turns:
        assert set(turn) == {
            "start_ms", "end_ms", "heard", "language", "language_probability",
            "reply", "reply_language", "reply_audio", "latency_ms",
        }  # fmt: skip
        assert Path(turn["reply_audio"]).stat().st_size > 1000


def test_several_recordings_give_a_line_each_and_a_bad_one_does_not_stop_them(
    noema: Noema, recording: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("not audio")
    result = noema("replay", recording, bad, recording, "--json", "--text")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert ["turns" in line for line in lines] == [True, False, True]
    assert result.code == 2
    assert "bad.wav" in result.err


def test_a_replay_whose_turns_fail_is_no_success(
    noema: Noema, recording: Path, small_bundle: Path, tmp_path: Path
) -> None:
    mute = shutil.copytree(small_bundle, tmp_path / "mute")
    content = json.loads((mute / "bundle.json").read_text())
    del content["parts"]["bank"]  # nobody answers in place of a server that does not
    (mute / "bundle.json").write_text(json.dumps(content))
    config = tmp_path / "agent.yaml"
    config.write_text("thinker:\n  name: openai\n  openai:\n    base_url: http://127.0.0.1:9/v1\n")
    result = noema("replay", recording, "--text", "--json", "--config", config, bundle=mute)
    assert result.code == 1
    assert "gave no answer" in result.err
    assert result.json["turns"][0]["reply"] == ""  # type: ignore[index]


def test_names_that_are_no_utf_8_do_no_harm(recording: Path, small_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    shutil.copy(recording, path)
    command: list[str | Path] = [sys.executable, "-m", "agent", "replay", path, "--report", tmp_path / "r.html"]
    command += ["--text", "--bundle", small_bundle]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"caf\\udce9.wav" in done.stdout
    assert "caf?.wav" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_report_is_one_file_without_links(noema: Noema, recording: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    assert noema("replay", recording, "--report", report).code == 0
    page = report.read_text()
    assert page.count("<article") == 2
    assert page.count("data:audio/ogg;base64,") == 3
    assert "http" not in page.replace("http-equiv", "")
    assert "{{" not in page


@pytest.mark.parametrize("content", [b"", b"this is not sound", b"RIFF\x00\x00\x00\x00WAVEfmt "])
def test_a_file_that_is_not_audio(noema: Noema, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    noema("replay", path).fails(2, "bad.wav")


def test_clipped_noise_and_telephone_stereo_do_no_harm(noema: Noema, recording: Path, tmp_path: Path) -> None:
    import soundfile

    rng = np.random.default_rng(0)
    write_audio(tmp_path / "noise.wav", np.sign(rng.normal(size=32_000)).astype(np.float32), 16_000)
    assert noema("replay", tmp_path / "noise.wav", "--json").code == 0
    samples, _ = soundfile.read(recording)
    soundfile.write(tmp_path / "phone.wav", np.stack([samples[::2]] * 2, axis=1), 8000)
    turns = noema("replay", tmp_path / "phone.wav", "--json").json["turns"]
    assert isinstance(turns, list)
    assert len(turns) == 2


def test_interrupting_a_replay_is_clean(recording: Path, small_bundle: Path, tmp_path: Path) -> None:
    process = noema_process(
        "replay", recording, "--bundle", small_bundle, "--speed", "0.05", "--text", "--out", tmp_path
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (tmp_path / f"{recording.stem}.events.jsonl").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert (out, err) == (f"{recording}\n", "")


@pytest.mark.slow
def test_a_reader_of_turns_that_has_enough_is_no_error_either() -> None:
    for arguments in (("first-minute", "--no-serve", "--speed", "max"), ("replay", str(SAMPLE))):
        process = noema_process(*arguments)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.close()
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 0
        process.stderr.close()


@pytest.mark.slow
def test_the_first_minute_interprets_and_converses(noema: Noema, tmp_path: Path) -> None:
    result = noema("first-minute", "--no-serve", "--out", tmp_path, "--speed", "max")
    assert result.code == 0
    assert result.out.count("≈ heard") == 12
    assert result.out.count("→ reply") >= 12
    for scene in ("translate", "converse"):
        assert (tmp_path / f"noema-{scene}.wav").stat().st_size > 1_000_000


def test_a_session_goes_by_its_name(noema: Noema, tmp_path: Path) -> None:
    recorded = Path(__file__).parents[1] / "recordings" / "first_words"
    shutil.copytree(recorded, tmp_path / "sessions" / "20260101-120000")
    assert "events, as in" in noema("replay", "20260101-120000").out
    assert noema("replay", "20260101-120001").code == 2
