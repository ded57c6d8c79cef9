"""`scripts.train` as its users start it: alone and by torchrun, to the end and into what cannot be."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lcm.training.conversations import write_concepts

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
