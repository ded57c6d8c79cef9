"""Training of any Large Concept Model on concepts encoded once. Receives their folder, gives checkpoints.

One process or several (torchrun; weights, gradients and optimiser state sharded by FSDP2): the losses are the same.
Knows nothing of what a variant learns (its objective does) or of bundles.
"""

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.optim import Optimizer

from configs.loader import Settings
from lcm.engine import Engine
from lcm.errors import TrainingDataError
from lcm.models.sampler import Sampling
from lcm.models.tower import Tower, TowerConfig
from lcm.models.variants import VARIANTS
from lcm.training.checkpoints import part_of, read_tensors, write_tensors
from lcm.training.concepts import ConceptTable
from lcm.training.hits import GROUPS, answers, hits_at_1
from lcm.training.muon import muon_and_adamw
from lcm.training.objective import Batch, Objective
from lcm.training.packing import PackedRows, PackingPlan, iterate, reply_rows, steps_of
from lcm.training.plans import PlannedTable
from lcm.training.predictors import next_concepts, queries
from lcm.training.processes import Processes
from lcm.training.reply_items import reply_items
from lcm.training.scalars import Scalars
from lcm.training.tensors import local, restored, whole

LOG_EVERY = 100
_LOST_STEPS = 20
"""So many steps in a row without a finite gradient end a run"""


class LcmTraining(Settings):
    """What every variant's training has: rows, optimiser, length."""

    row: int = 96
    """concepts read in a row"""
    rows_a_step: int = 12
    crop_share: float = 0.3
    repeats: dict[str, int] = Field(default_factory=dict)
    """how often a corpus, such as `xpersona`, is read in an epoch; once if not named"""
    epochs: int = 8
    negatives: int = 2_048
    """replies from elsewhere that a prediction is told apart from"""
    matrix_lr: float = 0.01
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 200
    clip: float = 1.0
    ema: float = 0.999
    bf16: bool = True
    seed: int = 0
    evaluate_items: int = 300
    initial: str | None = None
    """name of a run to begin with the averaged weights of"""
    sampling: Sampling = Sampling()
    """how the variant draws concepts where nobody says otherwise"""
    checkpoint_every: int = 500

    def packing(self) -> PackingPlan:
        """How documents are cut and packed."""
        return PackingPlan(self.row, self.rows_a_step, self.crop_share, self.seed, self.repeats)


