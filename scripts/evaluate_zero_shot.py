"""Zero-shot: English dialogues in, how well a concept model goes on with them in languages it may never have read, out.

    cp -r lcm/bundles/mini runs/english
    python -m scripts.train configs/training/base_english_mini.yaml --export runs/english
    python -m scripts.evaluate_zero_shot --bundles runs/english mini --json

Held-out English dialogues are asked for their next sentence among 20, as in `scripts.evaluate`; then every sentence of
them, context and candidates, is written in French, Spanish and German by the bundle's decoder and read again from those
words. The questions are the same, so what is lost is the translation's and the language's. `cosine_to_english` is how
near the prediction stays to the one made after English. Translations are the bundle's own, and it translates roughly.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from lcm.engine import Engine
from lcm.errors import LcmError, TrainingDataError
from lcm.space import ConceptSpace
from lcm.training.concepts import ConceptRows, ConceptTable, Documents, Ints
from lcm.training.data import DEFAULT_PREPARED, DEFAULT_RUNS
from lcm.training.evaluate_lcm import engine_of, evaluation_table
from lcm.training.hits import answers, hit_figures
from lcm.training.intervals import estimate
from lcm.training.predictors import CopyLast, EnginePredictor, Predictor
from lcm.training.reply_items import ReplyItems, reply_items

READ = "eng"
OTHERS = ("fra", "spa", "deu")
_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class Translated:
    """Some rows of a table in another language."""

    rows: Ints  # [M], ascending
    concepts: Tensor  # [M, C]

    @classmethod
    def of_table(cls, table: ConceptTable, rows: Ints, space: ConceptSpace, language: str) -> "Translated":
        """Decoded, and encoded from those words."""
        found = []
        starts = range(0, len(rows), _AT_ONCE)
        for start in tqdm(starts, desc=language, unit="batch", leave=False, disable=None):
            texts = space.decode_text(table.of(rows[start : start + _AT_ONCE]), language)
            found.append(space.encode_text([text if text.strip() else "." for text in texts], language))
        return cls(rows, torch.cat(found))

    def of(self, rows: Ints) -> Tensor:
        """[...] rows of the table → [..., C]."""
        found = np.searchsorted(self.rows, rows)
        assert np.array_equal(self.rows[found], rows), "every row that is asked for was translated"
        return self.concepts[torch.from_numpy(found)]


def main() -> int:
    """Measures."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.evaluate_zero_shot", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--bundles", nargs="+", default=["mini"], help="names or folders, of one space (%(default)s)")
    parser.add_argument("--variants", type=lambda text: text.split(","), default=["base_mse"], help="base_mse")
    parser.add_argument("--prepared", type=Path, default=DEFAULT_PREPARED, help="splits (%(default)s)")
    parser.add_argument("--split", choices=("dev", "test"), default="test", help="%(default)s")
    parser.add_argument("--items", type=int, default=200, help="questions of each corpus (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    args = parser.parse_args()
    try:
        space = ConceptSpace.load(args.bundles[0], "cpu", parts=["text_encoder", "text_decoder"])
        table = evaluation_table(space, args.prepared, DEFAULT_RUNS / "concepts")
        models = {
            f"{bundle}:{variant}": engine_of(bundle, variant, space)
            for bundle in args.bundles
            for variant in args.variants
        }
        figures = measured(models, english(table.documents(args.split), table, args.items), table, space)
    except LcmError as error:
        print(f"evaluate_zero_shot: {error}", file=sys.stderr)
        return 2
    print(json.dumps({"split": args.split, **figures}, indent=None if args.json else 1))
    return 0


def english(documents: Documents, table: ConceptTable, per_corpus: int) -> ReplyItems:
    """Questions about English dialogues."""
    chosen = [
        d
        for d in range(len(documents))
        if documents.language(d) == READ and documents.corpus(d).startswith("dialogue/")
    ]
    return reply_items(documents.only(chosen), table, per_corpus=per_corpus)


def measured(
    models: Mapping[str, Engine], items: ReplyItems, table: ConceptTable, space: ConceptSpace
) -> dict[str, Any]:
    """Each model in each language, and what says the last sentence again.

    Raises:
        TrainingDataError: there is no question.
    """
    if not items.items:
        raise TrainingDataError("there are no English dialogues to ask about in this split; take another with --split")
    rows = rows_of(items, max((engine.context for engine in models.values()), default=1))
    tables: dict[str, ConceptRows] = {READ: table}
    tables |= {language: Translated.of_table(table, rows, space, language) for language in OTHERS}
    askers: dict[str, Callable[[ConceptRows], Predictor]] = {
        name: partial(EnginePredictor, engine) for name, engine in models.items()
    }
    askers["copy_last"] = CopyLast
    figures = {
        name: of_languages({language: asker(known) for language, known in tables.items()}, tables, items)
        for name, asker in askers.items()
    }
    return {"n": len(items.items), "sentences": len(rows), **figures}


def rows_of(items: ReplyItems, longest: int) -> Ints:
    """Every sentence that a question shows: the latest `longest` before it, and the candidates."""
    shown: Iterable[Ints] = (
        np.concatenate([items.context(item, longest)[0], [items.truth(item), *item.others, *item.near]])
        for item in items.items
    )
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *shown])).astype(np.int64)


def of_languages(asked: dict[str, Predictor], tables: dict[str, ConceptRows], items: ReplyItems) -> dict[str, Any]:
    """hits@1 of 20 with its interval, and how near to the English prediction it stays."""
    of_english: Tensor | None = None
    figures: dict[str, Any] = {}
    documents = np.array([item.document for item in items.items])
    for language, predictor in asked.items():
        predicted = predictor.predictions(items, 0)
        of_english = predicted if of_english is None else of_english
        near = F.cosine_similarity(predicted, of_english, dim=1).numpy()
        hits = hit_figures(answers(predicted, items, tables[language]), items)
        found = estimate(near.astype(np.float64), documents)
        figures[language] = {
            **{group: {"hits": hits[group], "ci": hits["ci"][group]} for group in hits["ci"]},
            "cosine_to_english": round(found.mean, 3) if found else None,
        }
    return figures


if __name__ == "__main__":
    sys.exit(main())
