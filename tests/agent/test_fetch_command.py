"""`noema fetch`, as a user meets it: what is listed, asked, fetched from a local mirror, and described as a bundle."""

import hashlib
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.fetching.partial_file import begun_bytes, locked
from lcm.bundle import Bundle
from lcm.space.sonar import SPEECH_CARDS, TEXT_CARDS, TOKENIZER, write_sonar_bundle
from tests import file_server
from tests.file_server import FileServer
from tests.noema_command import ROOT, Noema, Result
from tests.published_files import published

GOLDEN = ROOT / "tests" / "golden" / "sonar"
ENCODER, DECODER, FINETUNED = (TEXT_CARDS[name].file for name in ("encoder", "decoder", "finetuned"))
ENGLISH, FRENCH = SPEECH_CARDS["eng"].file, SPEECH_CARDS["fra"].file
FILES = {
    card.file: published(card, seed)
    for seed, card in enumerate((TOKENIZER, *TEXT_CARDS.values(), SPEECH_CARDS["eng"], SPEECH_CARDS["fra"]))
}
CODE_OF_USAGE = 2


@pytest.fixture
def mirror() -> Iterator[FileServer]:
    with FileServer(FILES) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `--bundle sonar` looks."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for name in ("NOEMA_SONAR_URL", "NOEMA_COMMAND"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "noema" / "bundles" / "sonar"


@pytest.fixture
def noema_fetch(noema: Noema, home: Path) -> Noema:
    """`noema fetch`, with a home of its own."""
    return lambda *args: noema("fetch", *args)


@pytest.fixture
def fetch(noema_fetch: Noema, mirror: FileServer) -> Noema:
    """`noema fetch sonar` from the local mirror, with the licence accepted."""
    return lambda *args: noema_fetch("sonar", "--from", f"{mirror.address}/SONAR/", "--accept-licence", *args)


def names_fetched(result: Result) -> list[str]:
    files = result.json["files"]
    assert isinstance(files, list)
    return [file["name"] for file in files if file["fetched"]]


def test_everything_published_is_listed_offline(noema_fetch: Noema) -> None:
    lines = noema_fetch().out.splitlines()
    assert lines == noema_fetch("--list").out.splitlines()
    assert len(lines) == 1 + 1 + len(TEXT_CARDS) + len(SPEECH_CARDS) + 2
    [swahili] = [line for line in lines if " swh " in line]
    for told in ("sonar_speech_encoder_swh", "Swahili", "about 2.8 GB", "MIT", SPEECH_CARDS["swh"].url):
        assert told in swahili
    [encoder] = [line for line in lines if line.startswith("text_sonar_basic_encoder ")]
    assert "202 languages" in encoder
    assert "CC-BY-NC-4.0" in encoder


