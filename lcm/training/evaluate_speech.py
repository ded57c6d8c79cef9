"""Evaluation of a speech encoder: a bundle and held-out recordings in, figures out, baselines beside them.

A clip is found again if the concept of its sound is, by cosine, nearer to its transcript's concept than to any other
candidate's. Candidates are 1,000 sentences, topped up from held-out text of like length where a corpus has fewer.
Retrieval error is the mean of both directions: sound to text, and text to sound among the set's clips, which is easier
the fewer they are. Knows nothing of how the encoder was trained.
"""

import bisect
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.errors import TrainingDataError
from lcm.space import ConceptSpace
from lcm.space.fbank import SAMPLE_RATE
from lcm.training.data import key, share
from lcm.training.evaluate_text import chrf
from lcm.training.phones import edit_distance
from lcm.training.recordings import (
    FloatArray,
    Recordings,
    held_out_sentences,
    prepare_recordings,
    prepare_synthetic,
    prepare_unseen_engine,
)
from lcm.training.speech_batches import teacher_text
from lcm.training.text_batches import transcript

SET_CANDIDATES = 1_000
LONGEST_SECONDS = 29.0
ONE_CONCEPT_SECONDS = 8.0
"""What the mini encoder is meant to hear at once"""
FEW_SPEAKERS = 5
_ALL_SENTENCES = 1_000_000
RECOGNISED = 200
"""Clips of a set that pocketsphinx transcribes: it is slow"""

Cut = Callable[[FloatArray], FloatArray]
"""What the segmenter would leave of a clip at 16 kHz; empty if it hears nothing"""
_SPELLED = {
    "eng": "zero one two three four five six seven eight nine ten eleven twelve",
    "fra": "zéro un deux trois quatre cinq six sept huit neuf dix onze douze",
    "spa": "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce",
    "deu": "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
}


