"""Evaluation of concept models: a bundle and held-out documents in, figures beside their baselines out.

Every variant and look-up is a `Predictor` that is asked the same questions (`lcm_figures`); models also answer fixed
prompts (`prompted_replies`). Knows nothing of training.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lcm.bundle import Bundle
from lcm.engine import Engine, Sampling, variants_of
from lcm.errors import BundleError, TrainingDataError
from lcm.reply_bank import PART as BANK
from lcm.reply_bank import ReplyBank
from lcm.space import ConceptSpace
from lcm.training.concept_metrics import Truths
from lcm.training.concepts import ConceptTable, Documents, concept_table
from lcm.training.decoded_metrics import Sample
from lcm.training.hits import GROUPS, Answers, answers, hit_figures
from lcm.training.judge import TokenModel
from lcm.training.lcm_baselines import BagOfWords, NearestReply
from lcm.training.lcm_figures import SEEDS, Measuring, predictor_figures, references, seeds_needed
from lcm.training.predictors import CopyLast, EnginePredictor, MeanConcept, Predictor, next_concepts, queries
from lcm.training.prompted_replies import (
    COMMON_REPLIES,
    LANGUAGE,
    LcmReplier,
    Prompted,
    Replier,
    RetrieveReplier,
    prompts,
    reply_figures,
)
from lcm.training.reply_items import CANDIDATES, reply_items
from lcm.training.text_metrics import commonest

BASELINE_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    per_corpus: int = 1_000
    """questions for each corpus and language, and for each book"""
    decoded: int = 200
    """of each group: dialogues, SGD, stories"""


def engine_of(bundle: str | Path, variant: str, space: ConceptSpace) -> Engine:
    """A model by its name, or with how it draws concepts: `two_tower@steps=4@guidance=1.5`.

    Raises:
        BundleError: no such model or option.
    """
    name, *options = variant.split("@")
    engine = Engine.load(bundle, variant=name, device=str(space.device), space=space)
    kinds = {field.name: type(getattr(engine.sampling, field.name)) for field in fields(Sampling)}
    for option in options:
        key, _, value = option.partition("=")
        if key not in kinds:
            raise BundleError(f"{variant!r}: no option is called {key!r}; there are: {', '.join(kinds)}")
        try:
            engine.sampling = replace(engine.sampling, **{key: kinds[key](value)})
        except ValueError as error:
            raise BundleError(f"{variant!r}: {error}") from error
    return engine


def evaluation_table(
    space: ConceptSpace, data: Path, concepts: Path, report: Callable[[str], None] = lambda _: None
) -> ConceptTable:
    """The encoded sentences at `concepts`; where nobody trained here, what is needed is encoded beside it."""
    try:
        return ConceptTable.open(concepts, space.space_id)
    except TrainingDataError:
        few = concepts.with_name(f"{concepts.name}_evaluation")
        return concept_table(space, data, few, report, train_share=BASELINE_SHARE)


def evaluate_lcm(
    bundle: str | Path,
    space: ConceptSpace,
    table: ConceptTable,
    *,
    variants: Sequence[str] | None = None,
    judge: TokenModel | None = None,
    split: str = "test",
    sizes: Sizes = Sizes(),
    show_progress: bool = False,
) -> dict[str, Any]:
    """`{"lcm": {"base": …}, "baselines": …, "references": …}` of a bundle, per cent, on held-out documents.

    Args:
        bundle: name or folder.
        space: the bundle's.
        table: encoded sentences and the documents they are from.
        variants: which, as `engine_of` takes them; all there are if not given.
        judge: of coherence; without one mutual information is not measured.
        split: `dev` to choose by, `test` to report once.
        sizes: how much.
        show_progress: a bar on stderr.

    Raises:
        BundleError: as `engine_of`.
    """
    chosen = variants_of(bundle) if variants is None else variants
    engines = {name: engine_of(bundle, name, space) for name in chosen}
    items = reply_items(table.documents(split), table, per_corpus=sizes.per_corpus)
    known = table.documents("train").sample(BASELINE_SHARE)  # the same whatever this table holds
    truths = Truths.of(items, table, max((engine.context for engine in engines.values()), default=40))
    measuring = Measuring(truths, Sample.of(truths, sizes.decoded), space, judge)
    lookups: list[Predictor] = [CopyLast(table), MeanConcept(known, table), NearestReply.of(known, table)]
    banked = BANK in Bundle.open(bundle).parts
    common = common_replies(known, table)
    prompted = Prompted.of(prompts(), space)
    models: dict[str, Any] = {}
    baselines: dict[str, Any] = {}
    with tqdm(total=len(engines) + len(lookups), unit="model", disable=not show_progress, dynamic_ncols=True) as bar:
        for name, engine in engines.items():
            started = time.monotonic()
            model = EnginePredictor(engine, table, name)
            seeds = seeds_needed(model, items)
            figures = predictor_figures(model, measuring, seeds, bar.set_postfix_str)
            if engine.keyed:
                chosen_by = queries(next_concepts(engine, table, items))
                figures["hits_by_keys"] = hit_figures(answers(chosen_by, items, table, engine.keys), items)
            bar.set_postfix_str(f"{name}: replies")
            repliers: list[Replier] = [LcmReplier(engine, space)]
            repliers += [RetrieveReplier(engine, ReplyBank.load(bundle, engine.keys))] if banked else []
            figures["replies"] = {
                replier.name.partition(":")[2]: reply_figures(
                    [replier.replies(prompted, seed) for seed in seeds], common, space
                )
                for replier in repliers
            }
            models[name] = figures | {"seconds": round(time.monotonic() - started, 1)}
            bar.update()
        for lookup in lookups:
            baselines[lookup.name] = predictor_figures(lookup, measuring, SEEDS[:1], bar.set_postfix_str)
            bar.update()
        bar.set_postfix_str("what people said")
        words = Answers(*BagOfWords.of(known, table).answers(items, table))
        baselines["bag_of_words"] = {"hits_at_1_of_20": hit_figures(words, items)}
        baselines["chance"] = {"hits_at_1_of_20": dict.fromkeys(GROUPS, 100 / CANDIDATES), "ca": 50.0}
        return {"lcm": models, "baselines": baselines, "references": references(measuring, common)}


def common_replies(training: Documents, table: ConceptTable) -> frozenset[str]:
    """Keys of the commonest first sentences of replies in the training dialogues of the prompts' language."""
    at = [
        training.starts[document] + start
        for document in range(len(training))
        if training.corpus(document).startswith("dialogue/") and training.language(document) == LANGUAGE
        for start in training.reply_starts(document)
    ]
    rows = training.sentences[np.array(at, dtype=np.int64)].tolist()
    texts = table.texts().of(rows)
    return commonest([texts[row][1] for row in rows], COMMON_REPLIES)