def test_the_addresses_of_a_mirror_are_listed(noema_fetch: Noema, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOEMA_SONAR_URL", "https://me:secret@mirror.example/SONAR/")
    [*_, encoder] = [line for line in noema_fetch().out.splitlines() if line.startswith("text_sonar_basic_encoder ")]
    assert encoder.endswith(f" https://mirror.example/SONAR/{ENCODER}")
    files = noema_fetch("--json").json["files"]
    assert isinstance(files, list)
    assert all(file["url"].startswith("https://mirror.example/SONAR/") for file in files)
    monkeypatch.setenv("NOEMA_SONAR_URL", "nonsense")
    noema_fetch("--list").fails(CODE_OF_USAGE, "NOEMA_SONAR_URL: write https://nonsense")


def test_the_list_is_there_for_programs(noema_fetch: Noema, home: Path) -> None:
    listed = noema_fetch("--json").json
    assert (listed["bundle"], listed["folder"]) == ("sonar", str(home))
    files = listed["files"]
    assert isinstance(files, list)
    assert all(file["fetched"] is False for file in files)
    assert {"name", "file", "languages", "about_bytes", "licence", "url"} < set(files[0])


def test_text_becomes_a_bundle(fetch: Noema, home: Path) -> None:
    result = fetch("--text")
    assert result.code == 0, result.err
    bundle = Bundle.open("sonar", verify=True)
    assert bundle.folder == home
    assert bundle.parts == ("text_encoder", "text_decoder")
    assert len(bundle.languages["text"]) == 202
    assert bundle.description["licences"] == dict.fromkeys(["tokenizer.model", ENCODER, DECODER], "CC-BY-NC-4.0")
    assert (home / "tokenizer.model").read_bytes() == FILES[TOKENIZER.file]
    assert {path.name for path in home.iterdir()} == {".fetch.lock", "bundle.json", "tokenizer.model", ENCODER, DECODER}
    assert "--bundle sonar --language swh --to fin" in result.out.splitlines()[-1]


def test_files_sizes_places_and_licences_are_shown_first(fetch: Noema, mirror: FileServer, home: Path) -> None:
    out = fetch("--text", "--speech", "fra").out
    assert f"from {mirror.address}/SONAR/ to {home}" in out
    for told in (
        f"{ENCODER}    about   3.1 GB   CC-BY-NC-4.0",
        f"{FRENCH}        about   2.8 GB   MIT",
        "about   9.4 GB",
    ):
        assert told in out
    for page in ("NC_MODEL_LICENSE.md", "CODE_LICENSE.md"):
        assert page in out
    assert "not for commercial use" in out


def test_nobody_to_ask_is_no_consent(noema_fetch: Noema, mirror: FileServer) -> None:
    result = noema_fetch("sonar", "--text", "--from", mirror.address)
    result.fails(2, "add --accept-licence to agree to the licences above")
    assert "CC-BY-NC-4.0: not for commercial use" in result.out
    assert mirror.seen == []


def test_programs_get_one_object_and_people_the_rest(fetch: Noema, home: Path) -> None:
    result = fetch("--text", "--speech", "eng", "--json")
    assert result.out.count("\n") == 1
    assert "CC-BY-NC-4.0" in result.err
    assert set(result.json) == {"bundle", "folder", "files", "seconds"}
    assert (result.json["bundle"], result.json["folder"]) == ("sonar", str(home))
    files = result.json["files"]
    assert isinstance(files, list)
    content = FILES[ENGLISH]
    assert files[-1] == {
        "name": ENGLISH,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "licence": "CC-BY-NC-4.0",
        "fetched": True,
    }


def test_what_is_here_is_not_fetched_again(fetch: Noema, mirror: FileServer, home: Path) -> None:
    fetch("--text")
    before, asked = (home / "bundle.json").read_bytes(), len(mirror.seen)
    result = fetch("--text", "--json")
    assert names_fetched(result) == []
    assert len(mirror.seen) == asked
    assert (home / "bundle.json").read_bytes() == before
    assert "Nothing to fetch" in fetch("--text").out


def test_speech_is_added_to_text(fetch: Noema, noema_fetch: Noema, home: Path) -> None:
    fetch("--text")
    assert names_fetched(fetch("--speech", "fra,eng,fra", "--json")) == [FRENCH, ENGLISH]
    bundle = Bundle.open(home, verify=True)
    assert bundle.languages["speech"] == ["eng", "fra"]
    assert bundle.part("speech_encoder_fra").config["pooler_layers"] == 6
    assert [line.split()[0] for line in noema_fetch().out.splitlines() if " here " in line][1:] == [
        "tokenizer",
        "text_sonar_basic_encoder",
        "text_sonar_basic_decoder",
        "sonar_speech_encoder_eng",
        "sonar_speech_encoder_fra",
    ]


def test_the_finetuned_decoder_takes_the_place_of_the_other(fetch: Noema, home: Path) -> None:
    fetch("--text", "--speech", "eng")
    result = fetch("--text", "--finetuned")
    assert f"{DECODER} is deleted then" in result.out
    bundle = Bundle.open(home, verify=True)
    assert bundle.part("text_decoder").checkpoint == home / FINETUNED
    assert bundle.part("speech_encoder_eng").checkpoint == home / ENGLISH
    assert not (home / DECODER).exists()
    assert set(bundle.description["licences"]) == {"tokenizer.model", ENCODER, FINETUNED, ENGLISH}


@pytest.mark.parametrize("gone", [ENCODER, ENGLISH, "tokenizer.model"])
def test_a_file_that_is_gone_is_fetched_too(fetch: Noema, home: Path, gone: str) -> None:
    """Whatever was asked for: without it the bundle could not be opened."""
    fetch("--text", "--speech", "eng")
    (home / gone).unlink()
    assert names_fetched(fetch("--speech", "fra", "--json")) == [gone, FRENCH]
    Bundle.open(home, verify=True)


def test_a_damaged_file_is_fetched_again(fetch: Noema, home: Path) -> None:
    fetch("--text")
    content = bytearray(FILES[DECODER])
    content[1000] ^= 1
    (home / DECODER).write_bytes(content)
    assert names_fetched(fetch("--text", "--json")) == [DECODER]
    Bundle.open(home, verify=True)


def test_files_before_a_failure_are_kept(fetch: Noema, mirror: FileServer, home: Path) -> None:
    mirror.answers[ENCODER] = [file_server.status(404)]
    fetch("--text").fails(1, "answers 404")
    assert not (home / "bundle.json").exists()
    mirror.answers[ENGLISH] = [file_server.replying(b"<html>log in</html>")]
    fetch("--text", "--speech", "eng").fails(1, "sent a web page, not a checkpoint")
    assert Bundle.open(home).parts == ("text_encoder", "text_decoder")
    assert names_fetched(fetch("--text", "--speech", "eng", "--json")) == [ENGLISH]
    assert len(mirror.starts(TOKENIZER.file)) == 1


def test_a_folder_of_ones_own(fetch: Noema, noema_fetch: Noema, tmp_path: Path, home: Path) -> None:
    folder = tmp_path / "my models"
    result = fetch("--text", "--folder", folder, "--json")
    assert (result.json["bundle"], result.json["folder"]) == (str(folder), str(folder))
    assert f"--bundle '{folder}'" in fetch("--text", "--folder", folder).out
    assert not home.exists()


def test_the_mirror_may_stand_in_the_environment(
    noema_fetch: Noema, mirror: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOEMA_SONAR_URL", mirror.address)
    assert noema_fetch("sonar", "--text", "--accept-licence").code == 0


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["sonar"], "Give --text, --speech eng,fra or both"),
        (["sonar", "--finetuned", "--speech", "eng"], "add --text"),
        (["sonar", "--speech", "eng"], "add --text"),
        (["sonar", "--text", "--speech", "Finish"], "did you mean fin (Finnish)"),
        (["sonar", "--text", "--speech", "en"], "did you mean eng (English)?"),
        (["sonar", "--text", "--speech", "zh"], "did you mean cmn (Mandarin Chinese) or yue (Yue Chinese)?"),
        (["sonar", "--text", "--from", "http://me:secret@mirror.example/"], "http://mirror.example/: give an https"),
        (["sonar", "--text", "--from", "localhost:8000"], "--from: write http://localhost:8000"),
        (["--list", "--from", "nonsense"], "write https://nonsense"),
        (["sonar", "--text", "--folder", ROOT / "README.md"], "README.md is not a folder; choose another --folder"),
        (["sonar", "--text", "--from", "https://mirror.example/?key=1"], "not with a query"),
        (["--text"], "write `noema fetch sonar`"),
        (["sonar", "--list", "--text"], "leave out --list"),
        (["sonar", "--text", "--folder", ROOT / "lcm" / "bundles" / "mini"], "holds the bundle 'mini'"),
    ],
)
def test_what_cannot_be_meant_is_said(noema_fetch: Noema, args: list[object], told: str, home: Path) -> None:
    noema_fetch(*args).fails(CODE_OF_USAGE, told)


