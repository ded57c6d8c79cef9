"""Training of the Base-LCM on concepts encoded once. Receives their folder, gives checkpoints and a bundle part.

Loss: MSE of the normalised concept [LCM §2.3.1], InfoNCE of the predicted direction against the batch's own targets and
a bank of training replies (the `retrieve` thinker and hits@1 go by cosine), and the stop head's cross-entropy.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.loader import Settings
from lcm.engine import Engine
from lcm.errors import TrainingDataError
from lcm.models.base_lcm import BaseLcm, BaseLcmConfig
from lcm.models.normalizer import Normalizer
from lcm.training.base_batches import WindowPlan, Windows, iterate, planned
from lcm.training.concepts import ConceptTable, Documents, Ints
from lcm.training.evaluate_lcm import answers, hits_at_1, predictions
from lcm.training.muon import muon_and_adamw
from lcm.training.reply_items import ReplyItems, reply_items
from lcm.training.weights import read_checkpoint, write_checkpoint

NORMALIZER_SAMPLE = 50_000
LOG_EVERY = 100


class BaseTraining(Settings):
    """Everything about a run: sizes, loss, optimiser, length."""

    dim: int = 256
    layers: int = 5
    heads: int = 4
    ffn_dim: int = 512
    dropout: float = 0.1
    context: int = 40

    window: int = 48
    crop_share: float = 0.3
    sentences_a_step: int = 1_200
    epochs: int = 15
    input_noise: float = 0.3
    distance_weight: float = 1.0
    contrast_weight: float = 1.0
    stop_weight: float = 0.1
    temperature: float = 0.05
    bank_negatives: int = 2_048
    reply_weight: float = 1.0

    matrix_lr: float = 0.01
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 200
    clip: float = 1.0
    seed: int = 0
    evaluate_items: int = 300
    checkpoint_every: int = 500

    def model(self, concept_dim: int) -> BaseLcmConfig:
        """The model's sizes."""
        return BaseLcmConfig(
            concept_dim=concept_dim, dim=self.dim, layers=self.layers, heads=self.heads, ffn_dim=self.ffn_dim,
            dropout=self.dropout, context=self.context,
        )  # fmt: skip

    def windows(self) -> WindowPlan:
        """How documents are cut and batched."""
        return WindowPlan(self.window, self.crop_share, self.sentences_a_step, self.seed)


def losses(
    model: BaseLcm, windows: Windows, concepts: Tensor, negatives: tuple[Tensor, Tensor], config: BaseTraining
) -> dict[str, Tensor]:
    """The terms of the loss and their sum under `loss`.

    Args:
        model: in training mode.
        windows: which sentences.
        concepts: theirs, [B, T + 1, C], zeros for padding.
        negatives: rows [K] of sentences from elsewhere, and their concepts [K, C].
        config: the weights.
    """
    sigma = config.input_noise * torch.rand(len(concepts), 1, 1, device=concepts.device)
    heard = concepts[:, :-1] + sigma * model.normalizer.scale * torch.randn_like(concepts[:, :-1])
    with torch.autocast(concepts.device.type, dtype=torch.bfloat16):
        predicted, stop = model(heard, windows.turns)
    known = windows.known
    predicted, targets = predicted[known], concepts[:, 1:][known]
    weights = torch.where(windows.starts_reply[known], config.reply_weight, 1.0)
    weights = weights / weights.mean()
    squares = (model.normalizer(predicted) - model.normalizer(targets)).square().mean(dim=1)
    distance = (squares * weights).mean()
    rows, of_window = windows.sentences[:, 1:][known], known.nonzero()[:, 0]
    logits, wanted = contrast_logits(predicted, (rows, targets), negatives, of_window)
    contrast = (F.cross_entropy(logits / config.temperature, wanted, reduction="none") * weights).mean()
    heard_last = windows.sentences[:, :-1] >= 0
    stopping = F.binary_cross_entropy_with_logits(stop[heard_last], windows.last[heard_last])
    total = config.distance_weight * distance + config.contrast_weight * contrast + config.stop_weight * stopping
    return {"loss": total, "distance": distance, "contrast": contrast, "stop": stopping}


def contrast_logits(
    predicted: Tensor, targets: tuple[Tensor, Tensor], negatives: tuple[Tensor, Tensor], of_window: Tensor
) -> tuple[Tensor, Tensor]:
    """Cosines [M, K] of predictions [M, C] to every distinct sentence among them all, and the right one [M].

    Targets and negatives are rows and concepts. Other sentences of one's own window count as neither right nor wrong:
    as wrong ones they would teach the prediction to stay away from its subject.
    """
    every = torch.cat([targets[0], negatives[0]])
    _, place = every.unique(return_inverse=True)
    count = int(place.max()) + 1
    first = torch.full((count,), len(every), device=every.device)
    first = first.scatter_reduce(0, place, torch.arange(len(every), device=every.device), "amin")
    keys = F.normalize(torch.cat([targets[1], negatives[1]])[first], dim=1)
    with torch.autocast(predicted.device.type, dtype=torch.bfloat16):
        logits = (F.normalize(predicted, dim=1) @ keys.T).float()
    wanted = place[: len(predicted)]
    beside = torch.zeros(int(of_window.max()) + 1, count, dtype=torch.bool, device=every.device)
    beside[of_window, wanted] = True
    ignored = beside[of_window]
    ignored[torch.arange(len(predicted), device=every.device), wanted] = False
    return logits.masked_fill(ignored, float("-inf")), wanted


