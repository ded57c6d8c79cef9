"""Training of the spoken language head: a bundle's frozen speech encoder and batches of speech in, a head out.

Every utterance is heard once and kept as the few numbers that the head reads; the head, a logistic regression, is
then fitted to all of them at once. No corpus of people speaks all languages, so a head could take the corpus for the
language. It reads phones alone, and a recording teaches it only which of the languages that people speak in training
it is, never that it is none of the others. Neither helps where the encoder itself has taken the one for the other
(docs/LOG.md). Knows nothing of bundles' files.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from configs.loader import Settings
from lcm.bundle import Bundle
from lcm.errors import TrainingDataError
from lcm.space.speech_encoder import speech_encoder_from_part
from lcm.space.spoken_language import SpokenLanguage, SpokenLanguageConfig, phone_shares
from lcm.training.speech_batches import Example, SpeechBatch, SpeechFeed, SpeechMix, collated, dev_examples, grouped
from lcm.training.weights import read_checkpoint, write_checkpoint

_FRAMES_A_SECOND = 100
_LEAST_DEVIATION = 1e-3
_IMPOSSIBLE = -1e4
_LBFGS_STEPS = 200


class SpokenLanguageTraining(Settings):
    """How much is heard, and how the head is fitted."""

    steps: int = 200
    """Batches"""
    batch_seconds: float = 100.0
    real_share: float = 0.3
    flite_share: float = 0.05
    producers: int = 1
    cut_share: float = 0.4
    """Of the utterances: a piece of each is heard, as long as a soft pause or a short answer leaves it"""
    shortest_seconds: float = 0.8
    longest_seconds: float = 2.5
    penalty: float = 1e-3
    """Times the sum of the squared weights"""
    seed: int = 0
    checkpoint_every: int = 50

    def mix(self) -> SpeechMix:
        """What the producers draw from: each language as often as the others, of people too."""
        return SpeechMix(
            batch_seconds=self.batch_seconds,
            pool_seconds=12 * self.batch_seconds,
            real_share=self.real_share,
            flite_share=self.flite_share,
            corpora=(("librispeech_en", 0.3), ("speechocean_en", 0.2), ("kerstin_de", 0.5)),
            languages=(("eng", 0.25), ("fra", 0.25), ("spa", 0.25), ("deu", 0.25)),
        )


class SpokenLanguageTrainer:
    """A run in a folder: resumes from `checkpoint.pt` there, appends to `metrics.jsonl`."""

    def __init__(
        self, config: SpokenLanguageTraining, prepared: Path, stores: Path, run: Path, bundle: Bundle,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        """Begin or resume.

        Args:
            config: the run.
            prepared: the splits that `lcm.training.data` made.
            stores: the recordings that `lcm.training.recordings` made.
            run: checkpoint and metrics.
            bundle: whose speech encoder is heard with.
            device: a torch device.

        Raises:
            TrainingDataError: the run in this folder has heard with another encoder.
        """
        self.config, self.prepared, self.stores, self.run, self.device = config, prepared, stores, run, device
        part = bundle.part("speech_encoder")
        self.encoder = speech_encoder_from_part(part.config, part.tensors()).to(device)
        phones = self.encoder.config.phones - 1  # without the blank
        self.head = SpokenLanguage(SpokenLanguageConfig(bundle.languages["speech"], phones, part.hashes))
        self.step, self.fitted = 0, False
        self.heard = Heard(phones)
        run.mkdir(parents=True, exist_ok=True)
        if (state := read_checkpoint(run, "cpu")) is not None:
            self._resume(state)

    @property
    def steps(self) -> int:
        """The last step."""
        return self.config.steps

    def train(self) -> Iterator[dict[str, float]]:
        """Hear to the configured step, then fit; yields after every step, and the figures of the dev split last.

        Stopping the iteration is safe; call `save` to keep what was heard since the last checkpoint.
        """
        if self.step < self.config.steps:
            mix, producers = self.config.mix(), self.config.producers
            rng = np.random.default_rng((self.config.seed, self.step))
            with SpeechFeed(self.prepared, self.stores, mix, seed=self.config.seed, producers=producers) as feed:
                for batch in feed:
                    self.hear(batch, rng)
                    if self.step % self.config.checkpoint_every == 0:
                        self.save()
                    yield {}
                    if self.step >= self.config.steps:
                        break
        yield self.fit()
        self.save()

    def hear(self, batch: SpeechBatch, rng: np.random.Generator) -> None:
        """Keep what the head reads of each utterance, or of a piece of it."""
        features = [torch.from_numpy(x[:n]).float() for x, n in zip(batch.features, batch.lengths, strict=True)]
        pieces = [self._cut(x, rng) if rng.random() < self.config.cut_share else x for x in features]
        shares = self._shares([Example(x, [], "", "") for x in pieces])
        order = self.head.config.languages
        self.heard.add(shares, [order.index(tag) for tag in batch.languages], [bool(name) for name in batch.corpora])
        self.step += 1

    def fit(self) -> dict[str, float]:
        """Fit the head to everything heard; returns and logs what it does on the dev split, per cent right.

        `unrecorded_…` is a head that has heard espeak-ng alone. The encoder has heard these people's languages from
        people all the same: of those that nobody speaks in its training, no dev figure tells anything.
        """
        dev = dev_sets(self.stores, self.config)
        shares = {name: self._shares(examples) for name, examples in dev.items()}
        order = self.head.config.languages
        answers = {name: torch.tensor([order.index(e.language) for e in of]) for name, of in dev.items()}
        row: dict[str, float] = {"step": self.step, "utterances": len(self.heard)}
        for prefix, learnt in (("unrecorded_", self.heard.synthetic()), ("", self.heard)):
            weight, bias = regression(learnt, len(order), self.config.penalty)
            logits = {name: x @ weight.T + bias for name, x in shares.items()}
            for name, given in logits.items():
                if not prefix or not name.startswith("synthetic"):
                    row[f"{prefix}{name}"] = round(
                        100 * float((given.argmax(dim=1) == answers[name]).float().mean()), 1
                    )
        temperature = calibrated(list(logits.values()), [answers[name] for name in logits])
        self.head.load_state_dict({"head.weight": weight / temperature, "head.bias": bias / temperature})
        self.fitted = True
        row["temperature"] = round(temperature, 3)
        with (self.run / "metrics.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        return row

    def _cut(self, features: Tensor, rng: np.random.Generator) -> Tensor:
        seconds = rng.uniform(self.config.shortest_seconds, self.config.longest_seconds)
        return piece_of(features, seconds, rng)

    @torch.no_grad()
    def _shares(self, examples: Sequence[Example]) -> Tensor:
        """[N, P] in the order of the examples."""
        shares = torch.empty(len(examples), self.head.config.phones)
        order = {id(example.features): number for number, example in enumerate(examples)}
        for group in grouped(list(examples), self.config.batch_seconds):
            batch = collated(group)
            features = torch.from_numpy(batch.features).float().to(self.device)
            frames = self.encoder.frames(features, torch.from_numpy(batch.lengths).to(self.device))
            shares[[order[id(e.features)] for e in group]] = phone_shares(frames).cpu()
        return shares

    def save(self) -> None:
        """Write the checkpoint aside, then put it in place."""
        about = {"config": self.config.model_dump(), "step": self.step, "encoder": list(self.head.config.encoder)}
        head = self.head.state_dict() if self.fitted else None
        write_checkpoint(self.run, about | {"head": head, "heard": self.heard.state()})

    def _resume(self, state: Mapping[str, Any]) -> None:
        if state["encoder"] != list(self.head.config.encoder):
            raise TrainingDataError(
                f"{self.run} has heard with another speech encoder; remove it, or name another with --run"
            )
        self.heard.load(state["heard"])
        self.step = state["step"]


class Heard:
    """What the head reads of each utterance, its language, and whether it is a recording."""

    def __init__(self, phones: int) -> None:
        self.shares = torch.empty(0, phones)  # [N, P]
        self.languages = torch.empty(0, dtype=torch.int64)  # [N]
        self.recorded = torch.empty(0, dtype=torch.bool)  # [N]; else a voice of espeak-ng, which speaks every language

    def __len__(self) -> int:
        return len(self.languages)

    def add(self, shares: Tensor, languages: Sequence[int], recorded: Sequence[bool]) -> None:
        """One batch more."""
        self.shares = torch.cat([self.shares, shares])
        self.languages = torch.cat([self.languages, torch.tensor(languages)])
        self.recorded = torch.cat([self.recorded, torch.tensor(recorded)])

    def synthetic(self) -> "Heard":
        """What espeak-ng said of it."""
        kept = Heard(self.shares.shape[1])
        kept.add(self.shares[~self.recorded], [], [])
        kept.languages, kept.recorded = self.languages[~self.recorded], self.recorded[~self.recorded]
        return kept

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {"shares": self.shares, "languages": self.languages, "recorded": self.recorded}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """What `state` gave."""
        self.shares, self.languages, self.recorded = (state[name] for name in ("shares", "languages", "recorded"))


def regression(heard: Heard, languages: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression, weights [L, P] and bias [L].

    Every language counts the same, among voices of espeak-ng and among recordings. A recording is told from the
    recorded languages alone.
    """
    mean, deviation = heard.shares.mean(dim=0), heard.shares.std(dim=0).clamp_min(_LEAST_DEVIATION)
    given = ((heard.shares - mean) / deviation).double()
    spoken = torch.zeros(2, languages, dtype=torch.float64)
    spoken.index_put_((heard.recorded.long(), heard.languages), torch.ones(len(heard), dtype=torch.float64), True)
    counts = 1 / spoken[heard.recorded.long(), heard.languages]
    counts /= counts.sum()
    closed = torch.where(spoken > 0, 0.0, _IMPOSSIBLE)[heard.recorded.long()]
    weight = torch.zeros(languages, given.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(languages, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=_LBFGS_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        missed = F.cross_entropy(given @ weight.T + bias + closed, heard.languages, reduction="none")
        total = (counts * missed).sum() + penalty * weight.square().sum()
        total.backward()
        return total

    solver.step(loss)
    scaled = weight.detach() / deviation
    return scaled.float(), (bias.detach() - scaled @ mean.double()).float()


def calibrated(logits: Sequence[Tensor], languages: Sequence[Tensor]) -> float:
    """The temperature that makes the true languages of some sets likeliest, every set counting the same.

    Guo et al. 2017, arXiv 1706.04599 §4.2.
    """
    steps = torch.logspace(-1, 1, 201)
    losses = [
        sum(float(F.cross_entropy(given / step, true)) for given, true in zip(logits, languages, strict=True))
        for step in steps
    ]
    return float(steps[int(np.argmin(losses))])


def piece_of(features: Tensor, seconds: float, rng: np.random.Generator) -> Tensor:
    """A stretch of [F, 80], drawn by lot, normalised as if nothing else had been heard; all of what is shorter."""
    frames = round(seconds * _FRAMES_A_SECOND)
    start = int(rng.integers(max(len(features) - frames, 0) + 1))
    piece = features[start : start + frames]
    deviation, mean = torch.std_mean(piece, dim=0, keepdim=True)
    return (piece - mean) / deviation.clamp_min(_LEAST_DEVIATION)


def dev_sets(stores: Path, config: SpokenLanguageTraining) -> dict[str, list[Example]]:
    """Held-out utterances as they are, by set, and a piece of each under `pieces_of_…`."""
    rng = np.random.default_rng(0)
    whole = dev_examples(stores)
    seconds = (config.shortest_seconds + config.longest_seconds) / 2
    pieces = {
        f"pieces_of_{name}": [replace(e, features=piece_of(e.features.float(), seconds, rng)) for e in of]
        for name, of in whole.items()
    }
    return whole | pieces
