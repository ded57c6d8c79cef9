"""Checkpoints of LCM trainings: weights, their average and the optimisers' state in one safetensors file, and back.

Written aside and put in place at once: whenever a run is killed, the last checkpoint is whole. Knows nothing of losses.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lcm.errors import TrainingDataError

NAME = "checkpoint.safetensors"


def write_tensors(run: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Write the checkpoint of a run; `notes` are what JSON can hold.

    Raises:
        TrainingDataError: the disk is full, or not writable; the checkpoint before this one is as it was.
    """
    aside = run / f"{NAME}.new"
    try:
        save_file({k: v.contiguous() for k, v in tensors.items()}, aside, {"notes": json.dumps(notes)})
        aside.replace(run / NAME)
    except (OSError, SafetensorError) as error:
        aside.unlink(missing_ok=True)
        raise TrainingDataError(
            f"{run / NAME} could not be written ({error}); the last checkpoint is as it was: "
            "make room and start the same command again"
        ) from error


def read_tensors(run: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What was written last; None if nothing was.

    Raises:
        TrainingDataError: damaged.
    """
    path = run / NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            notes: dict[str, Any] = json.loads((file.metadata() or {})["notes"])
            return {key: file.get_tensor(key) for key in file.keys()}, notes  # noqa: SIM118, safe_open is no mapping
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingDataError(
            f"{path} is damaged ({error}); remove it to begin anew, or name another --run"
        ) from error


def part_of(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors under `name.`, without it."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
