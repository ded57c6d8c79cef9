"""Concept files: concepts with the words and the space they belong to, on disk or as JSON, and back.

`.npz` holds `concepts` [N, D] float32, `texts`, `language` and `space_id`; JSON the same for pipes. Concepts
of another space are refused: they would decode to fluent nonsense.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.errors import OutputError, UsageError
from agent.events import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ConceptFile:
    """Concepts and what is known of them."""

    concepts: FloatArray
    """[N, D]"""
    texts: tuple[str, ...]
    language: str
    space_id: str

    def as_json(self) -> dict[str, Any]:
        """For pipes."""
        rows = [
            {"text": text, "concept": [round(float(x), 7) for x in concept]}
            for text, concept in zip(self.texts, self.concepts, strict=True)
        ]
        return {"space_id": self.space_id, "language": self.language, "sentences": rows}


def save_concepts(path: Path, content: ConceptFile) -> None:
    """Writes an `.npz`."""
    try:
        with path.open("wb") as file:
            np.savez(
                file,
                concepts=content.concepts,
                texts=np.array(content.texts),
                language=np.array(content.language),
                space_id=np.array(content.space_id),
            )
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error


def load_concepts(path: Path, space_id: str, dim: int) -> ConceptFile:
    """Reads an `.npz` or JSON; what belongs to another space is refused."""
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                content = ConceptFile(
                    file["concepts"].astype(np.float32),
                    tuple(str(text) for text in file["texts"]),
                    str(file["language"]),
                    str(file["space_id"]),
                )
        else:
            content = concepts_from_json(path.read_text(encoding="utf-8"), str(path))
    except (ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise UsageError(f"{path}: not a file of concepts ({error}); make one with `noema encode`") from error
    check_space(content, space_id, dim, str(path))
    return content


def concepts_from_json(text: str, name: str) -> ConceptFile:
    """Concepts from what `noema encode --json` printed: the last line counts."""
    lines: Sequence[str] = text.strip().splitlines()
    try:
        content = json.loads(lines[-1])
        rows = content["sentences"]
        concepts = np.array([row["concept"] for row in rows], dtype=np.float32)
        texts = tuple(str(row.get("text", "")) for row in rows)
        return ConceptFile(concepts, texts, str(content.get("language", "")), str(content["space_id"]))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UsageError(f"{name}: not concepts; pipe in what `noema encode --json` prints") from error


def check_space(content: ConceptFile, space_id: str, dim: int, name: str) -> None:
    """Refuses concepts of another space."""
    if content.space_id != space_id:
        raise UsageError(
            f"{name}: made in space {content.space_id}, but this bundle is space {space_id}; "
            "encode again with this bundle or choose the other with --bundle"
        )
    if content.concepts.ndim != 2 or content.concepts.shape[1] != dim:
        raise UsageError(f"{name}: concepts of shape {content.concepts.shape}; expected [N, {dim}]")
