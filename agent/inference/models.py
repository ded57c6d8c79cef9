"""Models: the concept space and the thinkers, as the operations the agent asks for, on the model's thread.

Receives requests of the turn machine, gives arrays and strings. The only module that knows both the agent's
requests and `lcm`; it loads `lcm`, and so torch, no earlier than `load`.
"""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.config import Backend, Precision, ThinkerConfig
from agent.core.context import ROLE_USER
from agent.core.events import FloatArray, Task
from agent.core.inputs import ContextEntry, Decode, EncodeSpeech, EncodeText, Think
from agent.errors import TextInputError, UsageError
from agent.inference.kept_conversations import KeptConversations
from agent.inference.thinkers import (
    EchoThinker,
    LcmThinker,
    RemoteThinker,
    RetrieveThinker,
    Thinker,
    ThoughtPart,
    to_array,
)
from agent.language_choice import AUTO, named

if TYPE_CHECKING:
    from torch import Tensor

    from lcm.space import ConceptSpace

MAX_TEXT_CHARS = 100_000
MAX_SENTENCES = 1000
"""In one turn; what waits between the stages has room for them"""
_TEXT_BATCH = 32
_LEAST_SAMPLES = 1_600
"""What a concept takes, at 16 kHz"""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedText:
    """Sentences and their concepts."""

    texts: tuple[str, ...]
    concepts: FloatArray
    """[N, D]"""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedSpeech:
    """An utterance and its concept."""

    concepts: FloatArray
    """[1, D]"""
    language: str | None = None
    """Where it was to be found out"""
    probability: float | None = None


