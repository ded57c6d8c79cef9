"""Run notes: what a checkpoint says of its run, and whether a command goes on with that run. Knows nothing of tensors.

A resumed run reads the same rows in the same order, and learns the same model from the same teacher: what decides that
may not change. Everything else may, and is told.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lcm.errors import TrainingDataError

_FIXED = ("row", "rows_a_step", "crop_share", "repeats", "seed", "objective.teacher")
"""Settings that decide which rows a step holds, and what a student is taught"""
ADVICE = "name another --run, or remove it"


@dataclass(frozen=True, slots=True)
class RunNotes:
    """Of one run."""

    variant: str
    model: dict[str, Any]
    """its sizes"""
    training: dict[str, Any]
    """its settings"""
    space_id: str
    documents: str
    """which documents it reads"""
    teacher: str = ""
    """which weights teach it, if any do"""
    corpus: dict[str, Any] | None = None
    """what it reads, as `ConceptTable.corpus` says it; `documents` tells whether that is another"""

    def changed(self, earlier: Mapping[str, Any], run: Path) -> list[str]:
        """What is otherwise than in the notes of the checkpoint in `run`, of what may be: «lr 0.001 is now 0.002».

        Raises:
            TrainingDataError: it is no checkpoint of this run.
        """
        if earlier["space_id"] != self.space_id:
            raise TrainingDataError(
                f"{run} learnt space {earlier['space_id']}, the concepts are of {self.space_id}; {ADVICE}"
            )
        mine: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        sizes = [k for k in {**mine["model"], **earlier["model"]} if mine["model"].get(k) != earlier["model"].get(k)]
        if earlier["variant"] != self.variant or sizes:
            another = f"another {', '.join(sizes)}"
            what = another if earlier["variant"] == self.variant else f"variant {earlier['variant']}"
            raise TrainingDataError(f"the checkpoint in {run} is of {what}; {ADVICE}")
        for part in ("documents", "teacher"):  # older checkpoints do not tell
            if earlier.get(part, mine[part]) != mine[part]:
                raise TrainingDataError(f"the checkpoint in {run} has learnt from another {part}; {ADVICE}")
        changes = dict(_changes(earlier["training"], mine["training"]))
        if fixed := [told for name, told in changes.items() if name in _FIXED]:
            raise TrainingDataError(
                f"the checkpoint in {run} was trained with other settings ({', '.join(fixed)}), and would go on with "
                f"other rows; give the old ones, or {ADVICE}"
            )
        return list(changes.values())


def _changes(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    before, after = dict(_flat(earlier)), dict(_flat(now))
    for name, value in after.items():
        if name in before and before[name] != value:
            yield name, f"{name} {before[name]} is now {value}"


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings under dotted names, but for the model's sizes, which are compared by themselves."""
    for name, value in settings.items():
        if name in ("objective", "sampling"):
            yield from ((f"{name}.{inner}", below) for inner, below in value.items())
        elif name not in ("model", "variant"):
            yield name, value
