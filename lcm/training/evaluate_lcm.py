"""Evaluation of a concept model: a bundle and held-out documents in, figures beside their baselines out.

Metrics of the LCM paper [LCM §3.2]: l2 to the true next concept, l2_r the same after decoding and re-encoding,
contrastive accuracy (`ca`: per cent of the batch's other truths that lie farther from the prediction than its own),
paraphrasing (`par`: how near the prediction is to its context, relative to the truth), and hits@1 of 20. 95 % intervals
by bootstrap over documents. Knows nothing of training.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.engine import Engine
from lcm.errors import TrainingDataError
from lcm.space import ConceptSpace
from lcm.training.concepts import ConceptTable, Documents, Ints, concept_table
from lcm.training.lcm_baselines import BagOfWords, NearestReply
from lcm.training.reply_items import CANDIDATES, ReplyItem, ReplyItems, reply_items

GROUPS = ("dialogue", "sgd", "story")
CONTRAST_BATCH = 256
BATCH = 128
BASELINE_SHARE = 0.1
_PAR_FLOOR = 0.05
"""a truth that is at right angles to its whole context says nothing about paraphrasing: left out"""


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model (or baseline) says to all items."""

    predicted: Tensor | None  # [N, C]
    hits: np.ndarray[Any, np.dtype[np.float64]]  # [N] 1 right, 0 wrong, a share where it ties
    near_hits: np.ndarray[Any, np.dtype[np.float64]]  # [N] against the same dialogue; NaN where there is no distractor


def predictions(engine: Engine, table: ConceptTable, items: ReplyItems) -> Tensor:
    """The next concept after each item's context: [N, C]."""
    predicted = torch.empty(len(items.items), engine.dim)
    contexts = [items.context(item, engine.context) for item in items.items]
    order = sorted(range(len(contexts)), key=lambda i: len(contexts[i][0]))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        concepts = [table.of(contexts[i][0]) for i in rows]
        roles = [torch.from_numpy(contexts[i][1]) for i in rows]
        predicted[rows] = torch.stack([n.concept for n in engine.predict_next(concepts, roles)])
    return predicted


def answers(predicted: Tensor, items: ReplyItems, table: ConceptTable) -> Answers:
    """Choose by cosine to the prediction."""
    unit = F.normalize(predicted, dim=1)

    def hit(index: int, item: ReplyItem, distractors: Sequence[int]) -> float:
        candidates = F.normalize(table.of(np.array([items.truth(item), *distractors])), dim=1)
        return hit_share((candidates @ unit[index]).tolist())

    hits = [hit(i, item, item.others) for i, item in enumerate(items.items)]
    near = [hit(i, item, item.near) if item.near else np.nan for i, item in enumerate(items.items)]
    return Answers(predicted, np.array(hits), np.array(near))


def hit_share(scores: list[float]) -> float:
    """1 if the first score is the highest, 0 if another is higher, 1 / n if it shares the first place with n − 1."""
    best = max(scores)
    return 1.0 / scores.count(best) if scores[0] == best else 0.0


def hits_at_1(said: Answers, items: ReplyItems) -> dict[str, float]:
    """Per cent right, for each group and for each corpus of it."""
    names = [items.documents.corpus(item.document) for item in items.items]
    kinds = [item.group for item in items.items]
    labels = [(g, np.array([k == g for k in kinds])) for g in GROUPS]
    labels += [(n, np.array([name == n for name in names])) for n in sorted(set(names))]
    return {label: 100 * float(said.hits[chosen].mean()) for label, chosen in labels if chosen.any()}