class Models:
    """One loaded bundle and the thinkers that work on it."""

    def __init__(self, bundle: str, space: "ConceptSpace") -> None:
        self.bundle = bundle
        self.space = space
        self._thinkers: dict[Task, Thinker] = {}
        self._remote: RemoteThinker | None = None
        self.conversations: KeptConversations | None = None
        """None where no model converses"""

    @classmethod
    def load(
        cls,
        bundle: str,
        *,
        device: str = "auto",
        precision: Precision = "float32",
        backend: Backend = "noema",
        parts: Collection[str] | None = None,
        tasks: Sequence[Task] = (),
        thinker: ThinkerConfig | None = None,
        check: Callable[["Models"], object] = lambda models: None,
    ) -> "Models":
        """Loads the space, and for `tasks` whatever their thinkers need.

        Args:
            bundle: name or folder.
            device: where both compute.
            precision: of the space's weights; thinkers keep float32: they are small beside it.
            backend: whose modules compute the space.
            parts: what of the space to load now, see `needed_parts`; the rest when it is first needed.
            tasks: what sessions will do.
            thinker: who answers where the task is to converse.
            check: called before anything large is loaded: languages and parts are known by then.
        """
        # oneDNN keeps compiled code for every length of utterance it has met, a thousand of them by default: with
        # speech, no two are alike, and memory would grow for hours. Read when torch is first imported.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
        # Between two operations torch's threads wait by spinning, for milliseconds: beside another busy process that
        # cost half of two cores, and replies came three times as late (docs/LOG.md). A little of it is enough.
        if "OMP_WAIT_POLICY" not in os.environ:
            os.environ.setdefault("GOMP_SPINCOUNT", "10000")
        from lcm.space import ConceptSpace

        space = ConceptSpace.load(bundle, device, precision=precision, backend=backend, parts=[])
        models = cls(bundle, space)
        check(models)
        settings = thinker or ThinkerConfig()
        if "converse" in tasks and settings.name != "openai" and "base" not in space.bundle.parts:
            raise UsageError(
                f"the bundle '{bundle}' has no model that converses; let it interpret: --task translate --to LANGUAGE"
            )
        space.prepare(parts)
        for task in tasks:
            models._add_thinker(task, device, settings)
        return models

    def _add_thinker(self, task: Task, device: str, settings: ThinkerConfig) -> None:
        if task != "converse":
            self._thinkers[task] = EchoThinker()
            return
        if settings.name == "openai":
            from agent.inference.openai_thinker import OpenAiThinker

            self._remote = OpenAiThinker(settings.openai.endpoint())
            self.space.prepare(["text_encoder"])  # what it says becomes concepts
            if not {"base", "bank"} <= set(self.space.bundle.parts):
                return  # nobody can answer in its place
        from lcm.engine import Engine

        engine = Engine.load(self.bundle, variant=settings.variant, device=device, space=self.space)
        self.conversations = KeptConversations(engine)
        if settings.name == "lcm":
            self._thinkers[task] = LcmThinker(self.conversations, settings.max_concepts)
            return
        from lcm.reply_bank import ReplyBank

        bank = ReplyBank.load(self.space.bundle.folder, engine.keys)
        self._thinkers[task] = RetrieveThinker(self.conversations, bank, settings.max_bank_sentences)

    def thinker(self, task: Task) -> Thinker | RemoteThinker:
        """The thinker of a task."""
        return self.remote(task) or self._thinkers[task]

    def remote(self, task: Task) -> RemoteThinker | None:
        """The thinker of a task, where that is somewhere else; None: `think` is all there is."""
        return self._remote if task == "converse" else None

    def thinks(self, task: Task) -> bool:
        """Whether `think` can answer; in place of a remote thinker that fails, it may not."""
        return task in self._thinkers

    @property
    def encodes_text(self) -> bool:
        """Whether words can become concepts."""
        return "text_encoder" in self.space.bundle.parts

    def encode_speech(
        self, requests: Sequence[EncodeSpeech], cancelled: Callable[[], bool] = lambda: False
    ) -> list[EncodedSpeech] | None:
        """Utterances of any sessions → one concept each, and its language where that was left open.

        `cancelled` is asked between steps where there are any; None where it said yes.
        """
        from lcm.space.decoding import DecodingCancelled

        answers: dict[int, EncodedSpeech] = {}
        for candidates in dict.fromkeys(request.candidates for request in requests):
            places = [place for place, request in enumerate(requests) if request.candidates == candidates]
            alike = [requests[place] for place in places]
            try:
                found = self._identify(alike, candidates, cancelled) if candidates else self._encode(alike)
            except DecodingCancelled:
                return None
            answers |= zip(places, found, strict=True)
        return [answers[place] for place in range(len(requests))]

    def _encode(self, requests: Sequence[EncodeSpeech]) -> list[EncodedSpeech]:
        languages = [request.language for request in requests]
        concepts = self.space.encode_speech(_waveforms(requests), sample_rate=16_000, language=languages)
        return [EncodedSpeech(to_array(concept)[None]) for concept in concepts]

    def _identify(
        self, requests: Sequence[EncodeSpeech], candidates: tuple[str, ...], cancelled: Callable[[], bool]
    ) -> list[EncodedSpeech]:
        # Text and speech may write one language differently, as eng_Latn and eng.
        written = {self.space.resolve_language(tag, "speech"): tag for tag in reversed(candidates)}
        heard = self.space.identify(_waveforms(requests), 16_000, candidates, cancelled)
        return [
            # The last digits differ from machine to machine, and an event that bears them would too.
            EncodedSpeech(to_array(h.concept)[None], written[h.language], round(h.probabilities[h.language], 2))
            for h in heard
        ]

    def encode_text(self, request: EncodeText) -> EncodedText:
        """Text → its sentences and one concept each."""
        return self.encode_sentences(sentences_of(request.text, request.language), request.language)

    def encode_sentences(self, texts: Sequence[str], language: str) -> EncodedText:
        """Sentences → one concept each, in batches."""
        rows = [
            to_array(self.space.encode_text(list(texts[start : start + _TEXT_BATCH]), language=language))
            for start in range(0, len(texts), _TEXT_BATCH)
        ]
        concepts = np.concatenate(rows) if rows else np.zeros((0, self.space.dim), dtype=np.float32)
        return EncodedText(tuple(texts), concepts)

    def decode(self, requests: Sequence[Decode], cancelled: Callable[[], bool] = lambda: False) -> list[str] | None:
        """Concepts → the sentences they stand for, joined where a request holds several.

        `cancelled` is asked between the decoder's steps; None where it said yes.
        """
        import torch

        from lcm.space.decoding import DecodingCancelled

        counts = [len(request.concepts) for request in requests]
        concepts = torch.from_numpy(np.concatenate([request.concepts for request in requests]))
        languages = [r.language for r, count in zip(requests, counts, strict=True) for _ in range(count)]
        try:
            texts = iter(self.space.decode_text(concepts, language=languages, cancelled=cancelled))
        except DecodingCancelled:
            return None
        return [" ".join(next(texts) for _ in range(count)).strip() for count in counts]

    def think(self, request: Think, session: int = 0) -> Iterator[ThoughtPart]:
        """The reply, step by step; of `retrieve`, where a remote thinker should have given it."""
        return self._thinkers[request.task].think(request, session)

    def forget(self, session: int) -> None:
        """It is over: nothing of what was said in it is kept."""
        if self.conversations is not None:
            self.conversations.forget(session)

    def warm_up(self, language: str, *, heard: bool, typed: bool) -> None:
        """Computes a turn nobody asked for: what is computed first takes several times as long as ever after."""
        seconds = (np.zeros(16_000 * count, np.float32) for count in (1, 2, 3) if heard)
        concepts = [self._encode([EncodeSpeech(0, 0, 0, samples, language)])[0].concepts for samples in seconds]
        if typed or not heard:
            concepts.append(self.encode_sentences(["Good morning."], language).concepts)
        context = tuple(ContextEntry(0, ROLE_USER, concept[0], None, language) for concept in concepts)
        for task in self._thinkers:
            list(self.think(Think(0, 0, context[-1:], task, language)))
        self.forget(0)
        self.decode([Decode(0, 0, 0, concepts[-1], language)])

    def check_languages(self, choice: str, *, speech: bool) -> tuple[str, ...]:
        """The languages that a choice leaves possible, as the bundle writes them; see `check_language`."""
        names = named(choice)
        if names == [AUTO] and speech:
            self._check_hears()
            names = self._heard_and_written()
        return tuple(dict.fromkeys(self.check_language(name, speech=speech) for name in names))

    def prepare_to_identify(self, choice: str) -> None:
        """Loads what telling the languages of a choice apart takes; raises now what it would raise when one speaks."""
        self.space.prepare_to_identify(self.check_languages(choice, speech=True))

    def _heard_and_written(self) -> list[str]:
        """What is heard has to be said again: a language that the bundle hears but cannot write is no use here."""
        from lcm.errors import LanguageError

        found = []
        for tag in self.space.languages["speech"]:
            with suppress(LanguageError):
                found.append(self.space.resolve_language(tag, "text"))
        return found

    def _check_hears(self) -> None:
        if not self.space.languages["speech"]:
            fetch = "; or fetch one: noema fetch sonar --speech eng" if self.space.bundle.name == "sonar" else ""
            raise UsageError(f"the bundle '{self.bundle}' has no speech encoder yet; use text{fetch}")

    def check_language(self, language: str, *, speech: bool = False) -> str:
        """The language as the bundle writes it; one it does not cover is an error that names the nearest."""
        if speech:
            self._check_hears()
            self.space.resolve_language(language, "speech")
        return self.space.resolve_language(language, "text")


