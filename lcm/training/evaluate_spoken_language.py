"""Evaluation of spoken language identification: a bundle and held-out recordings in, per cent right of four out.

The clips are those of `evaluate_speech`, each set in one language, told from every language that the bundle hears. A
bundle that always said the same would be right in one of four sets, and a guess in one clip of four. Knows nothing of
how the head was trained.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lcm.space import ConceptSpace
from lcm.space.fbank import SAMPLE_RATE
from lcm.training.evaluate_speech import ClipSet, Cut, bootstrap_interval, evaluation_sets

LENGTHS = {"under_2_s": (0.0, 2.0), "2_to_4_s": (2.0, 4.0), "over_4_s": (4.0, float("inf"))}


def evaluate_spoken_language(
    space: ConceptSpace, prepared: Path, stores: Path, *, split: str = "test", cut: Cut | None = None
) -> dict[str, Any]:
    """Per cent right, by set as in `evaluate_speech`. With `cut`, recordings are measured through it as well."""
    languages = space.languages["speech"]
    figures: dict[str, Any] = {
        "chance": round(100 / len(languages), 1),
        "synthetic": {},
        "unseen_engine": {},
        "real": {},
    }
    for of_set in evaluation_sets(prepared, stores, split, languages):
        kind, _, name = of_set.name.partition("/")
        figures[kind][name] = identified(space, of_set)
        if cut is not None and kind == "real":
            figures.setdefault("real_segmented", {})[name] = identified(space, of_set, cut)
    return figures


def identified(space: ConceptSpace, of_set: ClipSet, cut: Cut | None = None) -> dict[str, Any]:
    """One set: how many are right, in all and by length, what they were taken for, and how sure the head was."""
    waveforms = list(of_set.waveforms(cut))
    heard = space.identify([torch.from_numpy(w) for w in waveforms], SAMPLE_RATE)
    right = 100.0 * np.array([h.language == of_set.language for h in heard], dtype=np.float64)
    seconds = np.array([len(w) / SAMPLE_RATE for w in waveforms])
    speakers = of_set.speakers()
    figures: dict[str, Any] = {
        "n": len(heard),
        "speakers": len(set(speakers)),
        "accuracy": round(float(right.mean()), 1),
        "ci": bootstrap_interval(right, speakers),
        "mean_probability": round(100 * float(np.mean([h.probabilities[h.language] for h in heard])), 1),
        "taken_for": dict(Counter(h.language for h in heard).most_common()),
    }
    for name, (shortest, longest) in LENGTHS.items():
        within = (shortest <= seconds) & (seconds < longest)
        if within.any():
            figures[name] = {"n": int(within.sum()), "accuracy": round(float(right[within].mean()), 1)}
    return figures