def interval(values: np.ndarray, documents: np.ndarray, seed: int = 0) -> list[float]:
    """95 % bootstrap interval of the mean; whole documents are drawn, for their items are not independent."""
    rng = np.random.default_rng(seed)
    _, place = np.unique(documents, return_inverse=True)
    sums = np.bincount(place, weights=values)
    counts = np.bincount(place)
    drawn = rng.integers(len(sums), size=(1_000, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return [round(float(v), 2) for v in np.quantile(means, (0.025, 0.975))]


def hit_figures(said: Answers, items: ReplyItems) -> dict[str, Any]:
    """Hits@1 of 20 by group, with intervals and counts."""
    figures: dict[str, Any] = {"ci": {}, "n": {}, "same_dialogue": {}, "by_corpus": {}}
    documents = np.array([item.document for item in items.items])
    every = hits_at_1(said, items)
    for group in GROUPS:
        chosen = np.array([item.group == group for item in items.items])
        if not chosen.any():
            continue
        figures[group] = round(every.pop(group), 2)
        figures["ci"][group] = interval(100 * said.hits[chosen], documents[chosen])
        figures["n"][group] = int(chosen.sum())
        near = said.near_hits[chosen]
        if not np.isnan(near).all():
            figures["same_dialogue"][group] = round(100 * float(np.nanmean(near)), 2)
    figures["by_corpus"] = {name: round(value, 2) for name, value in every.items()}
    return figures


def concept_figures(predicted: Tensor, items: ReplyItems, table: ConceptTable, context: int) -> dict[str, float]:
    """l2, ca and par on the dialogue items, and how spread out the predictions are."""
    chosen = [i for i, item in enumerate(items.items) if item.group == "dialogue"]
    predicted = predicted[chosen]
    rows = np.array([items.truth(items.items[i]) for i in chosen])
    truths = table.of(rows)
    ratios: list[float] = []
    for index, said in zip(chosen, predicted, strict=True):
        past = F.normalize(table.of(items.context(items.items[index], context)[0]), dim=1)
        truth = float((past @ F.normalize(truths[len(ratios)], dim=0)).max())
        ratios.append(float((past @ F.normalize(said, dim=0)).max()) / truth if truth > _PAR_FLOOR else np.nan)
    return {
        "l2": float((predicted - truths).norm(dim=1).mean()),
        "ca": 100 * contrastive_accuracy(predicted, truths, rows, [items.items[i].document for i in chosen]),
        "par": float(np.nanmean(ratios)),
        "cosine": float(F.cosine_similarity(predicted, truths).mean()),
        "norm": float(predicted.norm(dim=1).mean()),
        "truth_norm": float(truths.norm(dim=1).mean()),
        "variance_share": float(predicted.var(dim=0).sum() / truths.var(dim=0).sum()),
    }


def contrastive_accuracy(predicted: Tensor, truths: Tensor, rows: Ints, documents: list[int]) -> float:
    """Share of other sentences of the batch, from other documents, that lie farther away than the prediction's own."""
    of, sentence = torch.tensor(documents), torch.from_numpy(rows)
    order = torch.randperm(len(of), generator=torch.Generator().manual_seed(0))
    farther, count = 0, 0
    for batch in order.split(CONTRAST_BATCH):
        distances = torch.cdist(predicted[batch], truths[batch])
        others = (of[batch][:, None] != of[batch][None]) & (sentence[batch][:, None] != sentence[batch][None])
        farther += int(((distances > distances.diagonal()[:, None]) & others).sum())
        count += int(others.sum())
    return farther / count


def round_trip_l2(
    predicted: Tensor, items: ReplyItems, table: ConceptTable, space: ConceptSpace, count: int
) -> dict[str, Any]:
    """l2_r: the prediction decoded to words and encoded again, against the true concept; and some of the words."""
    texts = table.texts()
    chosen = [i for i, item in enumerate(items.items) if item.group == "dialogue"]
    chosen = [chosen[i] for i in np.random.default_rng(0).permutation(len(chosen))[:count]]
    rows = [items.truth(items.items[i]) for i in chosen]
    languages = [texts[row][0] for row in rows]
    said = space.decode_text(predicted[chosen], languages, max_tokens=48)
    again = space.encode_text([text or "." for text in said], languages)
    distance = (again - table.of(np.array(rows))).norm(dim=1).mean()
    return {"l2_r": float(distance), "distinct": len(set(said)) / len(said), "examples": said[:20]}


def evaluate_lcm(
    bundle: str | Path,
    space: ConceptSpace,
    data: Path,
    concepts: Path,
    *,
    split: str = "test",
    per_corpus: int = 1_000,
    round_trips: int = 200,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """`{"lcm": {"base": …}, "baselines": …}` of a bundle, per cent, on held-out documents.

    Args:
        bundle: name or folder.
        space: the bundle's.
        data: the folder of prepared splits.
        concepts: the folder of encoded sentences; what is needed is encoded beside it if they are of another space.
        split: `dev` to choose by, `test` to report once.
        per_corpus: questions for each corpus and language.
        round_trips: items that are decoded and encoded again.
        report: told of progress.
    """
    started = time.monotonic()
    try:
        table = ConceptTable.open(concepts, space.space_id)
    except TrainingDataError:  # nobody trained here: encode what is needed
        few = concepts.with_name(f"{concepts.name}_evaluation")
        table = concept_table(space, data, few, report, train_share=BASELINE_SHARE)
    items = reply_items(table.documents(split), table, per_corpus=per_corpus)
    engine = Engine.load(bundle, variant="base", device=str(space.device), space=space)
    predicted = predictions(engine, table, items)
    figures: dict[str, Any] = _rounded(concept_figures(predicted, items, table, engine.context))
    figures |= _rounded(round_trip_l2(predicted, items, table, space, round_trips))
    figures["hits_at_1_of_20"] = hit_figures(answers(predicted, items, table), items)
    figures["n"] = len(items.items)
    report(f"lcm.base: {figures}")
    known = table.documents("train").sample(BASELINE_SHARE)  # the same whatever this table holds
    baselines = lcm_baselines(table, known, items, engine.context)
    figures["seconds"] = round(time.monotonic() - started, 1)
    return {"lcm": {"base": figures}, "baselines": baselines}


def lcm_baselines(table: ConceptTable, training: Documents, items: ReplyItems, context: int) -> dict[str, Any]:
    """What costs nothing to predict: last concept, mean concept, nearest training reply, common words, chance."""
    last = table.of(np.array([items.context(item, 1)[0][0] for item in items.items]))
    sample = np.sort(np.random.default_rng(0).choice(training.sentences, 20_000))
    mean = table.of(sample).mean(dim=0).expand(len(items.items), -1)
    nearest = NearestReply.of(training, table).replies(last)
    figures: dict[str, Any] = {}
    for name, predicted in (("copy_last", last), ("mean_concept", mean), ("nearest_training_reply", nearest)):
        figures[name] = _rounded(concept_figures(predicted, items, table, context))
        figures[name]["hits_at_1_of_20"] = hit_figures(answers(predicted, items, table), items)
    words = BagOfWords.of(training, table).answers(items, table)
    figures["bag_of_words"] = {"hits_at_1_of_20": hit_figures(Answers(None, *words), items)}
    figures["chance"] = {"hits_at_1_of_20": dict.fromkeys(GROUPS, 100 / CANDIDATES), "ca": 50.0}
    return figures


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