def needed_parts(*, typed: bool, heard: Sequence[str], said: bool) -> list[str]:
    """What to load before anything happens: on a machine that holds no more, what is not needed must not be there.

    Args:
        typed: whether text is to be understood.
        heard: the languages in which speech is; what the bundle does not hear is passed over.
        said: whether concepts are to be put into words.
    """
    from lcm.space.languages import base_language

    hearing = ["speech_encoder", *(f"speech_encoder_{base_language(language)}" for language in heard)] if heard else []
    return ["text_encoder"] * typed + hearing + ["text_decoder"] * said


def _waveforms(requests: Sequence[EncodeSpeech]) -> "list[Tensor]":
    """The end of a recording may leave less than a concept takes: the rest is silence."""
    import torch

    def filled_up(samples: FloatArray) -> FloatArray:
        return np.pad(samples, (0, max(0, _LEAST_SAMPLES - len(samples))))

    return [torch.from_numpy(filled_up(request.samples)) for request in requests]


def sentences_of(text: str, language: str) -> list[str]:
    """The sentences of a text; a text that holds none, or far too many, is an error."""
    from lcm.space.sentences import split_sentences

    if len(text) > MAX_TEXT_CHARS:
        raise TextInputError(f"the text has {len(text)} characters; give at most {MAX_TEXT_CHARS} at a time")
    sentences = split_sentences(text, language)
    if len(sentences) > MAX_SENTENCES:
        raise TextInputError(
            f"the text has {len(sentences)} sentences; give at most {MAX_SENTENCES} at a time, or a file"
        )
    if not sentences:
        raise TextInputError("the text is empty once white space and control characters are gone; type some words")
    return sentences
