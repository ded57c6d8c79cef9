"""Training of the text space: encoder and decoder together. Receives prepared splits, gives checkpoints.

Loss: cross-entropy of the decoder (half from the translation's concept, half from the sentence's own, with noise on
the concept), a symmetric InfoNCE between translations, and their MSE [SONAR §5, with other weights: SONAR's 0.1 and
0.01 do not transfer to this size]. The noise makes the decoder read concepts that an LCM predicts [LCM Table 7].
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm.errors import TrainingDataError
from lcm.space.text_decoder import TextDecoder, TextDecoderConfig
from lcm.space.text_encoder import TextEncoder, TextEncoderConfig
from lcm.space.tokenizer import PAD, Tokenizer
from lcm.training.cross_entropy import linear_cross_entropy
from lcm.training.data import LANGUAGES
from lcm.training.muon import muon_and_adamw
from lcm.training.text_batches import TextBatch, TextCorpus, TextMix, held_out_pairs, iterate, padded, train_tokenizer
from lcm.training.weights import AveragedWeights, Schedule, read_checkpoint, write_checkpoint

LOG_EVERY = 50


class TextTraining(Schedule):
    """Everything about a run: sizes, loss, optimiser, length."""

    vocab_size: int = 8_000
    dim: int = 256
    encoder_layers: int = 4
    decoder_layers: int = 4
    heads: int = 4
    ffn_dim: int = 1_024
    concept_dim: int = 512
    dropout: float = 0.0

    tokens_a_side: int = 1_800
    translation_share: float = 0.5
    contrast_weight: float = 0.2
    temperature: float = 0.05
    distance_weight: float = 0.05
    concept_noise: float = 0.3

    matrix_lr: float = 0.02
    lr: float = 2e-3
    weight_decay: float = 0.01
    seed: int = 0
    checkpoint_every: int = 500
    evaluate_every: int = 2_000

    def encoder(self) -> TextEncoderConfig:
        """The encoder's sizes."""
        return TextEncoderConfig(
            vocab_size=self.vocab_size, dim=self.dim, layers=self.encoder_layers, heads=self.heads,
            ffn_dim=self.ffn_dim, concept_dim=self.concept_dim, pooling="attention", dropout=self.dropout,
        )  # fmt: skip

    def decoder(self) -> TextDecoderConfig:
        """The decoder's sizes."""
        return TextDecoderConfig(
            vocab_size=self.vocab_size, dim=self.dim, layers=self.decoder_layers, heads=self.heads,
            ffn_dim=self.ffn_dim, concept_dim=self.concept_dim, dropout=self.dropout,
        )  # fmt: skip


class TextModel(nn.Module):
    """Encoder and decoder around one embedding table."""

    def __init__(self, config: TextTraining) -> None:
        super().__init__()
        self.encoder = TextEncoder(config.encoder())
        self.decoder = TextDecoder(config.decoder(), embed=self.encoder.embed)


def load_average(model: TextModel, average: Mapping[str, Tensor]) -> None:
    """Load averaged parameters, all of them; what encoder and decoder share is averaged once."""
    model.load_state_dict({**average, "decoder.embed.weight": average["encoder.embed.weight"]})


def losses(model: TextModel, batch: TextBatch, config: TextTraining) -> dict[str, Tensor]:
    """The terms of the loss and their sum under `loss`."""
    pairs = len(batch.sources) // 2
    concepts = model.encoder(batch.sources)  # [2B, C]
    partner = concepts.roll(pairs, dims=0)
    translate = (torch.rand(2 * pairs, device=concepts.device) < config.translation_share)[:, None]
    chosen = torch.where(translate, partner, concepts)
    sigma = torch.rand(2 * pairs, 1, device=concepts.device) * config.concept_noise
    chosen = chosen + sigma * torch.randn_like(chosen)
    hidden = model.decoder.hidden(chosen, batch.targets[:, :-1])[:, 1:]  # the tag after `</s>` is given, not predicted
    gold = batch.targets[:, 2:]
    kept = gold != PAD
    cross_entropy = linear_cross_entropy(hidden[kept], model.decoder.embed.weight, gold[kept])
    contrast = info_nce(concepts[:pairs], concepts[pairs:], batch.groups[:pairs], config.temperature)
    distance = F.mse_loss(concepts[:pairs], concepts[pairs:])
    total = cross_entropy + config.contrast_weight * contrast + config.distance_weight * distance
    return {"loss": total, "cross_entropy": cross_entropy, "contrast": contrast, "distance": distance}


