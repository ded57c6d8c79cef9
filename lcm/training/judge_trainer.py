"""Training of the judge: the sentences of the training documents in, a small language model out.

A document is its sentences, each behind the symbol of its language, and an end symbol. Documents stand one behind the
other; a row begins at a sentence, in the middle of a document as a rule, so that a sentence without a context is
learnt too. Knows nothing of concepts.
"""

import bisect
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from lcm.errors import TrainingDataError
from lcm.space.tokenizer import PAD, Tokenizer
from lcm.training.bounds import Count, NotNegative, Share
from lcm.training.concepts import ConceptTable, Documents, Ints
from lcm.training.cross_entropy import linear_cross_entropy
from lcm.training.judge_model import JudgeConfig, JudgeModel
from lcm.training.muon import muon_and_adamw
from lcm.training.text import tokenizer_id
from lcm.training.weights import AveragedWeights, Schedule, read_checkpoint, write_checkpoint

LOG_EVERY = 50
DEV_ROWS = 256


class JudgeTraining(Schedule):
    """Everything about a run: sizes, optimiser, length."""

    dim: Count = 256
    layers: Count = 4
    heads: Count = 4
    ffn_dim: Count = 512
    dropout: float = Field(default=0.0, ge=0, lt=1)
    context: Count = 192

    rows_a_step: Count = 16
    steps: Count = 1_300
    decay_steps: int = Field(default=700, ge=0)
    warmup_steps: Count = 100
    ema: Share = 0.995
    matrix_lr: NotNegative = 0.02
    lr: NotNegative = 2e-3
    weight_decay: NotNegative = 0.01
    seed: int = Field(default=0, ge=0)
    checkpoint_every: Count = 200
    evaluate_every: Count = 500

    def model(self, vocab_size: int) -> JudgeConfig:
        """The model's sizes."""
        return JudgeConfig(vocab_size, self.dim, self.layers, self.heads, self.ffn_dim, self.dropout, self.context)


