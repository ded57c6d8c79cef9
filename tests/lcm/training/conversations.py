"""A small folder of concepts as `prepare_concepts` writes it: dialogues whose replies follow from what was said."""

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np

from lcm.training.concepts import ConceptTable

DIM = 16
DIALOGUES, TURNS = 60, 8
SENTENCES = 40


def write_concepts(folder: Path, space_id: str = "space", dim: int = DIM) -> ConceptTable:
    """Sentence n is answered by sentence n + 1, so that there is something to learn."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    np.save(folder / "concepts.npy", rng.standard_normal((SENTENCES, dim)).astype(np.float16))
    with lzma.open(folder / "sentences.jsonl.xz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(["eng", f"Sentence number {_word(n)}."]) + "\n" for n in range(SENTENCES))
    for split in ("train", "dev", "test"):
        np.savez(folder / f"documents.{split}.npz", **_documents(rng))
    manifest = {"space_id": space_id, "rows": SENTENCES, "dim": dim}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return ConceptTable.open(folder)


def _documents(rng: np.random.Generator) -> dict[str, Any]:
    starts = np.arange(DIALOGUES + 1) * TURNS
    first = rng.integers(SENTENCES, size=(DIALOGUES, 1))
    return {
        "sentences": ((first + np.arange(TURNS)) % SENTENCES).flatten().astype(np.int32),
        "roles": np.tile(np.arange(TURNS) % 2, DIALOGUES).astype(np.uint8),
        "last": np.ones(DIALOGUES * TURNS, dtype=np.uint8),
        "starts": starts.astype(np.int64),
        "corpora": np.zeros(DIALOGUES, dtype=np.int16),
        "corpus_names": np.array(["dialogue/self_dialogue.eng"]),
        "names": np.array([f"d{n}" for n in range(DIALOGUES)]),
    }


def _word(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))
