"""`scripts.train` as its users start it: alone and by torchrun, to the end and into what cannot be."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lcm.bundle import Bundle
from lcm.training.checkpoints import read_notes
from scripts.prepare_data import main as prepare_data
from tests.lcm.training.conversations import write_concepts
from tests.small_bundle import write_small_bundle

ROOT = Path(__file__).parents[2]
CONFIG = """
base:
  row: 20
  rows_a_step: 4
  epochs: 1
  evaluate_items: 20
  negatives: 8
  model: {dim: 32, layers: 1, heads: 2, ffn_dim: 48, context: 8}
"""


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(folder: Path, *launcher: str) -> list[str]:
    """`train` with the folder's config and concepts, into its `run`."""
    separator = ["--"] if launcher else []
    return [
        sys.executable, *launcher, "-m", *separator, "scripts.train", str(folder / "small.yaml"), "--device", "cpu",
        "--concepts", str(folder / "concepts"), "--run", str(folder / "run"), "--threads", "1",
    ]  # fmt: skip


def trained(folder: Path, *launcher: str, config: str = CONFIG) -> subprocess.CompletedProcess[str]:
    """What `train` said of the folder's concepts, into its `run`."""
    (folder / "small.yaml").write_text(config, encoding="utf-8")
    write_concepts(folder / "concepts")
    return subprocess.run(
        command(folder, *launcher), capture_output=True, text=True, check=False, timeout=110, cwd=ROOT, env=ENVIRONMENT
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_torchrun_trains_in_two_processes_that_write_once(tmp_path: Path) -> None:
    said = trained(tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    assert said.returncode == 0, said.stderr[-2_000:]
    [command] = [
        json.loads(line) for line in (tmp_path / "run/commands.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert command["from"] == 0 < command["to"]
    [row] = lines(tmp_path / "run/metrics.jsonl")
    assert (row["epoch"], row["step"]) == (1, command["to"])
    assert (tmp_path / "run/curves.png").exists()


def test_a_model_of_ones_own_text_says_which_and_asks_for_nothing_of_ours(tmp_path: Path) -> None:
    def ran(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                sys.executable, "-m", "scripts.train", str(settings), "--run", str(tmp_path / "run"),
                *map(str, arguments), "--device", "cpu", "--threads", "1",
            ],
            capture_output=True, text=True, check=False, timeout=110, cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "NOEMA_DATA": str(tmp_path / "nowhere")},
        )  # fmt: skip

    bundle, concepts, settings = tmp_path / "bundle", tmp_path / "concepts", tmp_path / "small.yaml"
    write_small_bundle(bundle)
    settings.write_text(CONFIG, encoding="utf-8")
    text = "".join(f"Number {n} is here. It has come.\n" for n in range(60))
    (tmp_path / "mine.txt").write_text(text, encoding="utf-8")
    given = ["--bundle", str(bundle), "--out", str(concepts), "--documents", "line", "--device", "cpu"]
    shares = ["--dev-share", "0.2", "--test-share", "0.2"]
    assert prepare_data(["corpus", str(tmp_path / "mine.txt"), *given, *shares]) == 0
    before = (bundle / "bundle.json").read_bytes()
    assert "holds no checkpoint; train before you export" in ran("--export", bundle).stderr
    assert ran("--bundle", bundle, "--concepts", concepts).returncode == 0
    assert (bundle / "bundle.json").read_bytes() == before
    said = ran("--export", bundle)
    assert said.returncode == 0, said.stderr
    opened = Bundle.open(bundle)
    [learnt] = opened.description["training"]["data"]
    assert (learnt["part"], learnt["corpus"], learnt["files"]) == ("base", "concepts", 1)
    assert sum(learnt["documents"].values()) == 60
    assert "license" not in opened.description
    assert opened.part("base").config["ffn_dim"] == 48


def test_what_does_not_say_where_it_comes_from_is_not_exported(tmp_path: Path) -> None:
    (tmp_path / "text.yaml").write_text("text: {}", encoding="utf-8")
    said = subprocess.run(
        [
            sys.executable, "-m", "scripts.train", str(tmp_path / "text.yaml"), "--run", str(tmp_path),
            "--export", str(tmp_path / "bundle"), "--data", str(tmp_path),
        ],
        capture_output=True, text=True, check=False, timeout=110, cwd=ROOT,
    )  # fmt: skip
    assert said.returncode == 2
    assert f"{tmp_path / 'SOURCES.tsv'} must list" in said.stderr
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (CONFIG.replace("base:", "one_step:") + "  objective: {samples: 1}", "samples"),
        (CONFIG.replace("row: 20", "row: 1"), "base.row: should be greater than or equal to 2"),
        (CONFIG.replace("base:", "two_tower:") + "  objective: {weighting: fragility}", "give --bundle"),
    ],
)
def test_what_cannot_be_trained_is_one_line(wrong: str, says: str, tmp_path: Path) -> None:
    said = trained(tmp_path, config=wrong)
    assert said.returncode == 2
    assert says in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_it_trains_it_saves_and_is_no_success(tmp_path: Path, signum: signal.Signals) -> None:
    (tmp_path / "small.yaml").write_text(CONFIG.replace("epochs: 1", "epochs: 10_000"), encoding="utf-8")
    write_concepts(tmp_path / "concepts")
    process = subprocess.Popen(command(tmp_path), stderr=subprocess.PIPE, text=True, cwd=ROOT, env=ENVIRONMENT)
    try:
        while not (tmp_path / "run/metrics.jsonl").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)  # a process sets no event
        process.send_signal(signum)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    [command_line] = lines(tmp_path / "run/commands.jsonl")
    stopped = f"train: stopped at step {command_line['to']}; saved; the same command goes on where it was"
    assert said.splitlines()[-1] == stopped
    assert read_notes(tmp_path / "run")["position"][0] == command_line["to"]


def test_interrupted_while_torch_is_imported_it_prints_nothing() -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "scripts.train", "--help"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=ENVIRONMENT,
    )  # fmt: skip
    try:
        assert process.stderr
        while "torch" not in (line := process.stderr.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT, "130 to a shell"
    assert out == ""
    assert all(line.startswith("import time:") for line in rest.splitlines()[:-1]), "its last may be cut"
    assert "Traceback" not in rest


def test_interrupted_before_the_first_step_it_says_what_is_kept(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "concepts").mkdir()
    os.mkfifo(tmp_path / "concepts/manifest.json")  # it waits there, as it would for concepts to be encoded
    process = subprocess.Popen(command(tmp_path), stderr=subprocess.PIPE, text=True, cwd=ROOT, env=ENVIRONMENT)
    try:
        with (tmp_path / "concepts/manifest.json").open("wb"):  # opens when the other end is
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert said.startswith("train: stopped before training; encoded concepts, measured fragility and checkpoints stay")
    assert len(said.splitlines()) == 1