def test_a_damaged_description_is_said(noema_fetch: Noema, tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text('{"name": ')
    noema_fetch("sonar", "--text", "--folder", tmp_path).fails(2, "bundle.json is damaged; delete the folder")


def test_a_file_that_cannot_be_the_model_is_refused(fetch: Noema, mirror: FileServer, home: Path) -> None:
    mirror.files[ENCODER] = (GOLDEN / "sonar_text_encoder.pt").read_bytes()
    result = fetch("--text")
    result.fails(
        1, f"{mirror.address}/SONAR/{ENCODER} sent another file ('embed.weight' is [316, 32], expected [256206"
    )
    assert "which was dropped; check the address, or name another one (--from)" in result.err
    assert not (home / ENCODER).exists()
    mirror.files[ENCODER] = FILES[ENCODER]
    assert fetch("--text").code == 0
    Bundle.open(home, verify=True)


def test_a_tokenizer_of_another_model_is_refused(fetch: Noema, mirror: FileServer) -> None:
    mirror.files[TOKENIZER.file] = (GOLDEN / "tokenizer.model").read_bytes()
    fetch("--text").fails(1, "sent another file (it makes 316 tokens of its languages, not 256,206), which was dropped")


def test_a_bundle_whose_files_do_not_fit_is_repaired(fetch: Noema, mirror: FileServer, home: Path) -> None:
    """As versions of Noema fetched them that did not look: every hash is right."""
    fetch("--text")
    shutil.copy(GOLDEN / "sonar_text_decoder.pt", home / DECODER)
    write_sonar_bundle(home, [TEXT_CARDS["decoder"]])
    Bundle.open(home, verify=True)
    result = fetch("--text")
    assert f"{DECODER} is not what it should be ('embed.weight' is [316, 32], expected [256206, 1024])." in result.out
    assert (home / DECODER).read_bytes() == FILES[DECODER]
    Bundle.open(home, verify=True)


def test_loading_such_a_bundle_says_how_to_repair_it(fetch: Noema, noema: Noema, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    fetch("--text", "--speech", "fra", "--folder", folder)
    shutil.copy(GOLDEN / "sonar_text_encoder.pt", folder / ENCODER)
    write_sonar_bundle(folder, [TEXT_CARDS["encoder"], TEXT_CARDS["decoder"], SPEECH_CARDS["fra"]])
    repair = f"run this again: noema fetch sonar --text --speech fra --folder {folder}"
    noema("encode", "Hello.", "--language", "eng", bundle=folder).fails(1, repair)


def test_a_fetch_that_is_not_finished_is_told_by_what_needs_it(
    fetch: Noema, noema: Noema, mirror: FileServer, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    mirror.answers[ENCODER] = [file_server.status(404)]
    fetch("--text", "--folder", folder).fails(1, "answers 404")
    told = f"the fetch into {folder} is not finished; run this again: noema fetch sonar --text --folder {folder}"
    noema("translate", "Hello.", "--language", "eng", "--to", "fra", bundle=folder).fails(1, told)


def test_room_is_made_sure_of_for_all_files_before_anybody_is_asked(
    noema_fetch: Noema, mirror: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.fetching.fetch.free_bytes", lambda folder: 4 * 10**9)
    told = "has 4.0 GB left, but 6.5 GB are to come and 268.4 MB shall stay free; make room, choose another place"
    noema_fetch("sonar", "--text").fails(1, told)  # from Meta's address, which nobody asks
    mirror.announced = {ENCODER: 3 * 10**9, DECODER: 2 * 10**9}
    noema_fetch("sonar", "--text", "--from", mirror.address).fails(1, "but 5.0 GB are to come")
    assert mirror.seen == []


def test_a_mirror_may_have_smaller_files(fetch: Noema, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.fetching.fetch.free_bytes", lambda folder: 4 * 10**9)
    assert fetch("--text").code == 0


def test_what_has_come_needs_no_more_room(
    noema_fetch: Noema, mirror: FileServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir(parents=True)
    for card, come in ((TEXT_CARDS["encoder"], 2 * 10**9), (TEXT_CARDS["decoder"], 10**9)):
        with (home / f"{card.file}.part").open("wb") as part:
            part.truncate(come)
    monkeypatch.setattr("agent.fetching.fetch.free_bytes", lambda folder: 3 * 10**9)
    noema_fetch("sonar", "--text").fails(1, "but 3.5 GB are to come")


def test_a_place_where_nothing_can_be_written_is_said(fetch: Noema) -> None:
    fetch("--text", "--folder", "/proc/noema").fails(1, "nothing can be written to the folder /proc/noema")


def test_the_licence_may_be_spelt_otherwise(noema_fetch: Noema, mirror: FileServer) -> None:
    assert noema_fetch("sonar", "--text", "--accept-license", "--from", mirror.address).code == 0


def test_the_next_command_is_one_that_works_here(
    fetch: Noema, noema_fetch: Noema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOEMA_COMMAND", "./scripts/run")
    fetch("--text")
    monkeypatch.setattr("agent.commands.fetch._memory_bytes", lambda: 16 * 10**9)
    last = fetch("--text").out.splitlines()[-1]
    assert last.startswith("Try: ./scripts/run translate ")
    assert last.endswith("--to fin")
    monkeypatch.setattr("agent.commands.fetch._memory_bytes", lambda: 7 * 10**9)
    assert fetch("--text").out.splitlines()[-1] == f"{last} --precision bfloat16"
    assert noema_fetch().out.splitlines()[-1].startswith("`./scripts/run fetch sonar ")


def test_two_at_once_are_one_too_many(fetch: Noema, mirror: FileServer, home: Path) -> None:
    with locked(home):
        fetch("--text").fails(1, f"another `noema fetch` is at work in {home}")
    assert mirror.seen == []


@pytest.mark.parametrize(
    ("how", "code", "told"),
    [(signal.SIGINT, 130, "noema: interrupted; what has come is kept"), (signal.SIGKILL, -9, "")],
    ids=["ctrl-c", "kill -9"],
)
def test_an_interrupted_fetch_resumes(
    fetch: Noema, mirror: FileServer, home: Path, how: signal.Signals, code: int, told: str
) -> None:
    mirror.files[ENCODER] = published(TEXT_CARDS["encoder"], megabytes=3)
    reached = threading.Event()
    mirror.answers[ENCODER] = [file_server.holding(2_500_000, lambda: begun_bytes(home / ENCODER) > 1_000_000, reached)]
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", "fetch", "sonar", "--text", "--accept-licence", "--from", mirror.address],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert reached.wait(60)
    process.send_signal(how)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert told in err
    assert "Traceback" not in err
    kept = begun_bytes(home / ENCODER)
    assert kept > 1_000_000

    assert names_fetched(fetch("--text", "--json")) == [ENCODER, DECODER]
    assert mirror.starts(ENCODER) == [0, kept]
    assert (home / ENCODER).read_bytes() == mirror.files[ENCODER]
    Bundle.open(home, verify=True)


@pytest.mark.parametrize(
    ("answer", "code", "told"), [("y", 0, f"{ENCODER}: 100%"), ("", 1, "the licence was not accepted")]
)
def test_at_a_terminal_one_is_asked(mirror: FileServer, home: Path, answer: str, code: int, told: str) -> None:
    """With a real terminal on all three streams: the question, and a bar for each file."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    command = [sys.executable, "-m", "agent", "fetch", "sonar", "--text", "--from", mirror.address]
    process = subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = read_until(ours, b"[y/N] ")
    os.write(ours, f"{answer}\n".encode())
    shown += read_until(ours, None)
    os.close(ours)
    assert process.wait(30) == code
    assert told in shown.decode()
    assert (home / "bundle.json").exists() is (code == 0)


def read_until(terminal: int, end: bytes | None) -> bytes:
    """What a program writes to its terminal, as far as `end` or its own end."""
    shown = b""
    while end is None or end not in shown:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # how Linux says that nobody has the other side open
            break
        if not piece:
            break
        shown += piece
    return shown
