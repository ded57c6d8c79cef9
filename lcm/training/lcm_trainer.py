"""Training of any Large Concept Model on concepts encoded once. Receives their folder, gives checkpoints.

One process or several (torchrun; weights, gradients and optimiser state sharded by FSDP2): the losses are the same but
for dropout's masks.
Knows nothing of what a variant learns (its objective does) or of bundles.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.optim import Optimizer

from configs.loader import Settings
from lcm.engine import Engine
from lcm.errors import TrainingDataError
from lcm.models.sampler import Sampling
from lcm.models.tower import Tower
from lcm.models.variants import VARIANTS
from lcm.training.bounds import Count, NotNegative, Share
from lcm.training.checkpoints import EPOCH, NAME, each_tensor, exists, keep_epoch, read_notes, write_tensors
from lcm.training.concepts import ConceptTable
from lcm.training.extended_table import ExtendedTable
from lcm.training.hits import GROUPS, answers, hits_at_1
from lcm.training.muon import muon_and_adamw
from lcm.training.negatives import Negatives
from lcm.training.objective import Batch, Objective
from lcm.training.packing import PackedRows, PackingPlan, iterate, steps_of
from lcm.training.predictors import next_concepts, queries
from lcm.training.processes import ALONE, Processes
from lcm.training.reply_items import CANDIDATES, ReplyItems, reply_items
from lcm.training.run_notes import ADVICE, RunNotes
from lcm.training.scalars import Scalars
from lcm.training.step_means import StepMeans
from lcm.training.tensors import local, restored, whole

LOG_EVERY = 100
_RATE = "concepts_per_second"
_LOST_STEPS = 20
"""So many steps in a row without a finite gradient end a run"""


class LcmTraining(Settings):
    """What every variant's training has: rows, optimiser, length."""

    row: int = Field(default=96, ge=2)
    """concepts read in a row"""
    rows_a_step: Count = 12
    crop_share: Share = 0.3
    repeats: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """how often a corpus, such as `xpersona`, is read in an epoch; once if not named"""
    languages: list[str] = Field(default_factory=list)
    """of the documents that are learnt from; all if none is named"""
    epochs: Count = 8
    negatives: int = Field(default=2_048, ge=0)
    """sentences from elsewhere that a prediction is told apart from, where the objective contrasts"""
    matrix_lr: NotNegative = 0.01
    lr: NotNegative = 1e-3
    weight_decay: NotNegative = 0.05
    warmup_steps: Count = 200
    clip: float = Field(default=1.0, gt=0)
    ema: Share = 0.999
    bf16: bool = True
    """the model's products in bfloat16, by autocast; weights stay float32. False where no unit multiplies bfloat16"""
    seed: int = Field(default=0, ge=0, lt=2**32)
    evaluate_items: int = Field(default=300, ge=0)
    initial: str | None = None
    """name of a run to begin with the averaged weights of"""
    sampling: Sampling = Sampling()
    """how the variant draws concepts where nobody says otherwise"""
    checkpoint_every: Count = 500

    @field_validator("sampling", mode="before")
    @classmethod
    def _else_as_the_variant(cls, given: object) -> object:
        """What a configuration does not say of it is as the variant has it."""
        return asdict(cls.model_fields["sampling"].default) | given if isinstance(given, dict) else given

    @property
    def contrasts(self) -> bool:
        """Whether the objective tells a prediction apart from negatives."""
        return False

    def packing(self) -> PackingPlan:
        """How documents are cut and packed."""
        return PackingPlan(self.row, self.rows_a_step, self.crop_share, self.seed, self.repeats)