def info_nce(a: Tensor, b: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE of [B, C] and [B, C]; rows of one group are not each other's negatives."""
    similarity = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature
    same = groups[:, None] == groups[None]
    same.fill_diagonal_(False)
    similarity = similarity.masked_fill(same, float("-inf"))
    labels = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(similarity, labels) + F.cross_entropy(similarity.T, labels)) / 2


def optimisers(model: nn.Module, config: TextTraining) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for everything else."""
    rates = {"matrix_lr": config.matrix_lr, "lr": config.lr, "weight_decay": config.weight_decay}
    return muon_and_adamw(model, lambda name: ".layers." in name, **rates)


class TextTrainer:
    """A run in a folder: resumes from `checkpoint.pt` there, appends to `metrics.jsonl`."""

    def __init__(self, config: TextTraining, data: Path, run: Path, device: str = "cpu") -> None:
        self.config, self.data, self.run, self.device = config, data, run, device
        run.mkdir(parents=True, exist_ok=True)
        tokenizer_path = data / "tokenizer.model"
        self.tokenizer = (
            Tokenizer.from_file(tokenizer_path, LANGUAGES)
            if tokenizer_path.exists()
            else train_tokenizer(data, config.vocab_size)
        )
        self.corpus = TextCorpus.load(data, self.tokenizer)
        torch.manual_seed(config.seed)
        self.model = TextModel(config).to(device)
        self.weights = AveragedWeights(self.model, optimisers(self.model, config))
        self.step, self.chunk, self.at = 0, 0, 0
        if (state := read_checkpoint(run, device)) is not None:
            self._resume(state)

    @property
    def steps(self) -> int:
        """The last step."""
        return self.config.steps

    def finish_in(self, steps: int) -> None:
        """End the run `steps` from here, with the learning rate falling linearly to zero; kept over a resume."""
        self.config = self.config.ending_in(steps, self.step)

    def train(self) -> Iterator[dict[str, float]]:
        """Train to the configured step; yields after every step: metrics at each 50th, else nothing.

        Stopping the iteration is safe; call `save` to keep the steps since the last checkpoint.
        """
        mix = TextMix(tokens_a_side=self.config.tokens_a_side)
        started, pairs = time.monotonic(), 0
        feed = iterate(self.corpus, self.tokenizer, mix, self.config.seed, self.chunk, self.at)
        for self.chunk, self.at, batch in feed:
            if self.step >= self.config.steps:
                break
            metrics = self.train_step(batch)
            pairs += len(batch.sources) // 2
            row: dict[str, float] = {}
            if self.step % LOG_EVERY == 0:
                row = {k: round(float(v), 4) for k, v in metrics.items()}
                row |= {"step": self.step, "pairs_per_second": round(pairs / (time.monotonic() - started), 1)}
                started, pairs = time.monotonic(), 0
                if self.step % self.config.evaluate_every == 0:
                    row |= self.evaluate()
                    started = time.monotonic()
                with (self.run / "metrics.jsonl").open("a", encoding="utf-8") as log:
                    log.write(json.dumps(row) + "\n")
            if self.step % self.config.checkpoint_every == 0:
                self.save()
            yield row
        self.save()

    def train_step(self, batch: TextBatch) -> dict[str, Tensor]:
        """One update of the weights and their average."""
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)  # a resumed run draws the same noise
        batch = TextBatch(*(t.to(self.device) for t in (batch.sources, batch.targets, batch.groups)))
        with torch.autocast(self.device, dtype=torch.bfloat16):
            terms = losses(self.model, batch, self.config)
        factor = self.config.factor(self.step)
        terms["norm"] = self.weights.update(terms["loss"], factor, self.config, self.step)
        self.step += 1
        return {k: v.detach() for k, v in terms.items()}

    def averaged(self) -> TextModel:
        """A model with the averaged weights."""
        model = TextModel(self.config)
        load_average(model, self.weights.average)
        return model.eval()

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Dev metrics of the averaged weights: xsim error, cross-entropy, effective rank, mean cosine."""
        model, row = self.averaged().to(self.device), {}
        for language in self.tokenizer.languages[1:]:
            pairs = held_out_pairs(self.data, ("eng", language), 1_000, "dev")
            english = self._encode(model, [a for a, _ in pairs], "eng")
            other = self._encode(model, [b for _, b in pairs], language)
            row[f"xsim_error_{language}"] = round(xsim_error(english, other), 2)
            row[f"ce_{language}_eng"] = round(self._cross_entropy(model, other, [a for a, _ in pairs], "eng"), 4)
            row[f"ce_eng_{language}"] = round(self._cross_entropy(model, english, [b for _, b in pairs], language), 4)
        row["ce_eng_eng"] = round(self._cross_entropy(model, english, [a for a, _ in pairs], "eng"), 4)
        row |= {k: round(v, 4) for k, v in spread(english).items()}
        return row

    def _encode(self, model: TextModel, texts: list[str], language: str) -> Tensor:
        encoded = [self.tokenizer.encode_source(t, language, max_tokens=128) for t in texts]
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
        out = torch.empty(len(texts), self.config.concept_dim, device=self.device)
        for i in range(0, len(order), 64):
            rows = order[i : i + 64]
            out[rows] = model.encoder(padded([encoded[r] for r in rows]).to(self.device))
        return out

    def _cross_entropy(self, model: TextModel, concepts: Tensor, texts: list[str], language: str) -> float:
        total, count = 0.0, 0
        prefix, eos = self.tokenizer.target_prefix(language), self.tokenizer.eos
        for i in range(0, len(texts), 64):
            targets = padded([[*prefix, *self.tokenizer.encode(t)[:125], eos] for t in texts[i : i + 64]])
            targets = targets.to(self.device)
            hidden = model.decoder.hidden(concepts[i : i + 64], targets[:, :-1])[:, 1:]
            gold = targets[:, 2:]
            kept = gold != PAD
            total += float(F.cross_entropy(model.decoder.logits(hidden[kept]), gold[kept], reduction="sum"))
            count += int(kept.sum())
        return total / count

    def save(self) -> None:
        """Write the checkpoint aside, then put it in place."""
        about = {
            "config": self.config.model_dump(),
            "position": [self.step, self.chunk, self.at],
            "tokenizer": tokenizer_id(self.tokenizer.model),
        }
        write_checkpoint(self.run, about | self.weights.state())

    def _resume(self, state: Mapping[str, Any]) -> None:
        if state["tokenizer"] != tokenizer_id(self.tokenizer.model):
            raise TrainingDataError(f"{self.run} learnt other pieces than {self.data}'s tokenizer has; remove it")
        self.weights.load(state)
        self.step, self.chunk, self.at = state["position"]
        self.config = self.config.resumed(state["config"])


def tokenizer_id(model: bytes) -> str:
    """Which pieces the embeddings stand for."""
    return hashlib.sha256(model).hexdigest()[:16]


def xsim_error(a: Tensor, b: Tensor, asked: Tensor | None = None) -> float:
    """Per cent of sentences whose translation is not the nearest by cosine, mean of both directions.

    With `asked` [N] bool only these are looked for, among all.
    """
    similarity = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
    labels = torch.arange(len(a), device=a.device)
    right = ((similarity.argmax(1) == labels).float() + (similarity.argmax(0) == labels).float()) / 2
    return 100 * (1 - float((right if asked is None else right[asked]).mean()))


def spread(concepts: Tensor) -> dict[str, float]:
    """How much of the space is used: effective rank (exp of the spectrum's entropy) and mean pairwise cosine."""
    centred = concepts - concepts.mean(dim=0)
    energy = torch.linalg.svdvals(centred.float()).square()
    share = energy / energy.sum()
    rank = math.exp(-float((share * share.clamp_min(1e-12).log()).sum()))
    unit = F.normalize(concepts, dim=1)
    n = len(unit)
    return {"rank": rank, "mean_cosine": float(((unit @ unit.T).sum() - n) / (n * (n - 1)))}
