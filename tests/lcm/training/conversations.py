"""A small folder of concepts as `prepare_concepts` writes it: dialogues whose replies follow from what was said.

With stories, every other document is one, and speakers say several sentences in a turn.
"""

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np

from lcm.models.turns import ROLE_NARRATOR
from lcm.training.concepts import ConceptTable

DIM = 16
DIALOGUES, TURNS = 60, 8
SENTENCES = 40
ROLES, LAST = (0, 1, 1, 0, 1, 1, 0, 0), (1, 0, 1, 1, 0, 1, 0, 1)
"""of a dialogue that has turns of several sentences"""
PARAGRAPHS = (0, 0, 1, 0, 0, 0, 0, 1)


def write_concepts(folder: Path, space_id: str = "space", dim: int = DIM, *, stories: bool = False) -> ConceptTable:
    """Sentence n is answered by sentence n + 1, so that there is something to learn."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    np.save(folder / "concepts.npy", rng.standard_normal((SENTENCES, dim)).astype(np.float16))
    with lzma.open(folder / "sentences.jsonl.xz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(["eng", f"Sentence number {_word(n)}."]) + "\n" for n in range(SENTENCES))
    for split in ("train", "dev", "test"):
        documents = _documents(rng)
        np.savez(folder / f"documents.{split}.npz", **(documents | _stories() if stories else documents))
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


def _stories() -> dict[str, Any]:
    """What differs where every other document is a story."""
    half = DIALOGUES // 2
    return {
        "roles": np.tile([*ROLES, *([ROLE_NARRATOR] * TURNS)], half).astype(np.uint8),
        "last": np.tile([*LAST, *PARAGRAPHS], half).astype(np.uint8),
        "corpora": np.tile([0, 1], half).astype(np.int16),
        "corpus_names": np.array(["dialogue/taskmaster4.eng", "story/book.deu"]),
    }


def _word(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))
