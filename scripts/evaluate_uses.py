"""What `noema summarise` and `plan` choose, measured on stories outside the test split; nothing is trained on it.

    python -m scripts.evaluate_uses --json

Summaries: does the title of a story fit its summary better than the titles of all other stories do (titles are told to
nobody beforehand), and how near to the summary are sentences that it could not see, chosen from every other sentence.
Paragraphs: are the seams between pieces of different stories found (Pk [Beeferman et al. 1999], share of right seams).
The test split is left alone: the options were chosen here.
"""

import argparse
import json
import lzma
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from lcm.errors import LcmError, TrainingDataError
from lcm.planning import BoundaryOptions, paragraph_starts
from lcm.space import ConceptSpace
from lcm.space.sentences import split_sentences
from lcm.summary import SummaryOptions, kept_count, summary
from lcm.training.data import DEFAULT_DATA, split_of

RATIO = 0.2
LEAST = 10
"""sentences of a story that is summarised"""
SEAMED, PIECES, PIECE = 300, (3, 7), (3, 9)
_LANGUAGES = {"en": "eng", "fr": "fra", "es": "spa", "de": "deu"}
Chooser = Callable[[Tensor, int], list[int]]


@dataclass(frozen=True, slots=True, eq=False)
class Story:
    """One story in one language."""

    language: str
    title: Tensor  # [C]
    concepts: Tensor  # [N, C]


