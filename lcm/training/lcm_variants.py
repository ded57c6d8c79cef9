"""How each Large Concept Model is trained: sizes and objective of every variant, as configuration files name them."""

import itertools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor

from lcm.bundle import Bundle
from lcm.errors import TrainingDataError
from lcm.models.base_lcm import BaseLcmConfig
from lcm.models.diffusion_config import DiffusionConfig
from lcm.models.normalizer import Normalizer
from lcm.models.one_step import OneStepConfig
from lcm.models.one_tower import OneTowerConfig
from lcm.models.planning import Planning, PlanningConfig
from lcm.models.quantized import Quantized, QuantizedConfig
from lcm.models.quantizer import Quantizer
from lcm.models.sampler import Sampling
from lcm.models.schedule import NoiseSchedule
from lcm.models.tower import Tower, TowerConfig
from lcm.models.two_tower import TwoTower, TwoTowerConfig
from lcm.models.variants import VARIANTS
from lcm.space import ConceptSpace
from lcm.training.checkpoints import each_tensor, exists, read_notes, weights_id
from lcm.training.concepts import ConceptTable
from lcm.training.decoded_loss import DecodedLoss, DecodedObjective, Speaker
from lcm.training.diffusion import Diffusion, DiffusionObjective, importance
from lcm.training.distillation import Distillation, DistillationObjective
from lcm.training.endings import END_OF_TEXT, with_ends
from lcm.training.energy import Energy, EnergyObjective
from lcm.training.extended_table import ExtendedTable
from lcm.training.fragility import fragility_path, prepare_fragility
from lcm.training.lcm_trainer import LcmTrainer, LcmTraining
from lcm.training.objective import Objective
from lcm.training.packing import mistyped
from lcm.training.plans import with_plans
from lcm.training.processes import ALONE, Processes
from lcm.training.quantisation import Quantisation, QuantisationObjective
from lcm.training.regression import Regression, RegressionObjective
from lcm.training.run_notes import RunNotes

FITTED_TO = 50_000
"""Concepts"""


@dataclass(frozen=True, slots=True)
class Around:
    """What a training may need beside its settings."""

    table: ConceptTable
    processes: Processes
    bundle: str | Path | None
    initial_run: Path | None

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.processes.device

    def bundle_open(self) -> Bundle:
        """The bundle that teaches."""
        if self.bundle is None:
            raise TrainingDataError("this learns from a bundle's encoder or decoder; give --bundle")
        return Bundle.open(self.bundle)

    def space(self, *parts: str) -> ConceptSpace:
        """The bundle's, which is the concepts'.

        Raises:
            TrainingDataError: no bundle was given, or one of another space.
        """
        bundle = self.bundle_open()
        if bundle.space_id != self.table.space_id:
            raise TrainingDataError(
                f"{bundle.folder} holds space {bundle.space_id}, the concepts are of {self.table.space_id}"
            )
        return ConceptSpace.load(bundle.folder, str(self.device), parts=parts)

    def end_of_text(self) -> Tensor:
        """[C]: what the bundle makes of "End of text."; raises as `space`, and where it knows no English."""
        language, text = END_OF_TEXT
        concept = torch.zeros(self.table.concepts.shape[1])

        def encode() -> None:
            concept.copy_(self.space("text_encoder").encode_text([text], language)[0])

        self.processes.by_first(encode)
        self.processes.as_first([concept])
        return concept

    def initial(self, config: TowerConfig) -> dict[str, Tensor]:
        """The averaged weights of the run to begin from, for a model of this configuration.

        Raises:
            TrainingDataError: it has not been trained, or is of another: weights may fit that mean other things.
        """
        if self.initial_run is None:
            raise TrainingDataError("there is no trained model to learn from: set initial: NAME of a Two-Tower run")
        if not exists(self.initial_run):
            raise TrainingDataError(f"there is no trained model in {self.initial_run}; train it first")
        theirs, mine = read_notes(self.initial_run)["model"], json.loads(json.dumps(sizes(config), default=asdict))
        if other := [name for name in mine if name != "dropout" and theirs.get(name, mine[name]) != mine[name]]:
            told = ", ".join(f"{name} {theirs[name]}, not {mine[name]}" for name in other)
            raise TrainingDataError(f"the run {self.initial_run} is of another model ({told}); give both the same")
        return dict(each_tensor(self.initial_run, "average"))

    def importance(self) -> Tensor:
        """[N + 1] of the table's rows, and of a break: fragility is measured if it was not yet."""
        bundle, documents = self.bundle_open(), self.table.documents("train")
        path = fragility_path(self.table, documents, bundle.part("text_decoder").hashes)

        def prepare() -> None:
            if path.exists():
                return
            space = self.space("text_encoder", "text_decoder")
            normalizer = Normalizer.fitted(_sample(self.table).numpy())
            prepare_fragility(path, space, self.table, np.unique(documents.sentences), normalizer)

        self.processes.by_first(prepare)
        known = torch.from_numpy(np.append(np.load(path), np.float32("nan")))
        return importance(known).to(self.device)