class BaseTrainer:
    """A run in a folder: resumes from `checkpoint.pt` there, appends to `metrics.jsonl`."""

    def __init__(self, config: BaseTraining, concepts: Path, run: Path, device: str = "cpu") -> None:
        self.config, self.run, self.device = config, run, torch.device(device)
        run.mkdir(parents=True, exist_ok=True)
        self.table = ConceptTable.open(concepts)
        self.documents = self.table.documents("train")
        self.negatives = reply_rows(self.documents)
        torch.manual_seed(config.seed)
        self.model = BaseLcm(config.model(self.table.concepts.shape[1])).to(self.device)
        self._fit_normalizer()
        self.optimisers = optimisers(self.model, config)
        self.base_lrs = [[g["lr"] for g in o.param_groups] for o in self.optimisers]
        self.step, self.epoch, self.at = 0, 0, 0
        if (state := read_checkpoint(run, self.device)) is not None:
            self._resume(state)

    def _fit_normalizer(self) -> None:
        rng = np.random.default_rng(0)
        used = np.unique(self.documents.sentences)
        sample = np.sort(rng.choice(used, min(NORMALIZER_SAMPLE, len(used)), replace=False))
        fitted = Normalizer.fitted(self.table.concepts[sample])
        self.model.normalizer.load_state_dict(fitted.state_dict())

    def train(self) -> Iterator[dict[str, float]]:
        """Train for the configured epochs; yields after each step: metrics at every 100th and at an epoch's end.

        Stopping the iteration is safe; call `save` to keep the steps since the last checkpoint.
        """
        config = self.config
        items = reply_items(self.table.documents("dev"), self.table, per_corpus=config.evaluate_items)
        while self.epoch < config.epochs:
            started, sentences = time.monotonic(), 0
            for number, count, windows in iterate(self.documents, config.windows(), self.epoch, self.at):
                metrics = self.train_step(windows, (self.epoch + number / count) / config.epochs)
                self.at = number + 1
                sentences += int(windows.known.sum())
                row: dict[str, float] = {}
                if self.step % LOG_EVERY == 0:
                    row = {k: round(float(v), 4) for k, v in metrics.items()}
                    row["sentences_per_second"] = round(sentences / (time.monotonic() - started), 1)
                    started, sentences = time.monotonic(), 0
                    row = self._log(row)
                if self.step % config.checkpoint_every == 0:
                    self.save()
                yield row
            self.epoch, self.at = self.epoch + 1, 0
            self.save()
            yield self._log(self.evaluate(items))

    @property
    def steps(self) -> int:
        """About how many steps the whole run takes."""
        return self.config.epochs * sum(1 for _ in planned(self.documents, self.config.windows(), 0))

    def train_step(self, windows: Windows, progress: float) -> dict[str, Tensor]:
        """One update; `progress` is the share of the run that lies behind."""
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)  # a resumed run draws the same noise
        factor = min(1.0, (self.step + 1) / self.config.warmup_steps) * (1.0 - progress)
        for optimiser, lrs in zip(self.optimisers, self.base_lrs, strict=True):
            for group, lr in zip(optimiser.param_groups, lrs, strict=True):
                group["lr"] = lr * factor
            optimiser.zero_grad(set_to_none=True)
        drawn = self.negatives[torch.randint(len(self.negatives), (self.config.bank_negatives,)).numpy()]
        concepts = self.table.of(windows.sentences.clamp_min(0).numpy()).to(self.device)
        rows = torch.from_numpy(drawn.astype(np.int64)).to(self.device)
        negatives = (rows, self.table.of(drawn).to(self.device))
        windows = windows.to(self.device)
        self.model.train()
        terms = losses(self.model, windows, concepts, negatives, self.config)
        terms["loss"].backward()
        terms["norm"] = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        return {k: v.detach() for k, v in terms.items()}

    def evaluate(self, items: ReplyItems) -> dict[str, float]:
        """Hits@1 of 20 on the dev split."""
        said = answers(predictions(Engine(self.model, self.device), self.table, items), items, self.table)
        return {f"hits {k}": round(v, 2) for k, v in hits_at_1(said, items).items()}

    def _log(self, row: dict[str, float]) -> dict[str, float]:
        row = {"step": self.step, "epoch": self.epoch} | row
        with (self.run / "metrics.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        return row

    def save(self) -> None:
        """Write the checkpoint aside, then put it in place."""
        state: dict[str, Any] = {
            "config": self.config.model_dump(),
            "space_id": self.table.space_id,
            "concept_dim": self.table.concepts.shape[1],
            "model": self.model.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
            "position": [self.step, self.epoch, self.at],
        }
        write_checkpoint(self.run, state)

    def _resume(self, state: dict[str, Any]) -> None:
        if state["space_id"] != self.table.space_id:
            raise TrainingDataError(
                f"{self.run} learnt space {state['space_id']}, the concepts are of {self.table.space_id}; "
                "give another --run, or remove it"
            )
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.epoch, self.at = state["position"]


def reply_rows(documents: Documents) -> Ints:
    """Rows of the concept table of every reply's first sentence, as often as it was said."""
    roles, starts = documents.roles, documents.starts
    changes = np.flatnonzero(roles[1:] != roles[:-1]) + 1
    return documents.sentences[changes[~np.isin(changes, starts)]]


def optimisers(model: nn.Module, config: BaseTraining) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for everything else."""
    rates = {"matrix_lr": config.matrix_lr, "lr": config.lr, "weight_decay": config.weight_decay}
    return muon_and_adamw(model, lambda name: ".layers." in f".{name}" or name.startswith("head."), **rates)
