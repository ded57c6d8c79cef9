"""`scripts.prepare_data corpus` on the real mini bundle: each form of corpus, and every way in which it may end."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from lcm.space import ConceptSpace
from lcm.training.concepts import ConceptTable
from scripts.prepare_data import main

ROOT = Path(__file__).parents[2]
NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Frank", "Greta", "Hugo")
PLACES = ("garden", "kitchen", "village", "station", "forest", "library", "market", "harbour")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "scripts.prepare_data", "corpus", *map(str, arguments), "--threads", "1"]


def process(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, running: "subprocess.Popen[str]") -> None:
    """Until the process has written a file that stays."""
    while not path.exists():
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)  # a process sets no event


def ended(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False, **options)


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    """The last line of stdout."""
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen hundred sentences."""
    path = tmp_path_factory.mktemp("corpus") / "stories.jsonl"
    with path.open("w") as file:
        for n in range(200):
            name, place = NAMES[n % 8], PLACES[n // 8 % 8]
            said = [f"{name} went to the {place} on day {n} for the {i}th time." for i in range(8)]
            file.write(json.dumps({"text": " ".join(said)}) + "\n")
    return path


@pytest.fixture(scope="module")
def whole(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an uninterrupted run makes of them."""
    out = tmp_path_factory.mktemp("whole") / "concepts"
    assert ended(stories, "--out", out, "--shard-rows", 256).returncode == 0
    return files(out)


def as_text(folder: Path) -> list[object]:
    (folder / "a.txt").write_text("Le chat dort. Il rêve.\nIl pleut.", encoding="utf-8")
    return [folder / "a.txt", "--language", "fra"]


def as_json_lines(folder: Path) -> list[object]:
    row = {"body": "Le chat dort. Il rêve.\nIl pleut.", "lang": "fr"}
    (folder / "a.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({"lang": "fr"}) + "\n")
    return [folder, "--text", "body", "--language", "lang"]


def as_parquet(folder: Path) -> list[object]:
    row = {"body": ["Le chat dort. Il rêve.", "Il pleut."], "lang": "fra_Latn"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), folder / "a.parquet")
    return [folder / "*.parquet", "--text", "body", "--language", "lang"]


def as_dialogue(folder: Path) -> list[object]:
    turns = [{"role": "user", "text": "Le chat dort. Il rêve."}, {"role": "agent", "text": "Il pleut."}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"said": turns}]), folder / "a.parquet")
    return [folder / "a.parquet", "--turns", "said", "--language", "fra"]


@pytest.mark.parametrize("form", [as_text, as_json_lines, as_parquet, as_dialogue])
def test_each_form_of_corpus_becomes_the_same_concepts(
    form: Callable[[Path], list[object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    given = [*map(str, form(tmp_path / "in")), "--out", str(tmp_path / "mine")]
    assert main(["corpus", *given, "--dev-share", "0", "--test-share", "0"]) == 0
    result = told(capsys)
    assert (result["rows"], result["sentences"], result["documents"]["train"]) == (3, 3, 1)
    assert result["sentences_per_second"] > 0
    assert result["skipped"]["records"] == ({"no field 'body'": 1} if form is as_json_lines else {})
    space = ConceptSpace.load("mini", "cpu", parts=["text_encoder"])
    table = ConceptTable.open(tmp_path / "mine", space.space_id)
    assert list(table.texts()) == [("fra", "Le chat dort."), ("fra", "Il rêve."), ("fra", "Il pleut.")]
    expected = space.encode_text([text for _, text in table.texts()], "fra")
    torch.testing.assert_close(table.of(np.arange(3)), expected, rtol=2e-3, atol=2e-3)
    documents = table.documents("train")
    dialogue = form is as_dialogue
    assert documents.roles.tolist() == ([0, 0, 1] if dialogue else [2, 2, 2])
    assert documents.last.tolist() == [0, 1, 1]
    assert documents.corpus(0) == ("dialogue/mine.fra" if dialogue else "story/mine.fra")


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_bits(stories: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "concepts"
    for shard in (1, 4):
        running = process(stories, "--out", out, "--shard-rows", 256)
        wait_for(out / f"part-{shard:05d}.npz", running)
        running.kill()
        running.communicate()
        assert running.returncode == -signal.SIGKILL
    again = ended(stories, "--out", out, "--shard-rows", 256)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["encoded"] < 1600
    assert files(out) == whole


@pytest.mark.slow
def test_interrupted_it_says_how_to_go_on(stories: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "concepts"
    running = process(stories, "--out", out, "--shard-rows", 256)
    wait_for(out / "part-00001.npz", running)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate()
    assert running.returncode == 130
    assert err.splitlines()[-1] == "prepare_data: stopped; the same command goes on where it was"
    assert "Traceback" not in err
    assert ended(stories, "--out", out, "--shard-rows", 256).returncode == 0
    assert files(out) == whole


@pytest.mark.slow
def test_a_full_disk_is_told_and_what_is_there_is_kept(stories: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    def no_file_above_100_kb() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    out = tmp_path / "concepts"
    full = ended(stories, "--out", out, "--shard-rows", 256, preexec_fn=no_file_above_100_kb)
    assert full.returncode == 2, full.stderr
    last = full.stderr.splitlines()[-1]
    assert last.startswith(f"prepare_data: no room left for {out}")
    assert "it goes on where it was" in last
    assert "Traceback" not in full.stderr
    assert ended(stories, "--out", out, "--shard-rows", 256).returncode == 0
    assert files(out) == whole


@pytest.mark.slow
def test_two_at_once_on_one_folder(stories: Path, tmp_path: Path) -> None:
    out = tmp_path / "concepts"
    running = process(stories, "--out", out, "--shard-rows", 256)
    wait_for(out / "part-00000.npz", running)
    second = ended(stories, "--out", out, "--shard-rows", 256)
    running.kill()
    running.communicate()
    assert second.returncode == 2
    assert second.stderr.splitlines()[-1].startswith(f"prepare_data: another process is writing to {out}")


def test_bad_input_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "One. Two."}\n{"text": "Thr\n')
    given = ["corpus", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "mine")]
    assert main([*given, "--strict"]) == 2
    assert f"prepare_data: {tmp_path / 'a.jsonl'}:2: not JSON" in capsys.readouterr().err
    assert main([*given, "--text", "body"]) == 2, "where nothing is decided yet, another setting may be tried"
    err = capsys.readouterr().err.splitlines()
    assert any(line.endswith("a.jsonl:1: no field 'body' (it has text)") for line in err)
    assert "no document of two sentences or more could be used" in err[-1]
    assert main(["corpus", str(tmp_path / "b"), "--out", str(tmp_path / "mine")]) == 2
    assert capsys.readouterr().err == f"prepare_data: no file {tmp_path / 'b'}\n"
    assert main([*given, "--dev-share", "0.6", "--test-share", "0.6"]) == 2
    assert capsys.readouterr().err == (
        "prepare_data: --dev-share and --test-share are 1.2 together; leave some to train on\n"
    )
    assert main([*given, "--bundle", "nowhere"]) == 2
    for wrong in (["--dev-share", "2"], ["--shard-rows", "0"], ["--documents", "page"]):
        with pytest.raises(SystemExit, match="2"):
            main([*given, *wrong])


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").touch(0o000)
    assert main(["corpus", str(tmp_path / "a.txt"), "--out", str(tmp_path / "mine")]) == 2
    assert "a.txt (Permission denied)" in capsys.readouterr().err


def test_the_splits_of_mini_are_made_as_ever(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path), "--out", str(tmp_path / "data")]) == 2
    assert "--data" in capsys.readouterr().err