class BaseTraining(LcmTraining):
    """Base-LCM."""

    variant: Literal["base", "base_mse"] = "base"
    model: BaseLcmConfig = BaseLcmConfig()
    objective: Regression = Regression()

    @property
    def contrasts(self) -> bool:
        """By weight."""
        return self.objective.contrast_weight > 0 or (self.model.key_dim > 0 and self.objective.key_weight > 0)

    def learnt(self, around: Around) -> Objective:
        """What it learns."""
        return RegressionObjective(self.objective)


class DecodedTraining(LcmTraining):
    """Base-LCM taught by the frozen decoder."""

    variant: Literal["base_ce"] = "base_ce"
    model: BaseLcmConfig = BaseLcmConfig()
    objective: DecodedLoss = DecodedLoss()

    def teacher(self, around: Around) -> str:
        """Which decoder it is."""
        return " ".join(around.bundle_open().part("text_decoder").hashes)

    def learnt(self, around: Around) -> Objective:
        """What it learns."""
        return DecodedObjective(self.objective, Speaker.of(around.bundle_open(), around.table.texts(), around.device))


class DiffusionTraining(LcmTraining):
    """What the trainings of all that undo noise have."""

    model: DiffusionConfig = DiffusionConfig()

    @model_validator(mode="after")
    def _steps_that_there_are(self) -> Self:
        for name, steps in self.chains().items():
            if steps > self.model.times:
                raise ValueError(f"{name} is {steps}, but the model has {self.model.times} noise levels (model.times)")
        return self

    def chains(self) -> dict[str, int]:
        """How many steps of denoising each setting asks for."""
        return {"sampling.steps": self.sampling.steps}


class OneTowerTraining(DiffusionTraining):
    """One-Tower diffusion."""

    variant: Literal["one_tower"] = "one_tower"
    model: OneTowerConfig = OneTowerConfig()
    objective: Diffusion = Diffusion()

    def learnt(self, around: Around) -> Objective:
        """What it learns."""
        return _diffusion(self.objective, self.model.noise_schedule(), around)


class PlanningTraining(DiffusionTraining):
    """One-Tower that plans paragraphs."""

    variant: Literal["planning"] = "planning"
    model: PlanningConfig = PlanningConfig()
    objective: Diffusion = Diffusion()

    def learnt(self, around: Around) -> Objective:
        """What it learns."""
        return _diffusion(self.objective, self.model.noise_schedule(), around)


class TwoTowerTraining(DiffusionTraining):
    """Two-Tower diffusion."""

    variant: Literal["two_tower"] = "two_tower"
    model: TwoTowerConfig = TwoTowerConfig()
    objective: Diffusion = Diffusion()

    def learnt(self, around: Around) -> Objective:
        """What it learns."""
        return _diffusion(self.objective, self.model.noise_schedule(), around)