@dataclass(frozen=True, slots=True)
class TokenisedDocuments:
    """One split as tokens."""

    tokens: Ints  # [N] all documents, one behind the other
    sentences: Ints  # [S] where each sentence begins
    starts: Ints  # [D + 1] where each document does

    @classmethod
    def of(cls, documents: Documents, texts: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> "TokenisedDocuments":
        """Tokenise each distinct sentence once."""
        known: dict[int, list[int]] = {}
        for row in np.unique(documents.sentences).tolist():
            language, text = texts[row]
            known[row] = [tokenizer.language_id(language), *tokenizer.encode(text)]
        tokens: list[int] = []
        sentences, starts = [], [0]
        for document in range(len(documents)):
            for row in documents.sentences[documents.rows(document)].tolist():
                sentences.append(len(tokens))
                tokens += known[row]
            tokens.append(tokenizer.eos)
            starts.append(len(tokens))
        return cls(np.array(tokens, dtype=np.int32), np.array(sentences), np.array(starts))

    def rows(self, length: int, order: Ints) -> Tensor:
        """The documents in `order`, cut into rows [R, length] that each begin with a sentence; shorter ones padded."""
        pieces = [slice(int(self.starts[d]), int(self.starts[d + 1])) for d in order]
        stream = np.concatenate([self.tokens[piece] for piece in pieces])
        begins = np.zeros(len(self.tokens), dtype=bool)
        begins[self.sentences] = True
        heads: list[int] = np.flatnonzero(np.concatenate([begins[piece] for piece in pieces])).tolist()
        cuts, at = [], 0
        while at < len(heads):
            cuts.append(heads[at])
            if heads[at] + length >= len(stream):
                break
            at = max(at + 1, bisect.bisect_right(heads, heads[at] + length) - 1)  # one that was cut off comes again
        out = np.full((len(cuts), length), PAD, dtype=np.int64)
        for row, cut in enumerate(cuts):
            piece = stream[cut : cut + length]
            out[row, : len(piece)] = piece
        return torch.from_numpy(out)


class JudgeTrainer:
    """A run in a folder: resumes from `checkpoint.pt` there, appends to `metrics.jsonl`."""

    def __init__(
        self, config: JudgeTraining, table: ConceptTable, tokenizer: Tokenizer, run: Path, device: str = "cpu"
    ) -> None:
        self.config, self.tokenizer, self.run, self.device = config, tokenizer, run, torch.device(device)
        run.mkdir(parents=True, exist_ok=True)
        texts = table.texts()
        self.documents = TokenisedDocuments.of(table.documents("train"), texts, tokenizer)
        dev = TokenisedDocuments.of(table.documents("dev"), texts, tokenizer)
        order = np.random.default_rng(0).permutation(len(dev.starts) - 1)
        self.dev = dev.rows(config.context + 1, order)[:DEV_ROWS]
        torch.manual_seed(config.seed)
        self.model = JudgeModel(config.model(tokenizer.vocab_size)).to(self.device)
        rates = {"matrix_lr": config.matrix_lr, "lr": config.lr, "weight_decay": config.weight_decay}
        self.weights = AveragedWeights(
            self.model, muon_and_adamw(self.model, lambda name: name.startswith("layers."), **rates)
        )
        self.step = 0
        if (state := read_checkpoint(run, self.device)) is not None:
            self._resume(state)

    @property
    def steps(self) -> int:
        """How many the whole run takes."""
        return self.config.steps

    def train(self) -> Iterator[dict[str, float]]:
        """Until the last step; yields after each, metrics now and then.

        Stopping the iteration is safe; call `save` to keep the steps since the last checkpoint.
        """
        started, first = time.monotonic(), self.step
        for rows in self._batches():
            terms = self.train_step(rows)
            row: dict[str, float] = {}
            if self.step % LOG_EVERY == 0:
                row = {name: round(float(value), 4) for name, value in terms.items()}
                rate = (self.step - first) * rows.numel() / (time.monotonic() - started)
                row["tokens_per_second"] = round(rate, 1)
            if self.step % self.config.evaluate_every == 0 or self.step == self.config.steps:
                row["dev_perplexity"] = round(self.dev_perplexity(), 3)
            if self.step % self.config.checkpoint_every == 0 or self.step == self.config.steps:
                self.save()
            yield self._log(row) if row else row

    def _batches(self) -> Iterator[Tensor]:
        """[B, T + 1] of each step that is left; which ones follows from the step alone."""
        size, epoch, done = self.config.rows_a_step, 0, 0
        while self.step < self.config.steps:
            rng = np.random.default_rng((self.config.seed, epoch))
            rows = self.documents.rows(self.config.context + 1, rng.permutation(len(self.documents.starts) - 1))
            rows = rows[torch.from_numpy(rng.permutation(len(rows)))]
            batches = max(1, len(rows) // size)
            for number in range(max(0, self.step - done), batches):
                if self.step >= self.config.steps:
                    return
                yield rows[number * size : (number + 1) * size]
            epoch, done = epoch + 1, done + batches

    def train_step(self, rows: Tensor) -> dict[str, Tensor]:
        """One update from rows of tokens [B, T + 1]."""
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)  # a resumed run drops out the same
        self.model.train()
        loss = self._loss(self.model, rows.to(self.device))
        norm = self.weights.update(loss, self.config.factor(self.step), self.config, self.step)
        self.step += 1
        return {"loss": loss.detach(), "norm": norm}

    def _loss(self, model: JudgeModel, rows: Tensor) -> Tensor:
        with torch.autocast(rows.device.type, dtype=torch.bfloat16):
            hidden = model.hidden(rows[:, :-1])
        gold = rows[:, 1:]
        return linear_cross_entropy(hidden[gold != PAD], model.embedding.weight, gold[gold != PAD])

    @torch.no_grad()
    def dev_perplexity(self) -> float:
        """Of the averaged weights on rows of the dev split; the symbols between sentences count too."""
        model = JudgeModel(self.model.config).to(self.device).eval()
        model.load_state_dict(self.weights.average)
        chunks = self.dev.to(self.device).split(self.config.rows_a_step)
        counts = [int((rows[:, 1:] != PAD).sum()) for rows in chunks]
        total = sum(float(self._loss(model, rows)) * count for rows, count in zip(chunks, counts, strict=True))
        return float(np.exp(total / sum(counts)))

    def _log(self, row: dict[str, float]) -> dict[str, float]:
        row = {"step": self.step} | row
        with (self.run / "metrics.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        return row

    def save(self) -> None:
        """Write the checkpoint aside, then put it in place."""
        about = {
            "config": self.config.model_dump(),
            "model_config": asdict(self.model.config),
            "step": self.step,
            "tokenizer": tokenizer_id(self.tokenizer.model),
        }
        write_checkpoint(self.run, about | self.weights.state())

    def _resume(self, state: Mapping[str, Any]) -> None:
        if state["tokenizer"] != tokenizer_id(self.tokenizer.model):
            raise TrainingDataError(f"{self.run} learnt other pieces than this bundle has; remove it")
        self.weights.load(state)
        self.step = state["step"]
