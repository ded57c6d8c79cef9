"""Figures of one predictor: what it says to every question in, means and 95 % intervals of each metric out.

What draws noise is asked with three seeds, and the seeds are averaged inside an item before whole documents are drawn
for the intervals. Knows nothing of bundles.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lcm.space import ConceptSpace
from lcm.training.concept_metrics import Truths, concept_values, variance_share
from lcm.training.decoded_metrics import Sample, decoded, judge_perplexity, mutual_information
from lcm.training.hits import GROUPS, Answers, answers, hit_figures
from lcm.training.intervals import Floats, estimate
from lcm.training.judge import TokenModel
from lcm.training.judge_model import TRAINS_IT
from lcm.training.predictors import Predictor
from lcm.training.prompted_replies import LANGUAGE, prompts, reply_figures
from lcm.training.reply_items import ReplyItems

SEEDS = (0, 1, 2)
_PROBED = 4
_EXAMPLES = 20

Stage = Callable[[str], object]


@dataclass(frozen=True, slots=True, eq=False)
class Measuring:
    """What all predictors are measured with."""

    truths: Truths
    sample: Sample
    space: ConceptSpace
    judge: TokenModel | None

    @property
    def items(self) -> ReplyItems:
        """The questions."""
        return self.truths.items


def seeds_needed(predictor: Predictor, items: ReplyItems) -> tuple[int, ...]:
    """All three, or one where the seed changes nothing."""
    few = ReplyItems(items.documents, items.items[:_PROBED])
    return SEEDS[:1] if torch.equal(*(predictor.predictions(few, seed) for seed in SEEDS[:2])) else SEEDS


def predictor_figures(
    predictor: Predictor, measuring: Measuring, seeds: Sequence[int], stage: Stage = lambda _: None
) -> dict[str, Any]:
    """Of the dialogues, at the top; of the other groups, under their names; hits@1 of all."""
    truths, sample = measuring.truths, measuring.sample
    passes: list[dict[str, Floats]] = []
    shares: list[dict[str, float]] = []
    said: list[str] = []
    for seed in seeds:
        stage(f"{predictor.name}, seed {seed}: predicting")
        predicted = predictor.predictions(measuring.items, seed)
        stage(f"{predictor.name}, seed {seed}: measuring")
        found = answers(predicted, measuring.items, truths.table)
        values = concept_values(predicted, truths) | {"hits": found.hits, "near_hits": found.near_hits}
        spoken = decoded(predicted, sample, truths, measuring.space, measuring.judge)
        said = said or spoken.texts
        passes.append(values | {name: _spread(of_some, measuring) for name, of_some in spoken.values.items()})
        shares.append(
            {g: variance_share(predicted[at], truths.concepts[at]) for g, at in _groups(truths) if len(at) > 1}
        )
    values = {name: _mean([of_seed[name] for of_seed in passes]) for name in passes[0]}
    by_group = {
        group: group_figures(values, at, truths)
        | {"variance_share": round(float(np.mean([share[group] for share in shares])), 4)}
        for group, at in _groups(truths)
        if len(at) > 1
    }
    figures: dict[str, Any] = by_group.pop("dialogue", {})
    figures |= by_group
    figures["hits_at_1_of_20"] = hit_figures(Answers(values["hits"], values["near_hits"]), measuring.items)
    return figures | {"n": len(measuring.items.items), "seeds": list(seeds), "examples": said[:_EXAMPLES]}


def group_figures(values: dict[str, Floats], at: np.ndarray[Any, Any], truths: Truths) -> dict[str, Any]:
    """Mean of each metric over the items `at`; its interval under `ci`, and how many were decoded."""
    documents = truths.documents[at]
    figures: dict[str, Any] = {}
    intervals: dict[str, list[float]] = {}
    own = {name: values[name][at] for name in ("l2", "l2_r", "par", "ca", "rouge_l", "cosine", "norm")}
    weights: dict[str, Floats] = {}
    if "mi_nats" in values:
        nats, weights["mi"] = values["mi_nats"][at], np.nan_to_num(values["mi_tokens"][at])
        own["mi"] = np.divide(nats, weights["mi"], out=np.full(len(at), np.nan), where=weights["mi"] > 0)
    for name, measured in own.items():
        if found := estimate(measured, documents, weights.get(name)):
            figures[name] = round(found.mean, 4)
            intervals[name] = [round(found.low, 4), round(found.high, 4)]
    figures["truth_norm"] = round(float(truths.concepts[at].norm(dim=1).mean()), 4)
    figures["n_decoded"] = int((~np.isnan(own["l2_r"])).sum())
    return figures | {"ci": intervals}


def references(measuring: Measuring, common: frozenset[str]) -> dict[str, Any]:
    """What people said: decoded from its concept, judged beside a random sentence, and how generic it is."""
    truths, sample = measuring.truths, measuring.sample
    spoken = decoded(truths.concepts, sample, truths, measuring.space, None)
    figures: dict[str, Any] = {"truth_decoded": {}, "mi": None, "judge": None}
    kinds = truths.groups[sample.chosen]
    present = [group for group in GROUPS if (kinds == group).any()]
    for group in present:
        own = {name: round(float(values[kinds == group].mean()), 4) for name, values in spoken.values.items()}
        figures["truth_decoded"][group] = own
    if (judge := measuring.judge) is None:
        figures["judge_missing"] = f"mutual information was not measured; a judge is trained by: {TRAINS_IT}"
    else:
        figures["judge"] = {"name": judge.name, "perplexity": round(judge_perplexity(judge, sample), 3)}
        figures["mi"] = {
            name: _mi_by_group(mutual_information(judge, sample, sentences), measuring, present)
            for name, sentences in (("truth", sample.truths), ("random", sample.randoms))
        }
    people = [
        [text] for text, group, language in zip(sample.truths, kinds, sample.languages, strict=True)
        if group == "dialogue" and language == LANGUAGE
    ]  # fmt: skip
    openings = len(prompts())
    draws = [people[start : start + openings] for start in range(0, len(people) - openings + 1, openings)][: len(SEEDS)]
    if draws:
        figures["people"] = reply_figures(draws, common, measuring.space)
    return figures


def _mi_by_group(found: dict[str, Floats], measuring: Measuring, groups: Sequence[str]) -> dict[str, Any]:
    kinds = measuring.truths.groups[measuring.sample.chosen]
    documents = measuring.truths.documents[measuring.sample.chosen]
    rows: dict[str, Any] = {}
    for group in groups:
        at = (kinds == group) & (found["mi_tokens"] > 0)
        tokens = found["mi_tokens"][at]
        if value := estimate(found["mi_nats"][at] / tokens, documents[at], tokens):
            rows[group] = {"mi": round(value.mean, 4), "ci": [round(value.low, 4), round(value.high, 4)]}
    return rows


def _groups(truths: Truths) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    return ((group, np.flatnonzero(truths.groups == group)) for group in GROUPS)


def _spread(values: Floats, measuring: Measuring) -> Floats:
    """[M] of the sampled items → [N], NaN elsewhere."""
    every = np.full(len(measuring.items.items), np.nan)
    every[measuring.sample.chosen] = values
    return every


def _mean(of_seeds: list[Floats]) -> Floats:
    """Over the seeds; an item that was not measured stays NaN."""
    return np.mean(np.stack(of_seeds), axis=0)
