"""Training of the speech encoder: batches of speech in, an encoder out that puts speech where its text lies.

Without a teacher the conformers learn to hear phones (CTC). Then the frozen text encoder teaches: 1 − cosine to the
sentence's concept, and InfoNCE among the concepts of the batch and of a bank of training sentences [SONAR §5 has the
distance alone]. First the reader learns that from phonemised text, then all of the encoder from speech, while the
reader goes on reading. Knows nothing of bundles' files.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.errors import TrainingDataError
from lcm.space.speech_encoder import SpeechEncoder
from lcm.training.phone_texts import PhoneBatch, PhoneTexts, collated_phones, prepare_phones
from lcm.training.phones import LABELS, collapsed, edit_distance
from lcm.training.speech_batches import (
    Example,
    SpeechBatch,
    SpeechFeed,
    collated,
    dev_examples,
    grouped,
    training_texts,
)
from lcm.training.speech_losses import Lesson, hearing_losses, reading_losses
from lcm.training.speech_model import SpeechTraining, optimisers
from lcm.training.step_means import StepMeans
from lcm.training.text import xsim_error
from lcm.training.weights import AveragedWeights, read_checkpoint, write_checkpoint

__all__ = ["SpeechTrainer", "SpeechTraining", "Teacher"]

LOG_EVERY = 50
_RATE = "times_real_time"


@dataclass(frozen=True, slots=True)
class Teacher:
    """The frozen text encoder whose concepts are to be heard in speech."""

    encode: Callable[[Sequence[str], Sequence[str]], Tensor]
    """Sentences and their languages → concepts [B, C]: `ConceptSpace.encode_text`"""
    space_id: str
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    """The reader begins with those that fit it"""


class SpeechTrainer:
    """A run in a folder: resumes from `checkpoint.pt` there, appends to `metrics.jsonl`."""

    def __init__(
        self, config: SpeechTraining, prepared: Path, stores: Path, run: Path, teacher: Teacher | None = None,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        """Begin or resume.

        Args:
            config: the run.
            prepared: the splits that `lcm.training.data` made.
            stores: the recordings that `lcm.training.recordings` made.
            run: checkpoints and metrics.
            teacher: without it only the phones are learnt.
            device: a torch device.
        """
        self.config, self.prepared, self.stores, self.run = config, prepared, stores, run
        self.teacher, self.device = teacher, device
        run.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.model = SpeechEncoder(config.encoder()).to(device)
        self.weights = AveragedWeights(self.model, optimisers(self.model, config))
        self.step, self.read, self.hours = 0, 0, 0.0
        if (state := read_checkpoint(run, device)) is not None:
            self._resume(state)
        if teacher and not self.read:
            self._begin_with(teacher.weights)
        self._texts: Iterator[PhoneBatch] | None = None
        self._bank: Tensor | None = None
        if teacher:
            self._open_texts()
        self._dev: dict[str, list[Example]] | None = None

    @property
    def steps(self) -> int:
        """The last step."""
        return self.config.steps

    def finish_in(self, steps: int) -> None:
        """End the run `steps` from here, with the learning rate falling linearly to zero; kept over a resume."""
        self.config = self.config.ending_in(steps, self.step)

    @property
    def reading(self) -> bool:
        """Whether the reader learns alone."""
        return self.teacher is not None and self.read < self.config.reading_steps

    def train(self) -> Iterator[dict[str, float]]:
        """Train to the configured step; yields after every step: means over the last 50 at each 50th, else nothing.

        `waited` is the share of the time in which no batch was ready.
        Stopping the iteration is safe; call `save` to keep the steps since the last checkpoint.
        """
        speech: Iterator[SpeechBatch] | None = None
        with ExitStack() as running:
            means, waited = StepMeans(_RATE), 0.0
            while self.step < self.config.steps:
                asked = time.monotonic()
                if speech is None and not self.reading:
                    speech = iter(running.enter_context(self._feed()))
                batch = next(speech) if speech else None
                texts = next(self._texts) if self._texts else None
                waited += time.monotonic() - asked
                means.add(self.train_step(batch, texts), 0.0 if batch is None else float(batch.lengths.sum()) / 100)
                if self.step % self.config.checkpoint_every == 0:
                    self.save()
                if self.step % LOG_EVERY:
                    yield {}
                    continue
                row = means.row() | {"waited": round(waited / means.spent_s, 3)}
                row |= {"step": self.step, "hours": round(self.hours, 2)}
                if self.step % self.config.evaluate_every == 0:
                    row |= self.evaluate()
                means, waited = StepMeans(_RATE), 0.0
                with (self.run / "metrics.jsonl").open("a", encoding="utf-8") as log:
                    log.write(json.dumps(row) + "\n")
                yield row
        self.save()

    def train_step(self, speech: SpeechBatch | None, texts: PhoneBatch | None) -> dict[str, Tensor]:
        """One update of the weights and their average."""
        terms = self._terms(speech, texts)
        total = torch.stack([self._weight(name) * term for name, term in terms.items()]).sum()
        factor = self.config.factor(self.step) * (self.config.reading_rate if self.reading else 1.0)
        norm = self.weights.update(total, factor, self.config, self.step)
        self.step += 1
        self.read += speech is None
        self.hours += 0.0 if speech is None else float(speech.lengths.sum()) / 360_000
        return {k: v.detach() for k, v in {**terms, "loss": total, "norm": norm}.items()}

    def _terms(self, speech: SpeechBatch | None, texts: PhoneBatch | None) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        with torch.autocast(self.device, dtype=torch.bfloat16):
            if speech is not None:
                lesson = self._lesson(speech.texts, speech.languages)
                terms |= hearing_losses(self.model, speech, lesson, self.config)
            if texts is not None:
                lesson = self._lesson(texts.texts, texts.languages)
                assert lesson is not None  # texts come with a teacher
                terms |= reading_losses(self.model, texts, lesson, self.config)
        return terms

    def _weight(self, term: str) -> float:
        name = term.removeprefix("read_")
        weight = {"phones": self.config.phone_weight, "distance": 1.0, "contrast": self.config.contrast_weight}[name]
        return weight if name == term or self.reading else self.config.reading_weight * weight

    def _begin_with(self, encoder: Mapping[str, Tensor]) -> None:
        """Sentences of phones are read much as sentences of pieces are: all but the embeddings may be taken over."""
        own = {f"reader.{n}": p for n, p in self.model.reader.named_parameters() if not n.startswith("embed")}
        with torch.no_grad():
            for name, parameter in own.items():
                given = encoder.get(name.removeprefix("reader."))
                if given is not None and given.shape == parameter.shape:
                    parameter.copy_(given)
                    self.weights.average[name].copy_(given)

    def _feed(self) -> SpeechFeed:
        mix, producers = self.config.mix(), self.config.producers
        return SpeechFeed(self.prepared, self.stores, mix, seed=self.config.seed, producers=producers)

    def _lesson(self, texts: Sequence[str], languages: Sequence[str]) -> Lesson | None:
        if self.teacher is None or self._bank is None:
            return None
        return Lesson(F.normalize(self.teacher.encode(texts, languages).to(self.device).clone(), dim=1), self._bank)

    def _open_texts(self) -> None:
        texts = training_texts(self.prepared, self.config.mix().most_chars)
        prepare_phones(texts, self.stores)
        opened = PhoneTexts(texts, self.stores, self.config.mix().languages)
        # The place in the texts is not kept: a resumed run draws others.
        rng = np.random.default_rng((self.config.seed, self.step))
        self._texts = opened.batches(rng, self.config.reading_phones, self.config.misheard)
        self._bank = self._teach_bank(texts)

    def _teach_bank(self, texts: dict[str, list[str]]) -> Tensor:
        """Concepts of training sentences of every language, by their share in the mix."""
        assert self.teacher is not None
        rng = np.random.default_rng(self.config.seed)
        sentences: list[str] = []
        languages: list[str] = []
        for language, weight in self.config.mix().languages:
            chosen = rng.choice(len(texts[language]), size=int(self.config.bank * weight), replace=False)
            sentences += [texts[language][i] for i in chosen]
            languages += [language] * len(chosen)
        return F.normalize(self.teacher.encode(sentences, languages).clone(), dim=1).to(self.device)

    def averaged(self) -> SpeechEncoder:
        """An encoder with the averaged weights."""
        model = SpeechEncoder(self.config.encoder())
        model.load_state_dict(self.weights.average)
        return model.to(self.device).eval()

    def evaluate(self) -> dict[str, float]:
        """Dev metrics of the averaged weights, per cent, by set: phone errors; with a teacher retrieval errors too.

        `reading_error` is the retrieval error of the true phones: what is left to lose in hearing.
        """
        model, row = self.averaged(), {}
        if self._dev is None:
            self._dev = dev_examples(self.stores)
        for name, examples in self._dev.items():
            targets = torch.empty(0)
            if self.teacher is not None:
                targets = self.teacher.encode([e.text for e in examples], [e.language for e in examples]).to(
                    self.device
                )
                row[f"reading_error_{name}"] = round(xsim_error(self._read(model, examples), targets), 1)
            if not self.reading:
                phone_errors, concepts = self._heard(model, examples)
                row[f"phone_error_{name}"] = round(phone_errors, 1)
                if self.teacher is not None:
                    row[f"retrieval_error_{name}"] = round(xsim_error(concepts, targets), 1)
        return row

    @torch.no_grad()
    def _read(self, model: SpeechEncoder, examples: list[Example]) -> Tensor:
        """Concepts [N, C] of the true phones."""
        rows = [F.one_hot(torch.tensor(example.phones), LABELS).float() for example in examples]
        batch = collated_phones(rows, [], [])
        with torch.autocast(self.device, dtype=torch.bfloat16):
            return model.reader(model.reader.embedded(batch.posteriors.to(self.device)), batch.lengths.to(self.device))

    @torch.no_grad()
    def _heard(self, model: SpeechEncoder, examples: list[Example]) -> tuple[float, Tensor]:
        """Phone errors, and the concepts [N, C] in the order of the examples."""
        errors, labels = 0, 0
        concepts = torch.empty(len(examples), self.config.concept_dim, device=self.device)
        order = {id(example.features): number for number, example in enumerate(examples)}
        for group in grouped(examples, self.config.batch_seconds):
            batch = collated(group)
            features = torch.from_numpy(batch.features).to(self.device).float()
            with torch.autocast(self.device, dtype=torch.bfloat16):
                frames = model.frames(features, torch.from_numpy(batch.lengths).to(self.device))
                concepts[[order[id(e.features)] for e in group]] = model.read(frames)
            paths = frames.phones.argmax(dim=2).cpu()
            for example, path, length in zip(group, paths, frames.lengths.tolist(), strict=True):
                errors += edit_distance(collapsed(path[:length].tolist()), example.phones)
                labels += len(example.phones)
        return 100 * errors / labels, concepts

    def save(self) -> None:
        """Write the checkpoint aside, then put it in place."""
        about = {
            "config": self.config.model_dump(),
            "position": [self.step, self.read, self.hours],
            "space_id": self.teacher.space_id if self.teacher else "",
        }
        write_checkpoint(self.run, about | self.weights.state())

    def _resume(self, state: Mapping[str, Any]) -> None:
        taught = state["space_id"]  # none: it has learnt phones, and any teacher may go on from there
        if taught and (self.teacher is None or taught != self.teacher.space_id):
            raise TrainingDataError(
                f"{self.run} learnt space {taught}, the teacher's is {self.teacher and self.teacher.space_id}; "
                "give --bundle with the space that it learnt, another --run, or remove it"
            )
        self.weights.load(state)
        self.step, self.read, self.hours = state["position"]
        self.config = self.config.resumed(state["config"])
