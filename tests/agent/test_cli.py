"""The command line, as a user meets it: real processes, exit codes, one-line errors, no traceback."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.cli import main
from agent.commands.first_minute import SAMPLE
from audio.devices import load_sounddevice
from audio.errors import DeviceError
from audio.files import write_audio

ROOT = Path(__file__).parents[2]


class Result:
    """What `noema` said and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def fails(self, code: int, told: str) -> None:
        """One line, what to do, the right code."""
        assert self.code == code, (self.code, self.err)
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("noema: ")
        assert told in self.err
        assert "Traceback" not in self.err

    @property
    def json(self) -> dict[str, object]:
        content = json.loads(self.out.splitlines()[-1])
        assert isinstance(content, dict)
        return content


Noema = Callable[..., Result]


@pytest.fixture
def noema(
    small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Noema:
    """Runs a command in this process, on the small bundle and with a folder of its own for sessions."""
    monkeypatch.setenv("NOEMA_SESSIONS", str(tmp_path / "sessions"))

    def run(*args: object, stdin: str | None = None, bundle: object = small_bundle) -> Result:
        words = [str(word) for word in args]
        if bundle is not None and words[0] not in {"sessions"}:
            words += ["--bundle", str(bundle), "--device", "cpu"]
        given = tmp_path / "stdin"
        given.write_bytes((stdin or "").encode("utf-8", "surrogateescape"))
        capsys.readouterr()
        with given.open() as typed, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", typed)
            try:
                code = main(words)
            except SystemExit as exit_:
                code = int(exit_.code or 0)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


def test_replay_prints_one_object_with_the_agreed_keys(noema: Noema, recording: Path, tmp_path: Path) -> None:
    result = noema("replay", recording, "--json", "--out", tmp_path / "out")
    assert (result.code, result.err) == (0, "")
    assert set(result.json) == {"turns", "audio_ms", "wall_ms", "bundle", "peak_rss_mb"}
    turns = result.json["turns"]
    assert isinstance(turns, list)
    assert len(turns) == 2
    for turn in turns:
        assert set(turn) == {
            "start_ms", "end_ms", "heard", "reply", "reply_language", "reply_audio", "latency_ms",
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
    assert noema("replay", session, "--against", events).code == 0
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


def test_a_replay_whose_turns_fail_is_no_success(noema: Noema, recording: Path, tmp_path: Path) -> None:
    config = tmp_path / "agent.yaml"
    config.write_text("thinker:\n  name: openai\n  openai:\n    base_url: http://127.0.0.1:9/v1\n")
    result = noema("replay", recording, "--text", "--json", "--config", config)
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


def test_a_report_is_one_file_without_links(noema: Noema, recording: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    assert noema("replay", recording, "--report", report).code == 0
    page = report.read_text()
    assert page.count("<article") == 2
    assert page.count("data:audio/ogg;base64,") == 3
    assert "http" not in page.replace("http-equiv", "")
    assert "{{" not in page


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


def _header_of_terabytes(path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 512), }\n"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("concepts.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


def _encrypted(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("concepts.npy", b"secret")
    content = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(signature) + place] |= 1
    path.write_bytes(content)


def _single_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((1, 32), np.float32))


@pytest.mark.parametrize("make", [_header_of_terabytes, _encrypted, _single_array])
def test_an_npz_that_is_damaged_or_hostile(noema: Noema, tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "odd.npz")
    noema("decode", tmp_path / "odd.npz", "--language", "fra").fails(2, "not a file of concepts")


@pytest.mark.parametrize("number", ["NaN", "1e400", "1e300", "-Infinity"])
def test_concepts_that_are_no_numbers(noema: Noema, number: str) -> None:
    encoded = noema("encode", "--language", "eng", "--json", stdin="Hello.\n").out
    given = re.sub(r'("concept": ?\[)[^,]+', rf"\g<1>{number}", encoded)
    assert number in given
    noema("decode", "--language", "fra", stdin=given).fails(2, "no numbers")


@pytest.mark.parametrize("given", ["[" * 200_000, '{"sentences": [{"concept": [1' + "0" * 400 + "]}]}"], ids=len)
def test_json_that_is_no_concepts_by_its_size(noema: Noema, given: str) -> None:
    noema("decode", "--language", "fra", stdin=given).fails(2, "not concepts")


def test_encode_and_decode_fit_together(noema: Noema, tmp_path: Path) -> None:
    concepts = tmp_path / "c.npz"
    encoded = noema("encode", "The cat is hungry. Where is it?", "--out", concepts, "--json")
    sentences = encoded.json["sentences"]
    assert isinstance(sentences, list)
    assert len(sentences) == 2
    from_file = noema("decode", concepts, "--language", "fra", "--json").json["texts"]
    from_pipe = noema("decode", "--language", "fra", "--json", stdin=encoded.out).json["texts"]
    assert from_file == from_pipe


def test_translate_keeps_lines_together(noema: Noema) -> None:
    result = noema("translate", "--to", "deu", stdin="The cat.\n\nWhere is it? Good morning.\n")
    assert result.code == 0
    lines = result.out.split("\n")
    assert len(lines) == 4
    assert lines[1] == ""
    assert lines[0]


def test_translate_takes_sound(noema: Noema, recording: Path) -> None:
    result = noema("translate", recording, "--to", "spa", "--json")
    items = result.json["items"]
    assert isinstance(items, list)
    assert len(items) == 2


def test_chat_answers_each_line(noema: Noema) -> None:
    result = noema("chat", "--json", stdin="Hello.\nHow are you?\n\n")
    turns = result.json["turns"]
    assert isinstance(turns, list)
    assert [turn["heard"] for turn in turns] == ["Hello.", "How are you?"]
    assert all(turn["reply"].startswith("eng reply") for turn in turns)


def test_doctor_knows_what_works(noema: Noema) -> None:
    result = noema("doctor", "--json")
    assert result.code == 0
    findings = result.json["findings"]
    assert isinstance(findings, list)
    states = {finding["part"]: finding["state"] for finding in findings}
    assert states["bundle"] == states["voice"] == states["detector silero"] == "works"


# Bad input: everything here is one line that says what to do, or a sensible result.


def test_a_file_that_is_not_there(noema: Noema, tmp_path: Path) -> None:
    noema("replay", tmp_path / "none.wav").fails(2, "no such file")
    noema("translate", "none.wav", "--to", "fra").fails(2, "no such file")


@pytest.mark.parametrize("content", [b"", b"this is not sound", b"RIFF\x00\x00\x00\x00WAVEfmt "])
def test_a_file_that_is_not_audio(noema: Noema, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    noema("replay", path).fails(2, "bad.wav")


@pytest.mark.parametrize("seconds", [0.05, 1.0])
def test_silence_is_no_speech(noema: Noema, tmp_path: Path, seconds: float) -> None:
    path = tmp_path / "quiet.wav"
    write_audio(path, np.zeros(int(16_000 * seconds), np.float32), 16_000)
    result = noema("replay", path, "--json")
    assert result.code == 0
    assert result.json["turns"] == []
    noema("translate", path, "--to", "fra").fails(2, "no speech")


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
    shard = broken / "text_decoder-1.safetensors"
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


@pytest.mark.parametrize("text", ["", "   ", "\x00\x07\x1b", "\u200b\n"])
def test_text_without_words(noema: Noema, text: str) -> None:
    noema("translate", text, "--to", "fra").fails(2, "no words")
    noema("translate", "--to", "fra", stdin=text).fails(2, "no words")


def test_long_text_emoji_and_control_characters(noema: Noema) -> None:
    long = noema("translate", "The cat is hungry. " * 280, "--to", "fra", "--json")
    assert long.code == 0
    assert noema("translate", "🙂🙃 \x07👨‍👩‍👧", "--to", "fra").code == 0
    noema("translate", "a" * 100_001, "--to", "fra").fails(2, "characters")


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
    assert "give at most 1000" in result.err
    turn = noema("chat", "--json", "--task", "translate", "--to", "fra", stdin="Go! " * 100).json["turns"][0]  # type: ignore[index]
    assert turn["heard"].count("Go!") == 100


def test_a_device_that_is_not_there(noema: Noema) -> None:
    noema("translate", "Hello.", "--to", "fra", "--device", "foo", bundle=None).fails(2, "choose auto, cpu")


def test_output_that_cannot_be_written(noema: Noema, recording: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    noema("replay", recording, "--out", tmp_path / "file" / "out").fails(2, "not a folder")
    noema("replay", recording, "--report", tmp_path / "none" / "r.html", bundle=tmp_path).fails(1, "cannot be written")
    noema("encode", "Hello.", "--out", tmp_path / "none" / "c.npz").fails(1, "cannot be written")


def test_concepts_that_cannot_be_written_leave_the_older_file_whole(noema: Noema, tmp_path: Path) -> None:
    out = tmp_path / "c.npz"
    assert noema("encode", "Hello.", "--out", out).code == 0
    before = out.read_bytes()
    (tmp_path / ".c.npz.part").mkdir()  # where the new file would be written first
    noema("encode", "Good morning.", "--out", out).fails(1, "cannot be written")
    assert out.read_bytes() == before


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


# Real processes: start-up, signals, pipes.


def noema_process(*args: object, environment: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "agent", *map(str, args)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_help_imports_nothing_heavy() -> None:
    program = "import sys, agent.cli; agent.cli.build_parser().format_help(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "numpy", "pydantic", "rich", "soundfile", "yaml"} & set(loaded)


def test_every_command_has_examples() -> None:
    for command in ("chat", "talk", "replay", "encode", "decode", "translate", "fetch", "doctor", "sessions"):
        process = noema_process(command, "--help")
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert f"noema {command}" in out.split("examples:")[1]


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


def test_a_reader_that_has_enough_is_no_error(small_bundle: Path) -> None:
    process = noema_process("translate", "--to", "fra", "--bundle", small_bundle)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.write("The cat is hungry.\n" * 100)
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0
    process.stderr.close()


@pytest.mark.slow
def test_a_reader_of_turns_that_has_enough_is_no_error_either() -> None:
    for arguments in (("first-minute", "--no-chat", "--speed", "max"), ("replay", str(SAMPLE))):
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
    result = noema("first-minute", "--no-chat", "--out", tmp_path, "--speed", "max")
    assert result.code == 0
    assert result.out.count("≈ heard") == 12
    assert result.out.count("→ reply") >= 12
    for scene in ("translate", "converse"):
        assert (tmp_path / f"noema-{scene}.wav").stat().st_size > 1_000_000
