"""Building the reply bank: a trained Base-LCM, its space and the training dialogues in, the bundle part `bank` out.

Candidates are clean first sentences of replies; kept are those that the model's predictions ask for, one of each
meaning, with people's own translations where Tatoeba has the sentence, else the decoder's where they come back to the
same concept. Knows nothing of sessions.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from configs.loader import Settings
from lcm.bundle_writer import BundleWriter
from lcm.engine import Engine
from lcm.errors import TrainingDataError
from lcm.reply_bank import PART, TEXTS, packed
from lcm.space import ConceptSpace
from lcm.training.concepts import ConceptTable, Documents
from lcm.training.data import key, read_split
from lcm.training.predictors import next_concepts, queries
from lcm.training.reply_items import ReplyItem, ReplyItems
from lcm.training.reply_texts import Candidate, presentable, reply_candidates

NEIGHBOURS = 10
_CHUNK = 512


class BankBuilding(Settings):
    """What the bank holds."""

    size: int = 3_500
    contexts: int = 8_000
    """training contexts whose predictions ask for replies"""
    least_count: int = 2
    """how often a sentence was said, unless people translated it"""
    same_meaning: float = 0.9
    """cosine above which two candidates are one"""
    human_cosine: float = 0.7
    """of a translation by people, below which it says something else"""
    decoded_cosine: float = 0.85
    """of a decoded translation, encoded again"""
    beam: int = 5
    hubness: float = 0.5


@dataclass(frozen=True, slots=True)
class Pool:
    """Candidates with their concepts."""

    candidates: list[Candidate]
    concepts: Tensor  # [N, C]
    asked: Tensor  # [N] how much the predictions ask for each


def build_bank(
    config: BankBuilding,
    space: ConceptSpace,
    engine: Engine,
    table: ConceptTable,
    data: Path,
    folder: Path,
    report: Callable[[str], None] = lambda _: None,
) -> None:
    """Choose, translate and write the bank of the bundle in `folder`.

    Raises:
        TrainingDataError: no reply may be said to anyone.
    """
    training = table.documents("train")
    human = human_translations(data)
    candidates = [
        c for c in reply_candidates(training, table.texts())
        if c.count >= config.least_count or c.language != "eng" or key(c.text) in human
    ]  # fmt: skip
    if not candidates:
        raise TrainingDataError(
            "the training dialogues hold no reply that could be said to anyone; is that all of them?"
        )
    report(f"{len(candidates)} candidates")
    asked = asked_for(engine, table, training, config.contexts)
    pool = pooled(candidates, space, engine, asked, config.hubness)
    chosen = chosen_entries(pool, config.size, config.same_meaning)
    report(f"{len(chosen)} chosen")
    texts = translated([candidates[i] for i in chosen], pool.concepts[chosen], space, human, config)
    spoken = {language: sum(language in t for t in texts) for language in space.languages["text"]}
    report(f"sentences: {spoken}")
    concepts = pool.concepts[chosen]
    tensors, sidecar = packed(concepts, popularity(engine.keys(concepts), asked), texts)
    settings = {"hubness": config.hubness, "sentences": spoken}
    BundleWriter(folder).write_part(PART, settings, tensors, space.space_id, {TEXTS: sidecar})


def asked_for(engine: Engine, table: ConceptTable, training: Documents, count: int) -> Tensor:
    """What `count` replies of the training dialogues would be chosen by, as unit vectors [Q, K]."""
    rng = np.random.default_rng(0)
    dialogues = [d for d in range(len(training)) if not training.corpus(d).startswith(("story/", "dialogue/sgd"))]
    items = []
    for document in rng.choice(dialogues, count):
        starts = training.reply_starts(int(document))
        if starts:
            items.append(ReplyItem(int(document), int(rng.choice(starts)), "dialogue", (), ()))
    return queries(next_concepts(engine, table, ReplyItems(training, tuple(items))))


def pooled(candidates: list[Candidate], space: ConceptSpace, engine: Engine, queries: Tensor, hubness: float) -> Pool:
    """Encode the candidates, and count how much each is asked for: its share of every prediction's nearest ones."""
    concepts = torch.cat([
        space.encode_text([c.text for c in part], [c.language for c in part])
        for part in (candidates[i : i + _CHUNK] for i in range(0, len(candidates), _CHUNK))
    ])  # fmt: skip
    unit = engine.keys(concepts)
    handicap = hubness * popularity(unit, queries)
    asked = torch.zeros(len(candidates))
    for rows in queries.split(_CHUNK):
        top = (rows @ unit.T - handicap).topk(min(NEIGHBOURS, len(unit)), dim=1)
        shares = (top.values / 0.05).softmax(dim=1)
        asked.index_add_(0, top.indices.flatten(), shares.flatten())
    return Pool(candidates, concepts, asked)