class DistilledTraining(DiffusionTraining):
    """Two-Tower of few steps, taught by the one of many that `initial` names."""

    variant: Literal["two_tower_few"] = "two_tower_few"
    model: TwoTowerConfig = TwoTowerConfig()
    objective: Distillation = Distillation()
    sampling: Sampling = VARIANTS["two_tower_few"].sampling

    @model_validator(mode="after")
    def _drawn_as_learnt(self) -> Self:
        if self.sampling.initial_noise != self.objective.teacher.initial_noise:
            raise ValueError("sampling.initial_noise is not the teacher's: the student begins where its teacher began")
        if self.sampling.steps != self.objective.steps:
            raise ValueError(
                f"sampling.steps is {self.sampling.steps}, objective.steps {self.objective.steps}: "
                "the student is drawn in the steps that it has learnt; give both the same"
            )
        if self.sampling.guidance != 1:
            raise ValueError(
                f"sampling.guidance is {self.sampling.guidance}: the student has learnt its teacher's; give 1"
            )
        return self

    def chains(self) -> dict[str, int]:
        """Also the teacher's, and those that the student learns."""
        own = {"objective.steps": self.objective.steps, "objective.teacher.steps": self.objective.teacher.steps}
        return super().chains() | own

    def teacher(self, around: Around) -> str:
        """Which weights they are: a run that goes on teaches something else."""
        return weights_id(around.initial(replace(self.model, concept_dim=around.table.concepts.shape[1])))

    def learnt(self, around: Around) -> Objective:
        """What it learns."""
        teacher = TwoTower(replace(self.model, concept_dim=around.table.concepts.shape[1]))
        begin_with(teacher, around)
        return DistillationObjective.of(self.objective, teacher.to(around.device))


class OneStepTraining(LcmTraining):
    """One-step stochastic head."""

    variant: Literal["one_step"] = "one_step"
    model: OneStepConfig = OneStepConfig()
    objective: Energy = Energy()
    sampling: Sampling = VARIANTS["one_step"].sampling

    def learnt(self, around: Around) -> Objective:
        """What it learns."""
        return EnergyObjective(self.objective)


class QuantizedTraining(LcmTraining):
    """Quant-d or Quant-c, as `model.discrete` says."""

    model: QuantizedConfig = QuantizedConfig()
    objective: Quantisation = Quantisation()
    sampling: Sampling = VARIANTS["quant_d"].sampling

    @property
    def variant(self) -> str:
        """By what it predicts."""
        return "quant_d" if self.model.discrete else "quant_c"

    def learnt(self, around: Around) -> Objective:
        """What it learns."""
        return QuantisationObjective(self.objective)


VariantTraining = (
    BaseTraining | DecodedTraining | OneTowerTraining | PlanningTraining | TwoTowerTraining | DistilledTraining
    | OneStepTraining | QuantizedTraining
)  # fmt: skip


def _diffusion(settings: Diffusion, schedule: NoiseSchedule, around: Around) -> DiffusionObjective:
    return DiffusionObjective(settings, schedule, around.importance() if settings.weighting == "fragility" else None)


def _sample(table: ConceptTable) -> Tensor:
    """Training concepts [M, C] to fit to."""
    used = np.unique(table.documents("train").sentences)
    return table.of(np.sort(np.random.default_rng(0).choice(used, min(FITTED_TO, len(used)), replace=False)))


def fit(model: Tower, table: ConceptTable, report: Callable[[str], None] = lambda _: None) -> None:
    """Fit what is fitted once, to a sample of the training concepts: normaliser and, where there are any, codebooks.

    Raises:
        TrainingDataError: there are too few for the codebooks.
    """
    concepts = _sample(table)
    model.normalizer.load_state_dict(Normalizer.fitted(concepts.numpy()).state_dict())
    if isinstance(model, Quantized):
        config = model.config
        quantizer = Quantizer.fitted(model.normalizer(concepts), config.codebooks, config.entries, report=report)
        model.quantizer.load_state_dict(quantizer.state_dict())


