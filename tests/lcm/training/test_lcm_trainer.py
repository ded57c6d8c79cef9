"""The trainer of the LCMs: learns, resumes to the same losses, alone or in two processes, and loses nothing."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lcm.bundle import Bundle, BundleWriter
from lcm.engine import Engine, Sampling
from lcm.errors import BundleError, TrainingDataError
from lcm.models.base_lcm import BaseLcmConfig
from lcm.models.one_step import OneStepConfig
from lcm.models.one_tower import OneTowerConfig
from lcm.models.planning import PlanningConfig
from lcm.models.quantized import QuantizedConfig
from lcm.models.two_tower import TwoTower, TwoTowerConfig
from lcm.training.checkpoints import NAME, read_tensors
from lcm.training.concepts import ConceptTable
from lcm.training.distillation import Distillation
from lcm.training.export import export_lcm
from lcm.training.lcm_trainer import LcmTrainer
from lcm.training.lcm_variants import (
    BaseTraining,
    DistilledTraining,
    OneStepTraining,
    OneTowerTraining,
    PlanningTraining,
    QuantizedTraining,
    TwoTowerTraining,
    VariantTraining,
    lcm_trainer,
)
from lcm.training.regression import contrast_logits
from tests.lcm.training.conversations import DIM, write_concepts

ROOT = Path(__file__).parents[3]
RUN: dict[str, Any] = {
    "row": 20, "rows_a_step": 4, "epochs": 3, "lr": 3e-3, "negatives": 8, "warmup_steps": 5, "evaluate_items": 20,
}  # fmt: skip
BASE = BaseTraining(**RUN, model=BaseLcmConfig(dim=32, layers=1, heads=2, ffn_dim=48, context=8, key_dim=8))
TWO_TOWER = TwoTowerTraining(
    **RUN, model=TwoTowerConfig(dim=32, layers=1, denoiser_layers=2, heads=2, ffn_dim=48, context=8)
)
ONE_TOWER = OneTowerTraining(**RUN, model=OneTowerConfig(dim=32, layers=2, heads=2, ffn_dim=48, context=8))
ONE_STEP = OneStepTraining(**RUN, model=OneStepConfig(dim=32, layers=1, heads=2, ffn_dim=48, context=8, noise_dim=4))
QUANT: dict[str, Any] = {"dim": 32, "layers": 2, "heads": 2, "ffn_dim": 48, "context": 8, "codebooks": 3, "entries": 8}
QUANT_D = QuantizedTraining(**RUN, model=QuantizedConfig(**QUANT), sampling=Sampling(guidance=1.0))
QUANT_C = QuantizedTraining(**RUN, model=QuantizedConfig(**QUANT, discrete=False), sampling=Sampling(guidance=1.0))
PLANNING = PlanningTraining(**RUN, model=PlanningConfig(dim=32, layers=2, heads=2, ffn_dim=48, context=8))
EVERY = [BASE, ONE_TOWER, PLANNING, TWO_TOWER, ONE_STEP, QUANT_D, QUANT_C]
LEAST = {"base": 40.0}
"""Hits@1 after thirty epochs; of what is drawn by lot in a model this small less is asked: chance is 5"""


def named(config: VariantTraining) -> str:
    return config.variant


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ConceptTable:
    return write_concepts(tmp_path_factory.mktemp("concepts"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def steps(trainer: LcmTrainer, count: int) -> None:
    for _ in islice(trainer.train(), count):
        pass


@pytest.mark.parametrize("config", EVERY, ids=named)
def test_it_learns_what_follows(config: VariantTraining, table: ConceptTable, tmp_path: Path) -> None:
    trainer = lcm_trainer(config.model_copy(update={"epochs": 30}), table, tmp_path)
    rows = [row for row in trainer.train() if row]
    hits = [row["hits dialogue"] for row in rows if "hits dialogue" in row]
    assert len(hits) == 30
    assert hits[-1] > LEAST.get(config.variant, 12.0)


@pytest.mark.parametrize("config", EVERY, ids=named)
def test_a_resumed_run_goes_on_as_if_nothing_had_happened(
    config: VariantTraining, table: ConceptTable, tmp_path: Path
) -> None:
    whole = lcm_trainer(config, table, tmp_path / "whole")
    steps(whole, 14)
    cut = lcm_trainer(config, table, tmp_path / "cut")
    steps(cut, 6)
    cut.save()
    resumed = lcm_trainer(config, table, tmp_path / "cut")
    assert resumed.step == 6
    steps(resumed, 8)
    assert (resumed.step, resumed.epoch) == (whole.step, whole.epoch)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    for name, value in whole.averaged().items():
        assert torch.equal(resumed.averaged()[name], value), name


TWO = """
import json, sys
from itertools import islice
from pathlib import Path
import torch
from lcm.training.concepts import ConceptTable
from lcm.training.lcm_variants import BaseTraining, OneTowerTraining, TwoTowerTraining, lcm_trainer
torch.set_num_threads(1)
folder, run, kind, settings = sys.argv[1:5]
kinds = {"base": BaseTraining, "one_tower": OneTowerTraining, "two_tower": TwoTowerTraining}
config = kinds[kind].model_validate_json(settings)
trainer = lcm_trainer(config, ConceptTable.open(Path(folder)), Path(run))
losses = []
step = trainer.train_step
def noted(*given):
    metrics = step(*given)
    losses.append({k: float(v) for k, v in metrics.items()})
    return metrics