def popularity(unit: Tensor, queries: Tensor) -> Tensor:
    """Mean cosine of each entry's key [N, K] to the queries nearest to it [Conneau et al. 2018, §2.3]: [N]."""
    nearest = min(NEIGHBOURS, len(queries))
    return torch.cat([(rows @ queries.T).topk(nearest, dim=1).values.mean(dim=1) for rows in unit.split(_CHUNK)])


def chosen_entries(pool: Pool, size: int, same_meaning: float) -> list[int]:
    """At most `size` candidates, those most asked for and most often said first, none near an earlier one."""
    counts = torch.tensor([float(c.count) for c in pool.candidates])
    order = (pool.asked * (1 + counts.log())).argsort(descending=True).tolist()
    kept = torch.empty(size, pool.concepts.shape[1])
    chosen: list[int] = []
    for index in order:
        if len(chosen) == size:
            break
        unit = F.normalize(pool.concepts[index], dim=0)
        if chosen and float((kept[: len(chosen)] @ unit).max()) >= same_meaning:
            continue
        kept[len(chosen)] = unit
        chosen.append(index)
    return chosen


def human_translations(data: Path) -> dict[str, dict[str, list[str]]]:
    """Tatoeba's training pairs by the English sentence's key: what people wrote in each other language."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for pair in read_split(data, "parallel.train"):
        if pair["languages"][0] == "eng":
            found[key(pair["texts"][0])][pair["languages"][1]].append(pair["texts"][1])
    return {english: dict(others) for english, others in found.items()}


def translated(
    chosen: Sequence[Candidate],
    concepts: Tensor,
    space: ConceptSpace,
    human: dict[str, dict[str, list[str]]],
    config: BankBuilding,
) -> list[dict[str, str]]:
    """Each entry's sentence in every language that has a good one."""
    texts = [{c.language: c.text} for c in chosen]
    for language in space.languages["text"]:
        proposals: list[tuple[int, str]] = []
        for index, candidate in enumerate(chosen):
            if candidate.language == "eng" != language:
                said = human.get(key(candidate.text), {}).get(language, [])
                tidy = {presentable(t, language) for t in said}
                proposals += [(index, t) for t in sorted(t for t in tidy if t)]
        _accept(texts, proposals, language, concepts, space, config.human_cosine)
        missing = [i for i, entry in enumerate(texts) if language not in entry]
        decoded = space.decode_text(concepts[missing], language, beam=config.beam, max_tokens=32)
        tidied = [(i, presentable(t, language)) for i, t in zip(missing, decoded, strict=True)]
        _accept(texts, [(i, t) for i, t in tidied if t], language, concepts, space, config.decoded_cosine)
    return texts


def _accept(
    texts: list[dict[str, str]],
    proposals: list[tuple[int, str]],
    language: str,
    concepts: Tensor,
    space: ConceptSpace,
    least_cosine: float,
) -> None:
    """Of the proposals for an entry, take the one nearest to its concept, if it is near enough."""
    if not proposals:
        return
    again = space.encode_text([text for _, text in proposals], language)
    cosines = F.cosine_similarity(again, concepts[[i for i, _ in proposals]], dim=1).tolist()
    best: dict[int, tuple[float, str]] = {}
    for (index, text), cosine in zip(proposals, cosines, strict=True):
        if cosine >= least_cosine:
            best[index] = max(best.get(index, (-1.0, "")), (cosine, text))
    for index, (_, text) in best.items():
        texts[index][language] = text
