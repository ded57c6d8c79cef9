"""Concept files: concepts with the words and the space they belong to, on disk or as JSON, and back.

`.npz` holds `concepts` [N, D] float32, `texts`, `language`, `languages` ([N], empty unless they were found out) and
`space_id`; JSON the same for pipes. Concepts of another space are refused: they would decode to fluent nonsense.
"""

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.core.events import FloatArray
from agent.errors import OutputError, UsageError


@dataclass(frozen=True, slots=True, eq=False)
class ConceptFile:
    """Concepts and what is known of them."""

    concepts: FloatArray
    """[N, D]"""
    texts: tuple[str, ...]
    language: str
    """One, or all that occur, as eng,fra"""
    space_id: str
    languages: tuple[str, ...] = ()
    """Of each sentence, where it was found out"""

    def as_json(self) -> dict[str, Any]:
        """For pipes."""
        rows: list[dict[str, Any]] = [
            {"text": text, "concept": [round(float(x), 7) for x in concept]}
            for text, concept in zip(self.texts, self.concepts, strict=True)
        ]
        for row, language in zip(rows, self.languages, strict=False):
            row["language"] = language
        return {"space_id": self.space_id, "language": self.language, "sentences": rows}


def save_concepts(path: Path, content: ConceptFile) -> None:
    """Writes an `.npz`, whole or not at all: what stood there before gives way to nothing less."""
    packed = io.BytesIO()
    np.savez(
        packed,
        concepts=content.concepts,
        texts=np.array(content.texts),
        language=np.array(content.language),
        space_id=np.array(content.space_id),
        languages=np.array(content.languages, dtype=str),
    )
    aside = path.with_name(f".{path.name}.part")
    try:
        try:
            aside.write_bytes(packed.getvalue())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error


def load_concepts(path: Path, space_id: str, dim: int) -> ConceptFile:
    """Reads an `.npz` or JSON; what belongs to another space is refused."""
    if path.suffix == ".npz":
        content = _from_npz(path)
    else:
        content = concepts_from_json(path.read_text(encoding="utf-8", errors="replace"), str(path))
    check_space(content, space_id, dim, str(path))
    return content


def _from_npz(path: Path) -> ConceptFile:
    with path.open("rb") as stream:
        try:
            with np.load(stream, allow_pickle=False) as file, np.errstate(over="ignore"):
                return ConceptFile(
                    file["concepts"].astype(np.float32),
                    tuple(str(text) for text in file["texts"]),
                    str(file["language"]),
                    str(file["space_id"]),
                    tuple(map(str, file["languages"])) if "languages" in file else (),
                )
        # numpy and zipfile name no common error: a damaged or hostile file raises a dozen kinds, among them
        # RuntimeError (encrypted), MemoryError (a header that claims terabytes), zlib.error, tokenize.TokenError.
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise UsageError(f"{path}: not a file of concepts ({reason}); make one with `noema encode`") from error


def concepts_from_json(text: str, name: str) -> ConceptFile:
    """Concepts from what `noema encode --json` printed: the last line counts."""
    lines: Sequence[str] = text.strip().splitlines()
    try:
        content = json.loads(lines[-1])
        rows = content["sentences"]
        with np.errstate(over="ignore"):  # what no float32 holds becomes infinite, and is refused with its file
            concepts = np.array([row["concept"] for row in rows], dtype=np.float32)
        texts = tuple(str(row.get("text", "")) for row in rows)
        languages = tuple(str(row["language"]) for row in rows if "language" in row)
        return ConceptFile(concepts, texts, str(content.get("language", "")), str(content["space_id"]), languages)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UsageError(f"{name}: not concepts; pipe in what `noema encode --json` prints") from error


def check_space(content: ConceptFile, space_id: str, dim: int, name: str) -> None:
    """Refuses concepts of another space, and what is no number."""
    if content.space_id != space_id:
        raise UsageError(
            f"{name}: made in space {content.space_id}, but this bundle is space {space_id}; "
            "encode again with this bundle or choose the other with --bundle"
        )
    if content.concepts.ndim != 2 or content.concepts.shape[1] != dim:
        raise UsageError(f"{name}: concepts of shape {content.concepts.shape}; expected [N, {dim}]")
    if not np.isfinite(content.concepts).all():
        raise UsageError(f"{name}: holds concepts that are no numbers (NaN or infinite); encode them again")