class LcmTrainer:
    """A run in a folder: resumes from its checkpoint, appends to `metrics.jsonl`."""

    def __init__(
        self,
        variant: str,
        model: Tower,
        objective: Objective,
        config: LcmTraining,
        table: ConceptTable | PlannedTable,
        run: Path,
        device: str = "cpu",
    ) -> None:
        """`model` as it begins, what is fitted once fitted.

        Raises:
            TrainingDataError: the run in the folder is of another model or space.
        """
        self.variant, self.objective, self.config, self.table, self.run = variant, objective, config, table, run
        self.device = torch.device(device)
        self.processes = Processes.joined(self.device)
        run.mkdir(parents=True, exist_ok=True)
        self.documents = table.documents("train")
        self.negatives = reply_rows(self.documents)
        self.model = model.to(self.device)
        saved = read_tensors(run)
        if saved:
            self._check(saved[1])
        self._shard()
        self.optimisers = optimisers(self.model, config)
        self.rates = [[g["lr"] for g in o.param_groups] for o in self.optimisers]
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.step, self.epoch, self.at = 0, 0, 0
        self._lost = 0
        self._scalars: Scalars | None = None
        if saved:
            self._resume(*saved)

    @property
    def steps(self) -> int:
        """About how many steps the whole run takes."""
        return self.config.epochs * len(steps_of(self.documents, self.config.packing(), 0))

    def train(self) -> Iterator[dict[str, float]]:
        """Train for the configured epochs; yields after each step: metrics at every 100th and at an epoch's end.

        Stopping the iteration is safe; call `save` to keep the steps since the last checkpoint.

        Raises:
            TrainingDataError: nothing but gradients that are not finite, or the disk is full.
        """
        config = self.config
        while self.epoch < config.epochs:
            started, concepts = time.monotonic(), 0
            for number, count, rows in iterate(self.documents, config.packing(), self.epoch, self.at):
                metrics = self.train_step(rows, (self.epoch + number / count) / config.epochs)
                self.at = number + 1
                concepts += int(rows.known.sum())
                row: dict[str, float] = {}
                if self.step % LOG_EVERY == 0:
                    row = {k: round(float(v), 4) for k, v in metrics.items()}
                    row["concepts_per_second"] = round(concepts / (time.monotonic() - started), 1)
                    started, concepts = time.monotonic(), 0
                    row = self._log(row)
                if self.step % config.checkpoint_every == 0:
                    self.save()
                yield row
            self.epoch, self.at = self.epoch + 1, 0
            self.save()
            yield self._log(self.evaluate())

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
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.config.bf16):
            terms = self.objective(self.model, batch)
        # FSDP takes the mean of the processes' gradients; the terms are shares of one loss.
        (terms["loss"] * self.processes.count).backward()
        norm = whole(nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip))
        terms = {k: self.processes.total(v.detach()) for k, v in terms.items()}
        self._update(bool(torch.isfinite(norm)) and bool(torch.isfinite(terms["loss"])))
        return terms | {"norm": norm}

    def _update(self, finite: bool) -> None:
        """Move the weights, unless the gradient says nothing: one bad batch must not end a night's run."""
        self.step += 1
        self._lost = 0 if finite else self._lost + 1
        if self._lost >= _LOST_STEPS:
            raise TrainingDataError(
                f"{_LOST_STEPS} steps up to {self.step} had no finite gradient; {self.run} keeps its last checkpoint: "
                "lower lr and matrix_lr, or look for concepts that are not finite, and start again"
            )
        if not finite:
            return
        for optimiser in self.optimisers:
            optimiser.step()
        keep = min(self.config.ema, (1 + self.step) / (10 + self.step))  # a young average forgets its start faster
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                local(self.average[name]).lerp_(local(parameter), 1 - keep)

    def evaluate(self) -> dict[str, float]:
        """Hits@1 of 20 of the averaged weights on the dev split."""
        averaged = self.averaged()
        if not self.processes.first:
            return {}
        model = VARIANTS[self.variant][0](self.model.config)
        model.load_state_dict(averaged)
        table = self.table.table if isinstance(self.table, PlannedTable) else self.table
        items = reply_items(table.documents("dev"), table, per_corpus=self.config.evaluate_items)
        if not items.items:
            return {}
        engine = Engine(model, self.device, self.config.sampling)
        steps = next_concepts(engine, table, items)
        hits = hits_at_1(answers(queries(steps), items, table, engine.keys), items)
        if engine.keyed:
            by_cosine = hits_at_1(answers(torch.stack([s.concept for s in steps]), items, table), items)
            hits |= {f"by cosine {k}": by_cosine[k] for k in GROUPS if k in by_cosine}
        return {f"hits {k}": round(v, 2) for k, v in hits.items()}

    def averaged(self) -> dict[str, Tensor]:
        """The whole averaged weights, with the normaliser, on the CPU."""
        buffers = {k: v for k, v in self.model.state_dict().items() if k not in self.average}
        return {k: whole(v).cpu() for k, v in {**self.average, **buffers}.items()}

    def save(self) -> None:
        """Write the checkpoint.

        Raises:
            TrainingDataError: it cannot be written.
        """
        tensors = {f"average.{k}": v for k, v in self.averaged().items()}
        tensors |= {f"model.{k}": whole(v.detach()).cpu() for k, v in self.model.named_parameters()}
        for name, parameter in self.model.named_parameters():
            for key, value in self._state_of(parameter).items():
                tensors[f"optimiser.{name}.{key}"] = whole(value).cpu()
        notes = {
            "variant": self.variant,
            "model": _settings(self.model.config),
            "training": self.config.model_dump(),
            "space_id": self.table.space_id,
            "position": [self.step, self.epoch, self.at],
        }
        if self.processes.first:
            write_tensors(self.run, tensors, notes)
        self.processes.wait()

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        for optimiser in self.optimisers:
            if parameter in optimiser.state:
                state: dict[str, Tensor] = optimiser.state[parameter]
                return state
        return {}

    def _check(self, notes: dict[str, Any]) -> None:
        advice = "name another --run, or remove it"
        if notes["space_id"] != self.table.space_id:
            raise TrainingDataError(
                f"{self.run} learnt space {notes['space_id']}, the concepts are of {self.table.space_id}; {advice}"
            )
        mine, theirs = _settings(self.model.config), notes["model"]
        other = [k for k in {**mine, **theirs} if mine.get(k) != theirs.get(k)]
        if notes["variant"] != self.variant or other:
            what = f"variant {notes['variant']}" if notes["variant"] != self.variant else f"another {', '.join(other)}"
            raise TrainingDataError(f"the checkpoint in {self.run} is of {what}; {advice}")

    def _resume(self, tensors: dict[str, Tensor], notes: dict[str, Any]) -> None:
        weights, averages = part_of(tensors, "model"), part_of(tensors, "average")
        states: dict[str, dict[str, Tensor]] = {}
        for key, value in part_of(tensors, "optimiser").items():
            name, _, what = key.rpartition(".")
            states.setdefault(name, {})[what] = value
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                local(parameter).copy_(local(restored(weights[name], parameter)))
                local(self.average[name]).copy_(local(restored(averages[name], parameter)))
        of = {p: o for o in self.optimisers for group in o.param_groups for p in group["params"]}
        for name, parameter in self.model.named_parameters():
            for what, value in states.get(name, {}).items():
                of[parameter].state[parameter][what] = restored(value, parameter)
        buffers = {k: v for k, v in averages.items() if k not in weights}
        self.model.load_state_dict(buffers, strict=False)
        self.step, self.epoch, self.at = notes["position"]

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
        drawn = self.negatives[torch.randint(len(self.negatives), (self.config.negatives,)).numpy()]
        return Batch(
            rows.to(self.device),
            self.processes.share(len(rows.sentences)),
            self.table.of(rows.sentences.clamp_min(0).numpy()).to(self.device),
            self.table.of(rows.targets.clamp_min(0).numpy()).to(self.device),
            torch.from_numpy(drawn.astype(np.int64)).to(self.device),
            self.table.of(drawn).to(self.device),
        )

    def _log(self, row: dict[str, float]) -> dict[str, float]:
        if self.processes.first:
            self._scalars = self._scalars or Scalars(self.run, self.step)
            self._scalars.write(row, self.step)
        row = {"step": self.step, "epoch": self.epoch} | row
        if self.processes.first:
            with (self.run / "metrics.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")
        return row


def optimisers(model: nn.Module, config: LcmTraining) -> list[Optimizer]:
    """Muon for the blocks' matrices, AdamW for everything else."""

    def is_layer(name: str) -> bool:
        inside = ".layers." in f".{name}" or name.startswith("head.")
        return inside and "modulator" not in name  # begins at zero, where there is no direction to keep

    rates = {"matrix_lr": config.matrix_lr, "lr": config.lr, "weight_decay": config.weight_decay}
    return muon_and_adamw(model, is_layer, **rates)


def _settings(config: TowerConfig) -> dict[str, Any]:
    names = itertools.chain.from_iterable(getattr(c, "__slots__", ()) for c in type(config).__mro__)
    return {name: getattr(config, name) for name in sorted(set(names))}