trainer.train_step = noted
list(islice(trainer.train(), 6))
trainer.save()
if trainer.processes.first:
    print(json.dumps(losses))
"""


@pytest.mark.parametrize("config", [BASE, ONE_TOWER, TWO_TOWER], ids=named)
def test_two_processes_have_the_losses_of_one(config: VariantTraining, table: ConceptTable, tmp_path: Path) -> None:
    plain = config.model_copy(update={"bf16": False, "model": replace(config.model, dropout=0.0)})

    def run(*launcher: str, to: str) -> list[dict[str, float]]:
        command = [sys.executable, *launcher, str(script), str(table.folder), str(tmp_path / to)]
        said = subprocess.run(
            [*command, named(plain), plain.model_dump_json()], capture_output=True, text=True, check=False, timeout=240,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert said.returncode == 0, said.stderr[-2_000:]
        losses: list[dict[str, float]] = json.loads(said.stdout.splitlines()[-1])
        return losses

    script = tmp_path / "two.py"
    script.write_text(TWO, encoding="utf-8")
    alone = run(to="one")
    both = run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", to="two")
    for one, two in zip(alone, both, strict=True):
        assert two == pytest.approx(one, rel=2e-3, abs=1e-4)
    first, second = read_tensors(tmp_path / "one"), read_tensors(tmp_path / "two")
    assert first
    assert second
    assert first[0].keys() == second[0].keys()
    assert first[1] == second[1]
    resumed = lcm_trainer(plain, table, tmp_path / "two")  # what two wrote, one goes on with
    assert resumed.step == 6
    steps(resumed, 1)


def test_a_bundle_part_answers_as_the_average_of_the_trained_model(table: ConceptTable, tmp_path: Path) -> None:
    space = BundleWriter(tmp_path / "bundle", "small").write_space(
        b"tokens", ["eng"], {"concept_dim": DIM}, {"weight": torch.zeros(2)}
    )
    mine = write_concepts(tmp_path / "concepts", space)
    for config, folder, off in ((BASE, "bundle", 0.02), (TWO_TOWER, "bundle-lcms", 0.2)):
        run = tmp_path / config.variant
        trainer = lcm_trainer(config, mine, run)
        steps(trainer, 3)
        trainer.save()
        export_lcm(run, tmp_path / folder, Sampling(steps=3))
        engine = Engine.load(tmp_path / "bundle", config.variant, device="cpu")
        assert engine.sampling == Sampling(steps=3)
        model = type(trainer.model)(trainer.model.config)
        model.load_state_dict(trainer.averaged())
        context, roles = torch.randn(3, DIM), torch.tensor([0, 1, 0])
        [expected] = Engine(model, sampling=Sampling(steps=3)).predict_next([context], [roles])
        [said] = engine.predict_next([context], [roles])
        torch.testing.assert_close(said.concept, expected.concept, rtol=0, atol=off)
    stored = (tmp_path / "bundle-lcms/two_tower-1.safetensors").stat().st_size
    assert stored < 2 * sum(p.numel() for p in model.parameters()), "matrices are bytes"


def test_a_companion_of_another_space_is_refused(table: ConceptTable, tmp_path: Path) -> None:
    for name, weight in (("bundle", 0.0), ("other", 1.0)):
        space = BundleWriter(tmp_path / name, name).write_space(
            b"tokens", ["eng"], {"concept_dim": DIM}, {"weight": torch.full((2,), weight)}
        )
        mine = write_concepts(tmp_path / f"{name} concepts", space)
        lcm_trainer(TWO_TOWER, mine, tmp_path / f"{name} run").save()
        export_lcm(tmp_path / f"{name} run", tmp_path / f"{name}-lcms", Sampling())
    (tmp_path / "other-lcms").rename(tmp_path / "moved")
    (tmp_path / "bundle-lcms").rename(tmp_path / "other-lcms")
    with pytest.raises(BundleError, match="are of space"):
        Engine.load(tmp_path / "other", "two_tower")
    with pytest.raises(BundleError, match="has no 'base'"):
        Engine.load(tmp_path / "bundle", "base")
    assert Bundle.open(tmp_path / "moved", verify=True).parts == ("two_tower",)


def test_a_run_of_another_model_or_space_is_not_gone_on_with(table: ConceptTable, tmp_path: Path) -> None:
    lcm_trainer(BASE, table, tmp_path / "run").save()
    with pytest.raises(TrainingDataError, match=r"of variant base; name another --run"):
        lcm_trainer(TWO_TOWER, table, tmp_path / "run")
    deeper = BASE.model_copy(update={"model": replace(BASE.model, layers=2)})
    with pytest.raises(TrainingDataError, match="another layers; name another --run"):
        lcm_trainer(deeper, table, tmp_path / "run")
    with pytest.raises(TrainingDataError, match="learnt space space"):
        lcm_trainer(BASE, write_concepts(tmp_path / "concepts", "elsewhere"), tmp_path / "run")


def test_a_damaged_checkpoint_says_what_to_do(table: ConceptTable, tmp_path: Path) -> None:
    lcm_trainer(BASE, table, tmp_path).save()
    whole = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingDataError, match="is damaged"):
        lcm_trainer(BASE, table, tmp_path)


def test_a_student_of_few_steps_nears_where_its_teacher_ends(table: ConceptTable, tmp_path: Path) -> None:
    teacher = lcm_trainer(TWO_TOWER.model_copy(update={"epochs": 20}), table, tmp_path / "teacher")
    for _ in teacher.train():
        pass
    few = DistilledTraining(
        **RUN | {"epochs": 20, "lr": 1e-3}, model=TWO_TOWER.model, initial="teacher",
        objective=Distillation(teacher=Sampling(steps=10), steps=2, sentences=40),
    )  # fmt: skip
    student = lcm_trainer(few, table, tmp_path / "student")
    for name, value in teacher.averaged().items():
        assert torch.equal(student.model.state_dict()[name], value), "begins as its teacher"
    concepts, roles = [torch.from_numpy(table.concepts[np.arange(4)]).float()] * 8, [torch.tensor([0, 1, 0, 1])] * 8
    seeds = range(8)

    def drawn(weights: dict[str, torch.Tensor], sampling: Sampling) -> torch.Tensor:
        model = TwoTower(student.model.config)  # type: ignore[arg-type]
        model.load_state_dict(weights)
        steps = Engine(model, sampling=sampling).predict_next(concepts, roles, list(seeds))
        return torch.stack([step.concept for step in steps])

    short = Sampling(steps=2, guidance=1.0, epsilon_scaling=1.0)
    wanted = drawn(teacher.averaged(), few.objective.teacher)
    before = (drawn(teacher.averaged(), short) - wanted).norm(dim=1).mean()
    for _ in student.train():
        pass
    after = (drawn(student.averaged(), short) - wanted).norm(dim=1).mean()
    assert after < 0.8 * before


def test_beginning_with_a_run_that_is_not_there_says_so(table: ConceptTable, tmp_path: Path) -> None:
    few = DistilledTraining(**RUN, model=TWO_TOWER.model, initial="teacher")
    with pytest.raises(TrainingDataError, match=r"no trained model in .*teacher; train it first"):
        lcm_trainer(few, table, tmp_path / "student")
    lcm_trainer(BASE, table, tmp_path / "teacher").save()
    with pytest.raises(TrainingDataError, match="of another model"):
        lcm_trainer(few, table, tmp_path / "student")


class Spoilt:
    """A table of which no number is left."""

    def __init__(self, table: ConceptTable) -> None:
        self.of = lambda rows: table.of(rows) * float("nan")
        self.space_id = table.space_id


def test_metrics_go_to_a_file_and_to_tensorboard(table: ConceptTable, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer = lcm_trainer(BASE, table, tmp_path)
    for _ in trainer.train():
        pass
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    drawn = events.Scalars("hits dialogue")
    assert [scalar.step for scalar in drawn] == [row["step"] for row in rows]
    assert [scalar.value for scalar in drawn] == pytest.approx([row["hits dialogue"] for row in rows])


def test_one_bad_batch_is_left_out_and_nothing_but_bad_ones_ends_the_run(table: ConceptTable, tmp_path: Path) -> None:
    trainer = lcm_trainer(BASE.model_copy(update={"epochs": 30}), table, tmp_path)
    steps(trainer, 2)
    trainer.save()
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.table = Spoilt(table)  # type: ignore[assignment]
    trainer.evaluate = dict  # type: ignore[method-assign]
    with pytest.raises(TrainingDataError, match="no finite gradient"):
        steps(trainer, 100)
    for name, value in before.items():
        assert torch.equal(trainer.model.state_dict()[name], value), name
    assert lcm_trainer(BASE, table, tmp_path).step > 0


def test_a_full_disk_leaves_the_last_checkpoint(table: ConceptTable, tmp_path: Path) -> None:
    trainer = lcm_trainer(BASE, table, tmp_path)
    steps(trainer, 1)
    trainer.save()
    steps(trainer, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(TrainingDataError, match="could not be written"):
            trainer.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.glob("*.new"))
    assert lcm_trainer(BASE, table, tmp_path).step == 1


def test_the_contrast_is_among_distinct_sentences_of_other_pieces() -> None:
    generator = torch.Generator().manual_seed(0)
    concepts = torch.randn(6, DIM, generator=generator)
    predicted = torch.randn(3, DIM, generator=generator)
    rows = torch.tensor([1, 4, 1, 5, 1, 5])  # three targets, three negatives
    pieces, mine = torch.tensor([0, 0, 1]), torch.ones(3, dtype=torch.bool)
    logits, wanted = contrast_logits(predicted, (rows, concepts[rows]), pieces, mine)
    assert wanted.tolist() == [0, 1, 0], "of the distinct sentences 1, 4 and 5"
    expected = F.normalize(predicted, dim=1) @ F.normalize(concepts[[1, 4, 5]], dim=1).T
    hidden = torch.tensor([[False, True, False], [True, False, False], [False, False, False]])
    torch.testing.assert_close(logits[~hidden], expected[~hidden], rtol=0, atol=0.01)
    assert bool((logits[hidden] == float("-inf")).all()), "what was said beside it in the same piece"


def test_concepts_of_another_space_are_refused(table: ConceptTable) -> None:
    with pytest.raises(TrainingDataError, match="not other"):
        ConceptTable.open(table.folder, "other")
    with pytest.raises(TrainingDataError, match=r"scripts\.train"):
        ConceptTable.open(table.folder / "nowhere")
