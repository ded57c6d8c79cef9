"""Evaluation of a text space: a bundle and held-out pairs in, figures out, baselines beside them.

Candidates are 1,000 held-out sentences a language, unique on both sides, drawn by hash; retrieval is by cosine in both
directions (xsim, Artetxe & Schwenk 2019). chrF and BLEU are sacrebleu's. Knows nothing of how the space was trained.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lcm.errors import INSTALL_TRAIN, BackendError
from lcm.space import ConceptSpace
from lcm.training.data import key, read_split
from lcm.training.text import spread, xsim_error
from lcm.training.text_batches import held_out_pairs

SHORT_WORDS = 12
CANDIDATES = 1_000


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Test pairs of two languages."""

    languages: tuple[str, str]
    pairs: list[tuple[str, str]]

    def side(self, language: str) -> list[str]:
        """The sentences of one language, in the order of the pairs."""
        return [pair[self.languages.index(language)] for pair in self.pairs]


def evaluate_text(space: ConceptSpace, prepared: Path, *, split: str = "test", beam: int = 1) -> dict[str, Any]:
    """Every text figure, in per cent; chrF and BLEU in points. Sentences of at most 12 words unless named `_all`."""
    sacrebleu()  # if it is missing, nothing is measured for nothing
    others = [tag for tag in space.languages["text"] if tag != "eng"]
    direct = {x: HeldOut(("eng", x), held_out_pairs(prepared, ("eng", x), CANDIDATES, split)) for x in others}
    between = [
        HeldOut((x, y), held_out_pairs(prepared, (x, y), CANDIDATES, split)) for x in others for y in others if x < y
    ]
    asked = {text for held_out in direct.values() for text in held_out.side("eng")}
    near = near_duplicates(asked, prepared)
    figures: dict[str, Any] = {"xsim_error": {}, "xsim_error_no_near_duplicates": {}, "translate": {}, "autoencode": {}}
    for language, held_out in direct.items():
        a, b = (space.encode_text(held_out.side(tag), tag) for tag in held_out.languages)
        fresh = torch.tensor([text not in near for text in held_out.side("eng")])
        figures["xsim_error"][language] = round(xsim_error(a, b), 2)
        figures["xsim_error_no_near_duplicates"][language] = round(xsim_error(a, b, asked=fresh), 2)
    for held_out in (*direct.values(), *between):
        for source, target in (held_out.languages, held_out.languages[::-1]):
            figures["translate"][f"{source}-{target}"] = translation(space, held_out, source, target, beam)
    for language in space.languages["text"]:
        texts = (direct.get(language) or direct[others[0]]).side(language)
        figures["autoencode"][language] = autoencoding(space, texts, language, beam)
    sentences = direct[others[0]].side("eng")
    concepts = space.encode_text(sentences, "eng")
    figures["noise"] = {"0.2": _noise_loss(space, concepts, sentences, beam)}
    figures |= {k: round(v, 3) for k, v in spread(concepts).items()}
    figures["near_duplicates"] = round(100 * len(near) / len(asked), 1)
    return figures


def text_baselines(space: ConceptSpace, prepared: Path, *, split: str = "test") -> dict[str, Any]:
    """What needs no concepts: copying the source, character trigrams in common, chance."""
    figures: dict[str, Any] = {"copy_source_chrf": {}, "character_trigrams_xsim_error": {}}
    for language in space.languages["text"]:
        if language == "eng":
            continue
        pairs = held_out_pairs(prepared, ("eng", language), CANDIDATES, split)
        a, b = [p[0] for p in pairs], [p[1] for p in pairs]
        figures["copy_source_chrf"][f"eng-{language}"] = round(chrf(*short(a, b)), 1)
        figures["character_trigrams_xsim_error"][language] = round(xsim_error(trigrams(a), trigrams(b)), 1)
    return figures | {"chance_xsim_error": round(100 - 100 / CANDIDATES, 1)}