@dataclass(frozen=True, slots=True)
class ClipSet:
    """Clips of one corpus and language."""

    name: str
    language: str
    store: Recordings
    indices: list[int]
    texts: list[str]
    """What the text encoder reads for each clip"""
    distractors: list[str]

    def waveforms(self, cut: Cut | None = None) -> Iterator[FloatArray]:
        """Each clip, or what is left of it."""
        for index in self.indices:
            samples = self.store[index]
            kept = samples if cut is None else cut(samples)
            yield kept if len(kept) >= SAMPLE_RATE // 10 else np.zeros(SAMPLE_RATE // 10, dtype=np.float32)

    def speakers(self) -> list[str]:
        """Who says each clip, [N]."""
        return [self.store.clips[index].speaker for index in self.indices]

    def short(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which clips one concept is meant to hold, [N]."""
        limit = ONE_CONCEPT_SECONDS * SAMPLE_RATE
        return np.array([self.store.clips[index].length <= limit for index in self.indices])


def prepare_tests(prepared: Path, data: Path, stores: Path, report: Callable[[str], None] = lambda _: None) -> None:
    """Make what is missing of the stores that evaluation hears; festival is needed for `unseen_engine`."""
    report("speech: decoding recordings, speaking test sentences")
    prepare_recordings(prepared, data, stores)
    prepare_synthetic(prepared, stores)
    try:
        prepare_unseen_engine(prepared, stores)
    except TrainingDataError as error:
        report(f"speech: no unseen_engine ({error})")


def evaluate_speech(
    space: ConceptSpace, prepared: Path, stores: Path, *, split: str = "test", cut: Cut | None = None
) -> dict[str, Any]:
    """Every speech figure, in per cent; chrF in points. With `cut`, recordings are measured through it as well."""
    figures: dict[str, Any] = {"synthetic": {}, "unseen_engine": {}, "real": {}}
    for of_set in evaluation_sets(prepared, stores, split, space.languages["speech"]):
        kind, _, name = of_set.name.partition("/")
        figures[kind][name] = measured(space, of_set)
        if cut is not None and kind == "real":
            figures.setdefault("real_segmented", {})[name] = measured(space, of_set, cut)
    return figures


def evaluation_sets(prepared: Path, stores: Path, split: str, languages: Sequence[str]) -> list[ClipSet]:
    """`synthetic/eng` …, `unseen_engine/eng`, `real/commonvoice_fra` … of one split."""
    sets: list[ClipSet] = []
    for store_name, kind in (("synthetic", "synthetic"), ("unseen_engine", "unseen_engine"), ("speech", "real")):
        if not (stores / f"{store_name}.{split}.jsonl").exists():
            continue
        store = Recordings(stores / f"{store_name}.{split}")
        corpora = sorted({(clip.corpus, clip.language) for clip in store.clips if clip.language in languages})
        for corpus, language in corpora:
            name = _set_name(corpus, language) if kind == "real" else language
            sets.append(_drawn(f"{kind}/{name}", store, corpus, language, SET_CANDIDATES))
            if kind == "real":
                others = held_out_sentences(prepared, language, split, _ALL_SENTENCES)
                sets[-1] = _topped_up(sets[-1], others, SET_CANDIDATES)
    return sets


def measured(space: ConceptSpace, of_set: ClipSet, cut: Cut | None = None) -> dict[str, Any]:
    """Retrieval error with its interval, chrF and WER of one set."""
    heard = space.encode_speech([torch.from_numpy(w) for w in of_set.waveforms(cut)], SAMPLE_RATE, of_set.language)
    written = space.encode_text(of_set.texts + of_set.distractors, of_set.language)
    figures = retrieval(heard, written, of_set.short(), of_set.speakers())
    decoded = space.decode_text(heard, of_set.language)
    return figures | text_scores(decoded, of_set.texts, of_set.language)


def retrieval(
    heard: Tensor, written: Tensor, short: np.ndarray[Any, np.dtype[np.bool_]], speakers: Sequence[str]
) -> dict[str, Any]:
    """Errors of [N, C] sounds whose transcripts are the first N of [M, C] candidates."""
    similarity = F.normalize(heard, dim=1) @ F.normalize(written, dim=1).T  # [N, M]
    own = torch.arange(len(heard))
    to_text = (similarity.argmax(dim=1) != own).numpy()
    to_sound = (similarity[:, : len(heard)].argmax(dim=0) != own).numpy()
    wrong = 50.0 * (to_text.astype(np.float64) + to_sound)
    figures = {
        "n": len(heard),
        "speakers": len(set(speakers)),
        "candidates": len(written),
        "retrieval_error": round(float(wrong.mean()), 1),
        "ci": bootstrap_interval(wrong, speakers),
        "sound_to_text_error": round(100 * float(to_text.mean()), 1),
    }
    if not short.all() and short.any():
        figures |= {"n_up_to_8_s": int(short.sum()), "retrieval_error_up_to_8_s": round(float(wrong[short].mean()), 1)}
    return figures


def bootstrap_interval(
    values: np.ndarray[Any, np.dtype[np.float64]], speakers: Sequence[str], draws: int = 2_000
) -> list[float]:
    """95 % interval of the mean; whole speakers are drawn, for one's clips are not independent.

    Of fewer than five speakers clips are drawn: the interval then says nothing about other speakers.
    """
    names, of_speaker = np.unique(np.array(speakers), return_inverse=True)
    if len(names) < FEW_SPEAKERS:
        of_speaker = np.arange(len(values))
    sums, counts = np.bincount(of_speaker, values), np.bincount(of_speaker)
    drawn = np.random.default_rng(0).integers(len(sums), size=(draws, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return [round(float(bound), 1) for bound in np.quantile(means, (0.025, 0.975))]


def text_scores(hypotheses: Sequence[str], references: Sequence[str], language: str) -> dict[str, float]:
    """chrF and word error rate, both sides normalised: transcripts of some corpora have neither case nor marks."""
    normal = [(spoken_form(h, language), spoken_form(r, language)) for h, r in zip(hypotheses, references, strict=True)]
    errors = sum(edit_distance(r.split(), h.split()) for h, r in normal)
    words = sum(len(r.split()) for _, r in normal)
    scored = chrf([h for h, _ in normal], [r for _, r in normal])
    return {"chrf": round(scored, 1), "wer": round(100 * errors / max(words, 1), 1)}


def spoken_form(text: str, language: str) -> str:
    """Lower case, no marks but apostrophes, hyphens as spaces, small numbers spelled."""
    numbers = {str(number): word for number, word in enumerate(_SPELLED.get(language, "").split())}
    words = transcript(text).replace("’", "'").replace("-", " ").split()
    return " ".join(numbers.get(word, word) for word in words)


def speech_baselines(space: ConceptSpace, prepared: Path, stores: Path, *, split: str = "test") -> dict[str, Any]:
    """Chance, one concept for all (the transcripts' mean), and for English a recogniser before the text encoder."""
    figures: dict[str, Any] = {}
    for of_set in evaluation_sets(prepared, stores, split, space.languages["speech"]):
        written = space.encode_text(of_set.texts, of_set.language)
        always = space.decode_text(written.mean(dim=0, keepdim=True), of_set.language) * len(of_set.texts)
        count = len(of_set.texts) + len(of_set.distractors)
        figures[of_set.name] = {
            "chance_retrieval_error": round(100 - 100 / count, 1),
            "mean_concept": text_scores(always, of_set.texts, of_set.language),
        }
        if of_set.language == "eng" and (cascade := cascaded(space, of_set, stores)):
            figures[of_set.name]["pocketsphinx"] = cascade
    return figures


def cascaded(space: ConceptSpace, of_set: ClipSet, stores: Path) -> dict[str, Any] | None:
    """The set's first clips transcribed by pocketsphinx, then encoded as text; None where it is not installed.

    Clips stand in an order drawn by lot. `ours` is the speech encoder on the same clips.
    """
    kept = replace(of_set, indices=of_set.indices[:RECOGNISED], texts=of_set.texts[:RECOGNISED])
    rest = of_set.texts[RECOGNISED:] + of_set.distractors
    recognised = recognise(kept, stores)
    if recognised is None:
        return None
    read = space.encode_text([text or "nothing" for text in recognised], kept.language)
    heard = space.encode_speech([torch.from_numpy(w) for w in kept.waveforms()], SAMPLE_RATE, kept.language)
    written = space.encode_text(kept.texts + rest, kept.language)
    ours = retrieval(heard, written, kept.short(), kept.speakers())
    return (
        retrieval(read, written, kept.short(), kept.speakers())
        | text_scores(recognised, kept.texts, kept.language)
        | {"ours": {name: ours[name] for name in ("retrieval_error", "sound_to_text_error")}}
    )


def recognise(of_set: ClipSet, stores: Path) -> list[str] | None:
    """pocketsphinx's transcripts; those made before lie beside the stores."""
    try:
        import pocketsphinx
    except ImportError:
        return None
    cache = stores / f"pocketsphinx.{of_set.name.replace('/', '.')}.json"
    known: dict[str, str] = json.loads(cache.read_text(encoding="utf-8")) if cache.exists() else {}
    missing = [number for number, text in enumerate(of_set.texts) if text not in known]
    if missing:
        decoder = pocketsphinx.Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")
        for number in missing:
            known[of_set.texts[number]] = _recognised(decoder, of_set.store[of_set.indices[number]])
        cache.write_text(json.dumps(known, ensure_ascii=False, indent=0), encoding="utf-8")
    return [known[text] for text in of_set.texts]


def _recognised(decoder: Any, samples: FloatArray) -> str:
    decoder.start_utt()
    decoder.process_raw((samples * 32767).clip(-32768, 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return str(hypothesis.hypstr) if hypothesis else ""


def _set_name(corpus: str, language: str) -> str:
    """`commonvoice_fra`, `librispeech_eng`: the corpus without its own way of naming languages."""
    return f"{corpus.rsplit('_', 1)[0]}_{language}"


def _drawn(name: str, store: Recordings, corpus: str, language: str, most: int) -> ClipSet:
    """At most `most` clips with transcripts unique in the set, drawn by hash."""
    longest = LONGEST_SECONDS * SAMPLE_RATE
    chosen: dict[str, int] = {}
    fitting = [
        (index, clip)
        for index, clip in enumerate(store.clips)
        if clip.corpus == corpus and clip.language == language and SAMPLE_RATE // 10 <= clip.length <= longest
    ]
    for index, clip in sorted(fitting, key=lambda c: share(f"{c[1].speaker}:{c[1].text}", "speech evaluation")):
        if key(clip.text) and len(chosen) < most:
            chosen.setdefault(key(clip.text), index)
    indices = list(chosen.values())
    return ClipSet(name, language, store, indices, [teacher_text(store.clips[i].text) for i in indices], [])


def _topped_up(of_set: ClipSet, sentences: Sequence[str], candidates: int) -> ClipSet:
    """With distractors in the form of its transcripts, each as long as one of them, or as near as there is.

    Short sentences among long ones would be no distraction. The longest are given away first: they are the rarest.
    """
    taken = {key(text) for text in of_set.texts}
    bare = all(text == transcript(text) for text in of_set.texts)
    fresh = sorted((transcript(s) if bare else s for s in sentences if key(s) not in taken), key=len)
    wanted = [len(text) for text in itertools.islice(itertools.cycle(of_set.texts), candidates - len(of_set.texts))]
    distractors = []
    for length in sorted(wanted, reverse=True)[: len(fresh)]:
        at = bisect.bisect_left(fresh, length, key=len)
        nearest = min((i for i in (at, at - 1) if 0 <= i < len(fresh)), key=lambda i: abs(len(fresh[i]) - length))
        distractors.append(fresh.pop(nearest))
    return replace(of_set, distractors=distractors)