def main() -> int:
    """Exit code 0; 2 when the bundle or the data cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.evaluate_uses", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="raw corpora (%(default)s)")
    parser.add_argument("--bundle", default="mini", help="%(default)s")
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    args = parser.parse_args()
    try:
        space = ConceptSpace.load(args.bundle, "cpu", parts=["text_encoder"])
        stories = read(args.data / "text/stories/african_storybook.jsonl.xz", space)
    except LcmError as error:
        print(f"evaluate_uses: {error}", file=sys.stderr)
        return 2
    figures = {"summaries": summaries(stories), "paragraphs": paragraphs(stories)}
    print(json.dumps(figures, indent=None if args.json else 1))
    return 0


def read(path: Path, space: ConceptSpace) -> list[Story]:
    """All stories but those of the test split.

    Raises:
        TrainingDataError: the file is missing.
    """
    stories = []
    try:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            rows = [row for row in map(json.loads, lines) if row["lang"] in _LANGUAGES]
    except OSError as error:
        raise TrainingDataError(f"cannot read {path} ({error.strerror}); point --data at the training data") from error
    for row in tqdm(rows, desc="stories", unit="story"):
        language = _LANGUAGES[row["lang"]]
        sentences = [s for page in row["pages"] for s in split_sentences(page, language) if any(map(str.isalnum, s))]
        title = " ".join(row["title"].split())
        if split_of(row["id"], "african_storybook", 0.03, 0.06) == "test" or len(sentences) < LEAST or not title:
            continue
        concepts = space.encode_text([title, *sentences], language)
        stories.append(Story(language, concepts[0], concepts[1:]))
    return stories


def summaries(stories: Sequence[Story]) -> dict[str, Any]:
    """Each way of choosing, and what costs nothing: the first sentences, and any."""
    rng = np.random.default_rng(0)
    ways: dict[str, Chooser] = {
        "first sentences": lambda concepts, count: list(range(count)),
        "any sentences": lambda concepts, count: sorted(rng.permutation(len(concepts))[:count].tolist()),
    }
    for early, diversity in product((0.0, 0.1, 0.2, 0.3), (0.0, 0.1, 0.2, 0.3, 0.5)):
        options = SummaryOptions(early=early, diversity=diversity)
        ways[f"early {early} diversity {diversity}"] = lambda c, count, o=options: summary(c, count, o)  # type: ignore[misc]
    figures = {name: _judged(stories, choose) for name, choose in ways.items()}
    default = SummaryOptions()
    return {"n": len(stories), "chosen": f"early {default.early} diversity {default.diversity}", **figures}


def _judged(stories: Sequence[Story], choose: Chooser) -> dict[str, float]:
    hits, covered = [], []
    for language in dict.fromkeys(story.language for story in stories):
        own = [story for story in stories if story.language == language]
        titles = F.normalize(torch.stack([story.title for story in own]), dim=1)
        for number, story in enumerate(own):
            unit = F.normalize(story.concepts, dim=1)
            kept = unit[choose(story.concepts, kept_count(len(unit), RATIO))]
            fits = (kept @ titles.T).mean(dim=0)  # [titles]
            hits.append(float((fits >= fits[number]).sum() == 1))
            seen, hidden = story.concepts[::2], unit[1::2]
            kept = F.normalize(seen[choose(seen, kept_count(len(seen), RATIO))], dim=1)
            covered.append(float((hidden @ kept.T).max(dim=1).values.mean()))
    return {"title_hits": round(100 * float(np.mean(hits)), 1), "unseen_cosine": round(float(np.mean(covered)), 4)}


def paragraphs(stories: Sequence[Story]) -> dict[str, Any]:
    """Each way of finding seams, and what costs nothing: none, and one every six sentences."""
    rng = np.random.default_rng(0)
    texts = [_seamed(stories, rng) for _ in range(SEAMED)]
    ways: dict[str, Callable[[Tensor], list[int]]] = {
        "none": lambda concepts: [0],
        "every six": lambda concepts: list(range(0, len(concepts), 6)),
    }
    for window, depth in product((2, 3, 4, 6), (0.0, 0.5, 1.0, 1.5)):
        options = BoundaryOptions(window=window, depth=depth)
        ways[f"window {window} depth {depth}"] = lambda c, o=options: paragraph_starts(c, len(c), o)  # type: ignore[misc]
    figures = {}
    for name, find in ways.items():
        found = [find(concepts) for concepts, _ in texts]
        figures[name] = _compared([starts for _, starts in texts], found, [len(concepts) for concepts, _ in texts])
    default = BoundaryOptions()
    return {"n": SEAMED, "chosen": f"window {default.window} depth {default.depth}", **figures}


def _seamed(stories: Sequence[Story], rng: np.random.Generator) -> tuple[Tensor, list[int]]:
    """Pieces of stories of one language, and where each begins."""
    language = stories[int(rng.integers(len(stories)))].language
    own = [story for story in stories if story.language == language]
    pieces = []
    for at in rng.permutation(len(own))[: rng.integers(PIECES[0], PIECES[1] + 1)].tolist():
        length = int(rng.integers(PIECE[0], PIECE[1] + 1))
        start = int(rng.integers(max(1, len(own[at].concepts) - length)))
        pieces.append(own[at].concepts[start : start + length])
    starts = np.cumsum([0, *(len(piece) for piece in pieces[:-1])]).tolist()
    return torch.cat(pieces), starts


def _compared(right: Sequence[list[int]], found: Sequence[list[int]], lengths: Sequence[int]) -> dict[str, float]:
    """Pk in per cent (lower is better), precision and recall of seams."""
    errors = [_pk(one, other, length) for one, other, length in zip(right, found, lengths, strict=True)]
    seams = [(set(one) - {0}, set(other) - {0}) for one, other in zip(right, found, strict=True)]
    hits = sum(len(one & other) for one, other in seams)
    return {
        "pk": round(100 * float(np.mean(errors)), 1),
        "precision": round(100 * hits / max(1, sum(len(other) for _, other in seams)), 1),
        "recall": round(100 * hits / max(1, sum(len(one) for one, _ in seams)), 1),
    }


def _pk(right: list[int], found: list[int], length: int) -> float:
    """How often two sentences k apart are wrongly said to be in one paragraph or in two; k is half a paragraph."""
    k = max(1, round(length / len(right) / 2))
    sides = [np.searchsorted(starts, np.arange(length), side="right") for starts in (right, found)]
    together = [numbers[:-k] == numbers[k:] for numbers in sides]
    return float(np.mean(together[0] != together[1]))


if __name__ == "__main__":
    sys.exit(main())
