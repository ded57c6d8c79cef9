"""Two processes: the losses of one, one end for both, and files by the first alone. Nothing here may hang."""

import json
import os
import resource
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lcm.bundle import Bundle
from lcm.errors import ComputeDeviceError, TrainingDataError
from lcm.training.checkpoints import each_tensor, read_notes
from lcm.training.concepts import ConceptTable
from lcm.training.fragility import fragility_path
from lcm.training.lcm_trainer import LcmTrainer
from lcm.training.lcm_variants import VariantTraining, lcm_trainer
from lcm.training.packing import iterate
from lcm.training.processes import ALONE, Processes, own_device
from scripts.train import train
from tests.lcm.training.conversations import write_concepts
from tests.lcm.training.small_lcms import BASE, ONE_TOWER, QUANT_C, TWO_TOWER, noted_steps, steps
from tests.lcm.training.two_processes import two_processes


def plain(config: VariantTraining, weighting: str = "one") -> VariantTraining:
    """The same without what depends on which rows a process has."""
    changes: dict[str, Any] = {"bf16": False, "model": replace(config.model, dropout=0.0)}
    if weighting != "one":
        changes["objective"] = config.objective.model_copy(update={"weighting": weighting})
    return config.model_copy(update=changes)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ConceptTable:
    return write_concepts(tmp_path_factory.mktemp("concepts"), stories=True)


pytestmark = pytest.mark.usefixtures("one_thread")


def six_steps(
    processes: Processes, config: VariantTraining, folder: Path, run: Path, bundle: Path | None
) -> list[dict[str, float]]:
    trainer = lcm_trainer(config, ConceptTable.open(folder), run, processes, bundle)
    terms = noted_steps(trainer)
    steps(trainer, 6)
    trainer.save()
    return terms


LIKE_ONE = {
    "base": plain(BASE), "one_tower": plain(ONE_TOWER), "two_tower": plain(TWO_TOWER), "quant_c": plain(QUANT_C),
    "clamped_snr": plain(TWO_TOWER, "clamped_snr"), "fragility": plain(TWO_TOWER, "fragility"),
    "without_turns": plain(BASE.model_copy(update={"model": replace(BASE.model, turns=False)})),
}  # fmt: skip


@pytest.mark.parametrize("name", LIKE_ONE)
def test_two_processes_have_the_losses_of_one(
    name: str, table: ConceptTable, small_bundle: Path, tmp_path: Path
) -> None:
    config, bundle = LIKE_ONE[name], None
    if name in ("fragility", "without_turns"):
        bundle, opened = small_bundle, Bundle.open(small_bundle)
        table = write_concepts(tmp_path / "concepts", opened.space_id, opened.concept_dim)
        measured = fragility_path(table, table.documents("train"), opened.part("text_decoder").hashes)
        np.save(measured, np.linspace(0, 1, len(table.concepts), dtype=np.float32))
    both = two_processes(tmp_path / "two", six_steps, config, table.folder, tmp_path / "both", bundle)
    assert [ended.error for ended in both] == ["", ""]
    alone = six_steps(ALONE, config, table.folder, tmp_path / "one", bundle)
    for ended in both:
        for one, two in zip(alone, ended.value, strict=True):
            assert two == pytest.approx(one, rel=2e-3, abs=1e-4)
    first, second = tmp_path / "one", tmp_path / "both"
    assert [name for name, _ in each_tensor(first)] == [name for name, _ in each_tensor(second)]
    assert read_notes(first) == read_notes(second)
    resumed = lcm_trainer(config, table, tmp_path / "both", bundle=bundle)  # what two wrote, one goes on with
    assert resumed.step == 6
    steps(resumed, 1)


def drawn(processes: Processes, folder: Path, run: Path) -> tuple[list[float], list[float]]:
    """What an objective draws, and what dropout would."""
    trainer = lcm_trainer(BASE, ConceptTable.open(folder), run, processes)
    [_, _, rows] = next(iterate(trainer.documents, trainer.config.packing(), 0, 0))
    torch.manual_seed(7)
    batch = replace(trainer._batch(rows), mine=slice(None))
    numbers = torch.cat(
        [batch.uniform(1).flatten(), batch.noise_like(batch.concepts)[0, 0], batch.by_lot(5).sum()[None]]
    )
    return numbers.tolist(), torch.rand(4).tolist()


def test_processes_draw_alike_what_is_learnt_and_each_its_own_dropout(table: ConceptTable, tmp_path: Path) -> None:
    both = two_processes(tmp_path / "two", drawn, table.folder, tmp_path / "both")
    assert [ended.error for ended in both] == ["", ""]
    (learnt, own), (others_learnt, others_own) = (ended.value for ended in both)
    alone, _ = drawn(ALONE, table.folder, tmp_path / "one")
    assert learnt == others_learnt == alone
    assert own != others_own