class LcmTrainer:
    """A run in a folder: resumes from its checkpoint, appends to `metrics.jsonl`."""

    def __init__(
        self,
        notes: RunNotes,
        model: Tower,
        objective: Objective,
        config: LcmTraining,
        table: ConceptTable | ExtendedTable,
        run: Path,
        processes: Processes = ALONE,
        *,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`model` as it begins, what is fitted once fitted; `report` is told why nothing is measured.

        Raises:
            TrainingDataError: the run in the folder is another one.
        """
        self.notes, self.objective, self.config, self.table, self.run = notes, objective, config, table, run
        self.processes, self.device, self.report = processes, processes.device, report
        run.mkdir(parents=True, exist_ok=True)
        self.documents = table.documents("train")
        self.negatives = Negatives.of(self.documents)
        earlier = read_notes(run) if exists(run) else None
        self.changed = notes.changed(earlier, run) if earlier else []
        """What the run was trained with before, and now is not"""
        self.model = model.to(self.device)
        self._shard()
        self.optimisers = optimisers(self.model, config)
        self.rates = [[g["lr"] for g in o.param_groups] for o in self.optimisers]
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.step, self.epoch, self.at, self._steps_an_epoch = 0, 0, 0, 0
        self._lost = 0
        self._scalars: Scalars | None = None
        if earlier:
            self._resume(each_tensor(run))
            self.step, self.epoch, self.at = earlier["position"]

    @property
    def steps(self) -> int:
        """How many steps the whole run takes, if epochs to come take as many as this one: they are cut otherwise."""
        an_epoch = self._steps_an_epoch or len(steps_of(self.documents, self.config.packing(), self.epoch))
        return self.step - self.at + max(0, self.config.epochs - self.epoch) * an_epoch

    def train(self) -> Iterator[dict[str, float]]:
        """Train for the configured epochs; yields after each step: metrics at every 100th and at an epoch's end.

        They are means of the steps since the last ones, but for steps that were left out; and hits, at an epoch's end.
        Stopping the iteration is safe; call `save` to keep the steps since the last checkpoint.

        Raises:
            TrainingDataError: nothing but gradients that are not finite, or none at the run's end, or the disk is full.
        """
        config = self.config
        self.processes.by_first(self._begin_to_log)
        while self.epoch < config.epochs:
            means = StepMeans(_RATE)
            for number, count, rows in iterate(self.documents, config.packing(), self.epoch, self.at):
                metrics = self.train_step(rows, (self.epoch + number / count) / config.epochs)
                self.at, self._steps_an_epoch = number + 1, count
                if not self._lost:
                    means.add(metrics, int(rows.known.sum()))
                row: dict[str, float] = {}
                if self.step % LOG_EVERY == 0:
                    row, means = self._log(means.row()), StepMeans(_RATE)
                if self.step % config.checkpoint_every == 0:
                    self.save()
                yield row
            if self.epoch + 1 == config.epochs and not self._is_sound():
                raise self._diverged()
            row = means.row()
            self.save()  # at the epoch's end, not at the next one's start: a run killed from here on evaluates again
            row |= self.evaluate()
            self.epoch, self.at = self.epoch + 1, 0
            row = self._log(row)
            self.save()
            self._keep_epoch()
            yield row

    def train_step(self, rows: PackedRows, progress: float) -> dict[str, Tensor]:
        """One update; `progress` is the share of the run that lies behind."""
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)  # a resumed run draws the same noise
        factor = min(1.0, (self.step + 1) / self.config.warmup_steps) * (1.0 - progress)
        for optimiser, rates in zip(self.optimisers, self.rates, strict=True):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimiser.zero_grad(set_to_none=True)
        batch = self._batch(rows)
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            terms = self.objective(self.model, batch)
        # FSDP takes the mean of the processes' gradients; the terms are shares of one loss.
        (terms["loss"] * self.processes.count).backward()
        norm = whole(nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip))
        terms = {k: self.processes.total(v.detach()) for k, v in terms.items()}
        finite = bool(torch.isfinite(norm)) and bool(torch.isfinite(terms["loss"]))
        self._update(not self.processes.agreed(not finite))
        return terms | {"norm": norm}

    def _update(self, finite: bool) -> None:
        """Move the weights, unless the gradient says nothing: one bad batch must not end a night's run."""
        self.step += 1
        self._lost = 0 if finite else self._lost + 1
        if self._lost >= _LOST_STEPS:
            raise self._diverged()
        if not finite:
            return
        for optimiser in self.optimisers:
            optimiser.step()
        keep = min(self.config.ema, (1 + self.step) / (10 + self.step))  # a young average forgets its start faster
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                local(self.average[name]).lerp_(local(parameter), 1 - keep)

    def _is_sound(self) -> bool:
        """Whether the run can go on from here: no step is being lost, and every number of it is finite."""
        finite = all(bool(torch.isfinite(local(tensor)).all()) for _, tensor in self._tensors())
        return not self.processes.agreed(self._lost > 0 or not finite)

    def _diverged(self) -> TrainingDataError:
        lost = f"{self._lost} steps up to {self.step} had no finite gradient"
        kept = f"copy {EPOCH}, from the end of an epoch, over it" if (self.run / EPOCH).exists() else "remove it"
        return TrainingDataError(
            f"{lost if self._lost else f'the weights of step {self.step} are not finite'}: lower lr and matrix_lr, or "
            f"look for concepts that are not finite, and start again; {self.run / NAME} is from before, and where that "
            f"is too late, {kept}"
        )

    def evaluate(self) -> dict[str, float]:
        """Hits@1 of 20 of the averaged weights on the dev split; the first process does it, the others wait."""
        averaged = self.averaged()
        hits: dict[str, float] = {}
        self.processes.by_first(lambda: hits.update(self._hits(averaged)))
        return hits

    def _hits(self, averaged: dict[str, Tensor]) -> dict[str, float]:
        model = VARIANTS[self.notes.variant].model(self.model.config)
        model.load_state_dict(averaged)
        table, items = self._measured, self._questions
        if not items.items:
            return {}
        engine = Engine(model, self.device, self.config.sampling)
        steps = next_concepts(engine, table, items)
        hits = hits_at_1(answers(queries(steps), items, table, engine.keys), items)
        if engine.keyed:
            by_cosine = hits_at_1(answers(torch.stack([s.concept for s in steps]), items, table), items)
            hits |= {f"by cosine {k}": by_cosine[k] for k in GROUPS if k in by_cosine}
        return {f"hits {k}": round(v, 2) for k, v in hits.items()}

    @property
    def _measured(self) -> ConceptTable:
        """Sentences alone: nobody is asked about plans and ends."""
        return self.table.table if isinstance(self.table, ExtendedTable) else self.table

    @cached_property
    def _questions(self) -> ReplyItems:
        """About the dev split; where it gives none, it is told why, once."""
        dev, wanted = self._measured.documents("dev"), self.config.evaluate_items
        found = reply_items(dev, self._measured, per_corpus=wanted)
        if len(dev) and wanted and not found.items:
            self.report(
                f"too few dev documents for hits@1 of {CANDIDATES}: it takes a story of {CANDIDATES} different "
                f"sentences, or dialogues with {CANDIDATES} different replies; give a larger --dev-share"
            )
        return found

    def averaged(self) -> dict[str, Tensor]:
        """The whole averaged weights, with the normaliser, on the CPU; empty but for the first process."""
        return self._gathered(self._averages())

    def save(self) -> None:
        """Write the checkpoint; while steps are being lost or weights are not finite, the last one stays.

        Raises:
            TrainingDataError: it cannot be written; every process hears of it.
        """
        if not self._is_sound():
            return
        tensors = self._gathered(self._tensors())
        notes = asdict(self.notes) | {"position": [self.step, self.epoch, self.at]}
        self.processes.by_first(lambda: write_tensors(self.run, tensors, notes))

    def _keep_epoch(self) -> None:
        if self._is_sound():
            self.processes.by_first(lambda: keep_epoch(self.run))

    def _averages(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.average.items()
        yield from ((k, v) for k, v in self.model.state_dict().items() if k not in self.average)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from ((f"average.{name}", value) for name, value in self._averages())
        for name, parameter in self.model.named_parameters():
            yield f"model.{name}", parameter.detach()
            for key, value in self._state_of(parameter).items():
                yield f"optimiser.{name}.{key}", value

    def _gathered(self, tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """Whole, one after the other, and kept by the first process alone: the others have no room to spare."""
        kept = {}
        for name, tensor in tensors:
            gathered = whole(tensor)  # every process gives its part
            if self.processes.first:
                kept[name] = gathered.cpu()
        return kept

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        for optimiser in self.optimisers:
            if parameter in optimiser.state:
                state: dict[str, Tensor] = optimiser.state[parameter]
                return state
        return {}

    def _resume(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        parameters = dict(self.model.named_parameters())
        of = {p: o for o in self.optimisers for group in o.param_groups for p in group["params"]}
        buffers: dict[str, Tensor] = {}
        found: set[str] = set()
        with torch.no_grad():
            for key, value in tensors:
                part, _, name = key.partition(".")
                if part == "optimiser":
                    name, _, what = name.rpartition(".")
                    of[parameters[name]].state[parameters[name]][what] = restored(value, parameters[name])
                elif name in parameters:
                    target = parameters[name] if part == "model" else self.average[name]
                    local(target).copy_(local(restored(value, target)))
                    found.add(key)
                else:
                    buffers[name] = value
        if missing := [f"{p}.{n}" for n in parameters for p in ("model", "average") if f"{p}.{n}" not in found]:
            raise TrainingDataError(f"the checkpoint in {self.run} lacks {missing[0]}; {ADVICE}")
        self.model.load_state_dict(buffers, strict=False)

    def _shard(self) -> None:
        if self.processes.count == 1:
            return
        for module in self.model.modules():
            if isinstance(module, nn.ModuleList):
                for layer in module:
                    fully_shard(layer)
        fully_shard(self.model)
        for name in ("predicted", "queries", "refined", "stops"):
            if hasattr(self.model, name):
                register_fsdp_forward_method(self.model, name)

    def _batch(self, rows: PackedRows) -> Batch:
        drawn = self.negatives.draw(self.config.negatives)
        if not self.config.contrasts:
            drawn = drawn[:0]  # drawn all the same: what is drawn next does not depend on it
        return Batch(
            rows.to(self.device),
            self.processes.share(len(rows.sentences)),
            self.table.of(rows.sentences.clamp_min(0).numpy()).to(self.device),
            self.table.of(rows.targets.clamp_min(0).numpy()).to(self.device),
            drawn.to(self.device),
            self.table.of(drawn.numpy()).to(self.device),
            self._alike(),
        )

    def _alike(self) -> torch.Generator | None:
        """What all processes draw from alike: torch's seed goes on as this one's own, so that each has other dropout.

        None for one alone, which draws everything from torch's seed.
        """
        if self.processes.count == 1:
            return None
        alike = torch.Generator(self.device)
        on_gpu = self.device.type == "cuda"
        alike.set_state(torch.cuda.get_rng_state(self.device) if on_gpu else torch.get_rng_state())
        own = np.random.default_rng((self.config.seed, self.step, self.processes.rank))
        torch.manual_seed(int(own.integers(2**63)))
        return alike

    def _begin_to_log(self) -> None:
        self._scalars = self._scalars or Scalars(self.run, self.step, self.epoch)

    def _log(self, row: dict[str, float]) -> dict[str, float]:
        def write() -> None:
            assert self._scalars is not None  # training has begun
            self._scalars.write(row, self.step, self.epoch)

        self.processes.by_first(write)
        return {"step": self.step, "epoch": self.epoch} | row


def optimisers(model: nn.Module, config: LcmTraining) -> list[Optimizer]:
    """Muon for the blocks' matrices, AdamW for everything else."""

    def is_layer(name: str) -> bool:
        inside = ".layers." in f".{name}" or name.startswith("head.")
        return inside and "modulator" not in name  # begins at zero, where there is no direction to keep

    rates = {"matrix_lr": config.matrix_lr, "lr": config.lr, "weight_decay": config.weight_decay}
    return muon_and_adamw(model, is_layer, **rates)