def translation(space: ConceptSpace, held_out: HeldOut, source: str, target: str, beam: int) -> dict[str, float]:
    """chrF and BLEU of one direction, short sentences and all."""
    texts, references = held_out.side(source), held_out.side(target)
    written = space.decode_text(space.encode_text(texts, source), target, beam=beam)
    short_written, short_references = short(written, references, by=texts)
    return {
        "n": len(short_references),
        "chrf": round(chrf(short_written, short_references), 1),
        "bleu": round(sacrebleu().corpus_bleu(short_written, [short_references]).score, 1),
        "chrf_all": round(chrf(written, references), 1),
    }


def autoencoding(space: ConceptSpace, texts: list[str], language: str, beam: int) -> dict[str, float]:
    """How often a sentence comes back to the letter (`exact`: case and punctuation aside), and its chrF."""
    written = space.decode_text(space.encode_text(texts, language), language, beam=beam)
    short_written, short_texts = short(written, texts)
    same = [key(a) == key(b) for a, b in zip(short_written, short_texts, strict=True)]
    return {
        "n": len(short_texts),
        "exact": round(100 * float(np.mean(same)), 1),
        "chrf": round(chrf(short_written, short_texts), 1),
        "chrf_all": round(chrf(written, texts), 1),
    }


def _noise_loss(space: ConceptSpace, concepts: Tensor, texts: list[str], beam: int) -> float:
    """chrF lost when every concept moves by Gaussian noise of 0.2 standard deviations a dimension."""
    noise = torch.randn(concepts.shape, generator=torch.Generator().manual_seed(0)) * concepts.std(dim=0)
    clean, noisy = (space.decode_text(c, "eng", beam=beam) for c in (concepts, concepts + 0.2 * noise))
    return round(chrf(*short(clean, texts)) - chrf(*short(noisy, texts)), 1)


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF (Popović 2015)."""
    return float(sacrebleu().corpus_chrf(list(hypotheses), [list(references)]).score)


def sacrebleu() -> Any:
    """The package of this name.

    Raises:
        BackendError: it is not installed.
    """
    try:
        import sacrebleu as package
    except ImportError as error:
        told = f"chrF and BLEU are counted by sacrebleu, of the extra `train`: {INSTALL_TRAIN}"
        raise BackendError(told) from error
    return package


def short(a: Sequence[str], b: Sequence[str], *, by: Sequence[str] | None = None) -> tuple[list[str], list[str]]:
    """Both lists where the second (or `by`) has at most 12 words."""
    kept = [i for i, text in enumerate(by or b) if len(text.split()) <= SHORT_WORDS]
    return [a[i] for i in kept], [b[i] for i in kept]


def near_duplicates(texts: Iterable[str], prepared: Path) -> set[str]:
    """Those of the English `texts` that are a training sentence but for one word («Tom» for «Mary»)."""

    def masked(text: str) -> list[int]:
        words = key(text).split()
        return [hash((*words[:i], None, *words[i + 1 :])) for i in range(len(words))]

    by_hash: dict[int, set[str]] = {}
    for text in texts:
        for h in masked(text):
            by_hash.setdefault(h, set()).add(text)
    found: set[str] = set()
    parallel = (p["texts"][0] for p in read_split(prepared, "parallel.train") if p["languages"][0] == "eng")
    singles = (row["text"] for row in read_split(prepared, "sentences.train") if row["language"] == "eng")
    for text in itertools.chain(parallel, singles):
        for h in masked(text):
            found |= by_hash.get(h, set())
    return found


def trigrams(texts: list[str]) -> Tensor:
    """[N, 4096] hashed character trigrams: the cosine that cognates and names alone give."""
    out = torch.zeros(len(texts), 4_096)
    for row, text in enumerate(texts):
        padded = f"  {key(text)} "
        for i in range(len(padded) - 2):
            out[row, _stable_hash(padded[i : i + 3]) % 4_096] += 1
    return out


def _stable_hash(text: str) -> int:
    value = 0
    for character in text:
        value = (value * 1_000_003 + ord(character)) & 0xFFFFFFFF
    return value