def lcm_trainer(
    config: VariantTraining,
    table: ConceptTable,
    run: Path,
    processes: Processes = ALONE,
    bundle: str | Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> LcmTrainer:
    """The trainer of a variant, resumed if its folder holds a checkpoint.

    Args:
        config: what to train.
        table: the concepts to learn from.
        run: the run's folder; the run that `initial` names lies beside it.
        processes: this one, and where it computes.
        bundle: whose decoder teaches, or tells what is fragile, where one does; whose encoder tells what ends a text.
        report: told of what takes a while, of settings that have changed or are likely mistyped, and why nothing is
            measured.

    Raises:
        TrainingDataError: as `LcmTrainer`; also where there is no run to begin from, no bundle to be taught by or to
            tell what ends a text, or no document, be it in a language.
    """
    torch.manual_seed(config.seed)
    table = table.taught_in(config.languages) if config.languages else table
    if not len(table.documents("train")):
        raise TrainingDataError(f"{table.folder} holds no training document; make it again of more, or larger shares")
    model = VARIANTS[config.variant].model(replace(config.model, concept_dim=table.concepts.shape[1]))
    around = Around(table, processes, bundle, run.parent / config.initial if config.initial else None)
    if exists(run):
        resume_fitted(model, run)
    elif config.initial:
        begin_with(model, around)
    else:
        processes.by_first(lambda: fit(model, table, report))
        processes.as_first(model.buffers())
    learnt_from = as_learnt(model, around)
    trainer = LcmTrainer(
        notes_of(config, model, learnt_from, around), model, config.learnt(around), config, learnt_from, run, processes,
        report=report,
    )  # fmt: skip
    if trainer.changed and processes.first:
        report(f"{run} goes on with other settings: {', '.join(trainer.changed)}")
    for name, meant in mistyped(trainer.documents, config.repeats) if processes.first else []:
        report(f"repeats names {name}, which is no corpus here and counts for nothing; did you mean {meant}?")
    if config.evaluate_items and processes.first and not len(table.documents("dev")):
        report(f"{table.folder} holds no dev document, so nothing is measured; make it again with a larger --dev-share")
    return trainer


def as_learnt(model: Tower, around: Around) -> ConceptTable | ExtendedTable:
    """The concepts as the model learns from them: stories with plans, or documents with ends where it has no turns."""
    if isinstance(model, Planning):
        return ExtendedTable(around.table, model.break_concept.clone(), with_plans)
    if model.config.turns:
        return around.table
    if model.ending.concept is None:
        model.ending.concept = around.end_of_text()
    return ExtendedTable(around.table, model.ending.concept.clone(), with_ends)


def resume_fitted(model: Tower, run: Path) -> None:
    """Give a model what a run's checkpoint was fitted to, before anything is made of it; the trainer reads the rest."""
    try:
        model.normalizer.load_state_dict(dict(each_tensor(run, "average.normalizer")))
        model.ending.load_state_dict(dict(each_tensor(run, "average.ending")))
    except RuntimeError as error:
        raise TrainingDataError(f"the checkpoint in {run} is of another space; name another --run") from error


def notes_of(config: VariantTraining, model: Tower, table: ConceptTable | ExtendedTable, around: Around) -> RunNotes:
    """What the run's checkpoints say of it."""
    teacher = config.teacher(around) if isinstance(config, DecodedTraining | DistilledTraining) else ""
    documents = table.documents("train").identity()
    return RunNotes(
        config.variant, sizes(model.config), config.model_dump(), table.space_id, documents, teacher,
        around.table.corpus(),
    )  # fmt: skip


def sizes(config: TowerConfig) -> dict[str, Any]:
    """Every field of a model's configuration."""
    names = itertools.chain.from_iterable(getattr(c, "__slots__", ()) for c in type(config).__mro__)
    return {name: getattr(config, name) for name in sorted(set(names))}


def begin_with(model: Tower, around: Around) -> None:
    """Begin with the averaged weights of the run that `initial` names."""
    try:
        model.load_state_dict(around.initial(model.config))
    except RuntimeError as error:
        raise TrainingDataError(
            f"the run {around.initial_run} is of another model; give both the same sizes, or train it anew"
        ) from error
