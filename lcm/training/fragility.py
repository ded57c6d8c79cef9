"""Fragility: how much of each sentence's meaning is lost when its concept is disturbed [LCM §2.5.2].

A space and a concept table in, F [N] out: noise is mixed into the normalised concept, what the decoder makes of it is
encoded again, F = 1 − E cos(x, x′) over all shares of noise; 0 if the sentence always comes back, 1 if nothing of it
does. Measured once for a table and a decoder and kept beside the table; what an interrupted measurement has is kept
too. Knows nothing of models that predict.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from lcm.errors import TextError, TrainingDataError
from lcm.models.normalizer import Normalizer
from lcm.space import ConceptSpace
from lcm.space.checks import written_text
from lcm.training.concepts import ConceptTable, Documents, Ints

DRAWS = 4
"""Shares of noise for each sentence, one from each quarter of 0 … 1"""
_CHUNK = 256
_LONGEST = 60
"""Tokens: noise may be decoded into chatter without end"""
_KEPT_EVERY_S = 60.0


def fragility_path(table: ConceptTable, documents: Documents, decoder: Sequence[str]) -> Path:
    """Where the fragility of the documents' sentences is kept, as the decoder whose hashes these are has it."""
    made_of = [table.space_id, len(table.concepts), documents.identity(), list(decoder), DRAWS, _LONGEST]
    return table.folder / f"fragility-{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]}.npy"


def prepare_fragility(path: Path, space: ConceptSpace, table: ConceptTable, rows: Ints, normalizer: Normalizer) -> None:
    """Measure these rows of the table, or those of them that were not yet; a bar tells how far it is.

    Args:
        path: the file to write, float32 [N]; NaN for all other rows.
        space: encodes and decodes.
        table: of the space.
        rows: [M], ascending.
        normalizer: of the table's concepts.

    Raises:
        TrainingDataError: the disk is full, or not writable.
    """
    begun = path.with_suffix(".part.npy")
    found = np.load(begun) if begun.exists() else np.full(len(table.concepts), np.nan, dtype=np.float32)
    rows = np.asarray(rows)[np.isnan(found[rows])]
    texts, kept_at = table.texts(), time.monotonic()
    try:
        for start in tqdm(range(0, len(rows), _CHUNK), desc="fragility", unit=f"×{_CHUNK} sentences"):
            chunk = rows[start : start + _CHUNK]
            told = texts.of(chunk)
            generator = torch.Generator().manual_seed(int(chunk[0]))
            languages = [told[int(row)][0] for row in chunk]
            found[chunk] = fragility(table.of(chunk), languages, space, normalizer, generator).numpy()
            if time.monotonic() - kept_at > _KEPT_EVERY_S:
                _keep(found, begun)
                kept_at = time.monotonic()
    finally:
        _keep(found, begun)
    begun.replace(path)


def fragility(
    concepts: Tensor, languages: Sequence[str], space: ConceptSpace, normalizer: Normalizer, generator: torch.Generator
) -> Tensor:
    """F [M] of concepts [M, C] whose sentences are of these languages."""
    normalised = normalizer(concepts)
    lost = torch.zeros(len(concepts))
    for draw in range(DRAWS):
        share = (draw + torch.rand(len(concepts), 1, generator=generator)) / DRAWS
        noise = torch.randn(normalised.shape, generator=generator)
        disturbed = normalizer.inverse((1 - share).sqrt() * normalised + share.sqrt() * noise)
        texts = space.decode_text(disturbed, languages, max_tokens=_LONGEST)
        again = _encoded(space, texts, languages)
        lost += 1 - F.cosine_similarity(concepts, again).clamp(0, 1)  # of nothing said it is 0
    return lost / DRAWS


def _encoded(space: ConceptSpace, texts: Sequence[str], languages: Sequence[str]) -> Tensor:
    """[M, C]; zeros where nothing is said."""
    out = torch.zeros(len(texts), space.dim)
    said = [i for i, text in enumerate(texts) if _says(text)]
    if said:
        out[said] = space.encode_text([texts[i] for i in said], [languages[i] for i in said])
    return out


def _says(text: str) -> bool:
    try:
        return bool(written_text(text))
    except TextError:
        return False


def _keep(found: "np.ndarray[tuple[int], np.dtype[np.float32]]", path: Path) -> None:
    aside = path.with_suffix(".new.npy")
    try:
        np.save(aside, found)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise TrainingDataError(f"{path} could not be written ({error}): make room and start again") from error