def stopped(processes: Processes, folder: Path, run: Path) -> int:
    trainer = lcm_trainer(BASE, ConceptTable.open(folder), run, processes)
    step = trainer.train_step

    def told(*given: Any) -> dict[str, torch.Tensor]:
        if trainer.step == 2 and processes.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*given)

    trainer.train_step = told  # type: ignore[method-assign,assignment]
    train(trainer, processes)
    trainer.save()
    return trainer.step


def test_a_signal_to_one_ends_both_after_the_same_step(table: ConceptTable, tmp_path: Path) -> None:
    both = two_processes(tmp_path / "two", stopped, table.folder, tmp_path / "run")
    assert [(ended.error, ended.value) for ended in both] == [("", 3), ("", 3)]
    assert read_notes(tmp_path / "run")["position"][0] == 3


def filled_disk(processes: Processes, folder: Path, run: Path) -> None:
    config = BASE.model_copy(update={"checkpoint_every": 2})
    trainer = lcm_trainer(config, ConceptTable.open(folder), run, processes)
    if processes.first:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    train(trainer, processes)


def test_a_full_disk_is_everybodys_end(table: ConceptTable, tmp_path: Path) -> None:
    first, second = two_processes(tmp_path / "two", filled_disk, table.folder, tmp_path / "run")
    assert "could not be written" in first.error
    assert second.error.startswith("TrainingDataError: the first process could not go on")


def unforeseen(processes: Processes) -> None:
    def work() -> None:
        raise KeyError("unforeseen")

    processes.by_first(work)


def test_whatever_ends_the_first_the_others_hear_of(tmp_path: Path) -> None:
    first, second = two_processes(tmp_path / "two", unforeseen)
    assert first.error == "KeyError: 'unforeseen'"
    assert second.error.startswith("TrainingDataError: the first process could not go on")


class Spoilt:
    """A table of which no number is left."""

    def __init__(self, table: ConceptTable) -> None:
        self.of = lambda rows: table.of(rows) * float("nan")


def without_numbers(processes: Processes, folder: Path, run: Path) -> None:
    table = ConceptTable.open(folder)
    trainer = lcm_trainer(BASE.model_copy(update={"epochs": 30}), table, run, processes)
    trainer.step, trainer._lost = 15, 15  # of twenty
    if processes.rank == 1:
        trainer.table = Spoilt(table)  # type: ignore[assignment]
    trainer.evaluate = dict  # type: ignore[method-assign]
    train(trainer, processes)


def test_nothing_but_bad_gradients_in_one_ends_both(table: ConceptTable, tmp_path: Path) -> None:
    both = two_processes(tmp_path / "two", without_numbers, table.folder, tmp_path / "run")
    for ended in both:
        assert "20 steps up to 20 had no finite gradient" in ended.error


def to_the_end(processes: Processes, folder: Path, run: Path) -> int:
    trainer = lcm_trainer(BASE.model_copy(update={"epochs": 2}), ConceptTable.open(folder), run, processes)
    evaluated = LcmTrainer._hits
    count = 0

    def counted(*given: Any) -> dict[str, float]:
        nonlocal count
        count += 1
        return evaluated(*given)

    LcmTrainer._hits = counted  # type: ignore[method-assign,assignment]
    train(trainer, processes)
    return count


def test_the_first_alone_evaluates_and_writes(table: ConceptTable, tmp_path: Path) -> None:
    first, second = two_processes(tmp_path / "two", to_the_end, table.folder, tmp_path / "run")
    assert (first.error, second.error) == ("", "")
    assert (first.value, second.value) == (2, 0)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]


def asked(processes: Processes) -> list[bool]:
    return [processes.agreed(False), processes.agreed(processes.rank == 1), processes.agreed(True)]


def test_what_one_says_all_have_agreed_on(tmp_path: Path) -> None:
    for ended in two_processes(tmp_path, asked):
        assert ended.value == [False, True, True]
    assert [ALONE.agreed(False), ALONE.agreed(True)] == [False, True]


def test_each_process_of_a_machine_has_a_gpu_of_its_own() -> None:
    cuda = torch.device("cuda")
    assert [own_device(cuda, number, 2) for number in range(2)] == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert own_device(torch.device("cpu"), 5, 0) == torch.device("cpu")
    with pytest.raises(ComputeDeviceError, match=r"process 3 .* no GPU of its own: there are 2; .*--nproc-per-node=2"):
        own_device(cuda, 2, 2)


def test_what_the_first_does_alone_fails_as_it_failed() -> None:
    def fails() -> None:
        raise TrainingDataError("no room")

    with pytest.raises(TrainingDataError, match="no room"):
        ALONE.by_first(fails)
