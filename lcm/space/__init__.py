"""The concept space: sentences or waveforms in, concepts out, and back. Knows nothing of sessions, devices or sockets.

Shape letters here and below: B batch, T time (tokens, frames or samples), C concept, D model width.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from lcm.bundle import Bundle
from lcm.errors import BackendError, BundleError, LanguageError, TextError
from lcm.space.backend import Backend, BackendName, Precision, TorchBackend, speech_part
from lcm.space.batches import length_sorted, most_tokens, padded_batches
from lcm.space.checks import (
    chosen_device,
    complete_options,
    finite_concepts,
    one_of,
    samples_of,
    utterances,
    written_text,
)
from lcm.space.decoding import DecodingOptions
from lcm.space.fbank import SAMPLE_RATE, STEP, fbank
from lcm.space.languages import Languages
from lcm.space.pauses import cut_at_pauses
from lcm.space.sonar import fetchable
from lcm.space.text_decoder import TextDecoderConfig
from lcm.space.text_encoder import TextEncoderConfig
from lcm.space.tokenizer import PAD, Tokenizer

__all__ = ["ConceptSpace", "DecodedText", "DecodingOptions", "EncodedPiece", "HeardSpeech"]

BATCH = 64
_PARTS = re.compile(r"(text_encoder|text_decoder|spoken_language|speech_encoder(_\w+)?)$")


@dataclass(frozen=True, slots=True)
class DecodedText:
    """A sentence, and how sure the decoder is of it."""

    text: str
    score: float
    """Log-probability a token, language tag and end among them"""
    tokens: list[int]
    """Without tag and end"""
    log_probs: list[float]
    """Of each token, and of the end if it was reached"""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPiece:
    """A stretch of a recording."""

    start_seconds: float
    end_seconds: float
    concept: Tensor  # [C]


@dataclass(frozen=True, slots=True, eq=False)
class HeardSpeech:
    """An utterance whose language was not known."""

    concept: Tensor  # [C]
    language: str
    """The likeliest of those allowed, as the bundle writes it"""
    probabilities: dict[str, float]
    """Of each allowed language, in the order in which they were given; they sum to 1"""


class ConceptSpace:
    """Encoders and decoder of one bundle, on one device. Use from one thread at a time."""

    def __init__(self, bundle: Bundle, backend: Backend, device: torch.device) -> None:
        self.bundle, self.device = bundle, device
        self.space_id, self.dim = bundle.space_id, bundle.concept_dim
        self.tokenizer = Tokenizer.from_file(bundle.tokenizer_path(), bundle.languages["text"])
        self._backend = backend
        self._known = {
            kind: Languages(tags, f"{kind} of {bundle.name!r}", fetchable(bundle, kind))
            for kind, tags in bundle.languages.items()
        }

    @classmethod
    def load(
        cls,
        name: str | Path = "mini",
        device: str = "auto",
        *,
        precision: Precision = "float32",
        backend: BackendName = "noema",
        parts: Collection[str] | None = None,
    ) -> "ConceptSpace":
        """Load a bundle by name (`mini`; `sonar`, once it was fetched) or folder.

        Args:
            name: a bundle that ships with Noema or was fetched, or a folder that holds one.
            device: `auto` (CUDA, else MPS, else CPU) or any torch device.
            precision: of the weights; concepts are float32 always.
            backend: whose modules compute: ours, or Meta's package where it is installed (extra `sonar`).
            parts: what to load now, the rest when it is first needed; None is all but encoders for one language.

        Raises:
            BundleError: missing, damaged, its parts belong to different spaces, or do not fit this Noema.
            ComputeDeviceError: no such device here.
            BackendError: no such backend here, or no such precision.
        """
        one_of(precision, get_args(Precision), "precision", BackendError)
        one_of(backend, get_args(BackendName), "backend", BackendError)
        bundle, where = Bundle.open(name), chosen_device(device)
        bundle.check_has_space()
        models: Backend
        if backend == "sonar-space":
            from lcm.space.sonar_space import SonarSpaceBackend

            models = SonarSpaceBackend(bundle, where, precision)
        else:
            models = TorchBackend(bundle, where, precision)
        space = cls(bundle, models, where)
        space.prepare(parts)
        return space

    def prepare(self, parts: Collection[str] | None = None) -> None:
        """Load these parts now, those of them that the bundle has, rather than when they are first needed.

        Args:
            parts: None is all but encoders for one language.

        Raises:
            BundleError: damaged, or what no bundle has.
        """
        parts = ("text_encoder", "text_decoder", "speech_encoder") if parts is None else parts
        if unknown := [part for part in parts if not _PARTS.match(part)]:
            raise BundleError(f"{unknown[0]!r} is no part of a space; there are text_encoder, text_decoder, …")
        self._backend.prepare([part for part in parts if part in self.bundle.parts])

    @property
    def languages(self) -> dict[str, list[str]]:
        """`{"text": […], "speech": […]}`: ISO 639-3 languages of each modality."""
        return {kind: list(tags) for kind, tags in self.bundle.languages.items()}

    def resolve_language(self, language: str, kind: Literal["text", "speech"] = "text") -> str:
        """The bundle's own tag for what somebody wrote.

        Raises:
            LanguageError: not covered; says which come nearest.
        """
        return self._known[kind].resolve(language)

    def encode_text(self, texts: Sequence[str], language: str | Sequence[str]) -> Tensor:
        """One concept a sentence.

        Args:
            texts: sentences; longer text belongs into `split_sentences` first, what exceeds the encoder is cut.
            language: one for all, or one each.

        Returns:
            [B, C] float32 on the CPU.

        Raises:
            TextError: a text is empty, nothing is left of it without control characters, or `texts` is one text.
            LanguageError: a language that the bundle does not hold; says which come nearest.
        """
        if isinstance(texts, str):
            raise TextError("give a list of sentences, not one text: each letter would become a sentence")
        languages = self._languages(language, len(texts), "text")
        limit = TextEncoderConfig(**self.bundle.part("text_encoder").config).max_tokens
        rows = [
            self.tokenizer.encode_source(written_text(text), tag, max_tokens=limit)
            for text, tag in zip(texts, languages, strict=True)
        ]
        out = torch.empty(len(rows), self.dim)
        for batch in length_sorted([len(row) for row in rows], BATCH):
            tokens = torch.full((len(batch), max(len(rows[i]) for i in batch)), PAD)
            for at, i in enumerate(batch):
                tokens[at, : len(rows[i])] = torch.tensor(rows[i])
            out[batch] = self._backend.encode_tokens(tokens)
        return out

    def encode_speech(
        self, waveforms: Sequence[Tensor], sample_rate: int = SAMPLE_RATE, language: str | Sequence[str] = "eng"
    ) -> Tensor:
        """One concept a waveform.

        Args:
            waveforms: float32 [T] in −1 … 1 each (numpy arrays are taken too).
            sample_rate: of all of them; resampled to 16 kHz.
            language: what is spoken; the mini encoder hears all its languages with the same weights.

        Returns:
            [B, C] float32 on the CPU.

        Raises:
            AudioInputError: empty, too short or long, not finite, or not one channel.
            LanguageError: a language without a speech encoder.
        """
        features = [fbank(samples) for samples in utterances(waveforms, sample_rate)]
        languages = self._languages(language, len(features), "speech")
        out = torch.empty(len(features), self.dim)
        for tag in dict.fromkeys(languages):
            of_tag = [i for i, spoken in enumerate(languages) if spoken == tag]
            for batch, padded, lengths in padded_batches(features, of_tag):
                out[batch] = self._backend.encode_features(padded, lengths, tag)
        return out

    def identify(
        self,
        waveforms: Sequence[Tensor],
        sample_rate: int = SAMPLE_RATE,
        languages: Sequence[str] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[HeardSpeech]:
        """The concept of each waveform, and which of some languages is spoken in it.

        One encoder for all languages, as mini's, hears each waveform once, and a head on it tells them apart. Where
        each language has an encoder of its own, as in SONAR, every one of them hears it, and its concept is decoded
        into its language: the one whose words the decoder is surest of is taken.

            heard = space.identify([waveform], sample_rate=16_000, languages=["eng", "fra"])[0]
            heard.language, heard.probabilities   # ("fra", {"eng": 0.02, "fra": 0.98})
            space.decode_text(heard.concept[None], language="deu")

        Args:
            waveforms: float32 [T] in −1 … 1 each (numpy arrays are taken too).
            sample_rate: of all of them; resampled to 16 kHz.
            languages: those that may be spoken; all that the bundle hears if left out. One alone needs no telling.
            cancelled: asked between two steps of decoding.

        Raises:
            DecodingCancelled: `cancelled()` answered true.
            AudioInputError: as `encode_speech`.
            LanguageError: a language without a speech encoder, none at all, or a bundle that cannot tell them apart.
            BundleError: the head belongs to another speech encoder.
        """
        allowed = self._allowed(languages)
        if len(allowed) == 1:
            concepts = self.encode_speech(waveforms, sample_rate, allowed[0])
            return [HeardSpeech(concept, allowed[0], {allowed[0]: 1.0}) for concept in concepts]
        features = [fbank(samples) for samples in utterances(waveforms, sample_rate)]
        concepts, scores = (
            self._told_apart(features, allowed)
            if self._hears_with_one(allowed)
            else self._decoded_again(features, allowed, cancelled)
        )
        probabilities = scores.double().softmax(dim=1)
        return [
            HeardSpeech(of_each[best], allowed[best], dict(zip(allowed, likely.tolist(), strict=True)))
            for of_each, likely, best in zip(concepts, probabilities, scores.argmax(dim=1).tolist(), strict=True)
        ]

    def prepare_to_identify(self, languages: Sequence[str] | None = None) -> None:
        """Loads now what `identify` takes, and raises what it would raise when somebody speaks."""
        allowed = self._allowed(languages)
        if len(allowed) > 1 and self._hears_with_one(allowed):
            self.identify([torch.zeros(SAMPLE_RATE)], languages=allowed)
        elif len(allowed) > 1:
            self._backend.prepare(["text_decoder", *(speech_part(self.bundle, tag) for tag in allowed)])

    def decode_text(
        self,
        concepts: Tensor,
        language: str | Sequence[str],
        *,
        beam: int = 1,
        temperature: float = 0.0,
        seeds: Sequence[int] = (),
        max_tokens: int | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[str]:
        """One sentence a concept.

        Args:
            concepts: [B, C].
            language: one for all, or one each.
            beam: 1 is greedy.
            temperature: above 0 sample instead, token by token.
            seeds: of the sampling, one a concept; a concept with its seed gives the same in any batch.
            max_tokens: longest answer, the decoder's own limit at most.
            cancelled: asked between two steps.

        Raises:
            As `decode`.
        """
        options = DecodingOptions(beam=beam, temperature=temperature, seeds=seeds, max_tokens=max_tokens)
        return [decoded.text for decoded in self.decode(concepts, language, options, cancelled)]

    def decode(
        self,
        concepts: Tensor,
        language: str | Sequence[str],
        options: DecodingOptions | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[DecodedText]:
        """One sentence a concept, with its score.

        Args:
            concepts: [B, C].
            language: one for all, or one each.
            options: how to search; greedy if left out.
            cancelled: asked between two steps.

        Raises:
            ContextError: the concepts are not finite, or not of this space's width.
            LanguageError: a language that the bundle does not hold; says which come nearest.
            DecodingError: options that do not go together, or are out of range.
            DecodingCancelled: `cancelled()` answered true.
        """
        concepts = finite_concepts(concepts, self.dim)
        languages = self._languages(language, len(concepts), "text")
        chosen = complete_options(options or DecodingOptions(), len(concepts), self._decoder_config())
        prefixes = torch.tensor([self.tokenizer.target_prefix(tag) for tag in languages]).view(-1, 2)
        decoded: list[DecodedText] = []
        size = max(1, BATCH // chosen.beam)
        for start in range(0, len(concepts), size):
            rows = slice(start, start + size)
            own = replace(chosen, seeds=chosen.seeds[rows])
            best = self._backend.decode(concepts[rows], prefixes[rows], self.tokenizer.eos, own, cancelled)
            decoded += [DecodedText(self.tokenizer.decode(h.tokens), h.score, h.tokens, h.log_probs) for h in best]
        return decoded

    def encode_recording(
        self, waveform: Tensor, sample_rate: int = SAMPLE_RATE, language: str = "eng"
    ) -> list[EncodedPiece]:
        """A recording of any length: cut at its pauses into pieces that each fit one concept.

        Args:
            waveform: float32 [T] in −1 … 1.
            sample_rate: resampled to 16 kHz.
            language: what is spoken.

        Raises:
            AudioInputError: too short, not finite, or not one channel.
            LanguageError: a language without a speech encoder.
        """
        samples = samples_of(waveform, sample_rate)
        pieces = cut_at_pauses(samples, self.bundle.longest_seconds)
        concepts = self.encode_speech([samples[start:end] for start, end in pieces], language=language)
        return [
            EncodedPiece(start / SAMPLE_RATE, end / SAMPLE_RATE, concept)
            for (start, end), concept in zip(pieces, concepts, strict=True)
        ]

    def logits(self, concepts: Tensor, texts: Sequence[str], language: str | Sequence[str]) -> list[Tensor]:
        """What the decoder says at each place of a given text: teacher forcing.

        Returns:
            [T, V] each: before each of the T − 1 tokens of the text (`tokenizer.encode`), and before its end.

        Raises:
            ContextError, LanguageError: as `decode`.
            TextError: as `encode_text`, not one text a concept, or a text longer than the decoder's limit.
        """
        concepts = finite_concepts(concepts, self.dim)
        languages = self._languages(language, len(concepts), "text")
        if len(texts) != len(concepts) or isinstance(texts, str):
            raise TextError(f"give one text for each of {len(concepts)} concepts")
        limit = self._decoder_config().max_tokens
        said: list[Tensor] = []
        for number, (text, tag) in enumerate(zip(texts, languages, strict=True)):
            tokens = [*self.tokenizer.target_prefix(tag), *self.tokenizer.encode(written_text(text))]
            if len(tokens) > limit:
                raise TextError(f"a text has {len(tokens)} tokens, the decoder takes {limit}; split it into sentences")
            given = self._backend.logits(concepts[number : number + 1], torch.tensor([tokens]))
            said.append(given[0, 1:].clone())  # one that may be trained on: what comes out of the models may not
        return said

    def _allowed(self, languages: Sequence[str] | None) -> list[str]:
        """Each once, as the bundle writes it."""
        if isinstance(languages, str):
            raise LanguageError(f"give a list of languages, not {languages!r}; encode_speech takes one")
        known = self._known["speech"]
        chosen = list(dict.fromkeys(known.tags if languages is None else map(known.resolve, languages)))
        if not chosen:
            raise LanguageError("no language to hear; name one, or fetch an encoder: noema fetch sonar --speech eng")
        return chosen

    def _told_apart(self, features: list[Tensor], languages: list[str]) -> tuple[Tensor, Tensor]:
        """One encoder hears all: concepts [B, L, C], the same for each language, and log-odds [B, L]."""
        concepts, scores = torch.empty(len(features), self.dim), torch.empty(len(features), len(languages))
        for batch, padded, lengths in padded_batches(features, range(len(features))):
            concepts[batch], scores[batch] = self._backend.identify_features(padded, lengths, languages)
        return concepts[:, None].expand(-1, len(languages), -1), scores

    def _hears_with_one(self, languages: Sequence[str]) -> bool:
        return len({speech_part(self.bundle, tag) for tag in languages}) == 1

    def _decoded_again(
        self, features: list[Tensor], languages: list[str], cancelled: Callable[[], bool]
    ) -> tuple[Tensor, Tensor]:
        """One encoder hears each: concepts [B, L, C], and the decoder's score of each in its language, [B, L]."""
        concepts = torch.empty(len(features), len(languages), self.dim)
        scores = torch.empty(len(features), len(languages))
        most = [most_tokens(len(frames) * STEP / SAMPLE_RATE) for frames in features]
        for number, tag in enumerate(languages):
            for batch, padded, lengths in padded_batches(features, range(len(features))):
                concepts[batch, number] = self._backend.encode_features(padded, lengths, tag)
            for limit in dict.fromkeys(most):
                rows = [row for row, own in enumerate(most) if own == limit]
                decoded = self.decode(concepts[rows, number], tag, DecodingOptions(max_tokens=limit), cancelled)
                scores[rows, number] = torch.tensor([sentence.score for sentence in decoded])
        return concepts, scores

    def _decoder_config(self) -> TextDecoderConfig:
        if "text_decoder" not in self.bundle.parts:
            raise LanguageError(f"bundle {self.bundle.name!r} has no text decoder; choose another with --bundle")
        return TextDecoderConfig(**self.bundle.part("text_decoder").config)

    def _languages(self, language: str | Sequence[str], count: int, kind: str) -> list[str]:
        tags = [language] * count if isinstance(language, str) else list(language)
        if len(tags) != count:
            raise LanguageError(f"{len(tags)} languages for {count} items; give one for all, or one each")
        known = self._known[kind]
        if isinstance(language, str):
            known.resolve(language)  # also where there are no items
        return [known.resolve(tag) for tag in tags]
