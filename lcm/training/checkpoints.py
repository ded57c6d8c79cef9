"""Checkpoints of LCM trainings: weights, their average and the optimisers' state in one safetensors file, and back.

Written aside and put in place at once: whenever a run is killed, the last checkpoint is whole. That of an epoch's end
is kept beside it: what to go back to where the last one turns out spoilt. Knows nothing of losses.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lcm.errors import TrainingDataError

NAME = "checkpoint.safetensors"
EPOCH = "epoch.safetensors"
"""The checkpoint that the last epoch ended with"""


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


def keep_epoch(run: Path) -> None:
    """Keep the checkpoint as that of an epoch's end, in place of the one before.

    Raises:
        TrainingDataError: the disk is full, or not writable.
    """
    aside = run / f"{EPOCH}.new"
    try:
        aside.unlink(missing_ok=True)
        try:
            aside.hardlink_to(run / NAME)  # costs nothing: the next checkpoint is another file
        except OSError:  # not every file system has links
            shutil.copyfile(run / NAME, aside)
        aside.replace(run / EPOCH)
        aside.unlink(missing_ok=True)  # two links to one file: replacing does nothing
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise TrainingDataError(
            f"{run / EPOCH} could not be written ({error}): make room and start the same command again"
        ) from error


def exists(run: Path) -> bool:
    """Whether anything was written."""
    return (run / NAME).exists()


def read_notes(run: Path) -> dict[str, Any]:
    """The notes of what was written last.

    Raises:
        TrainingDataError: damaged.
    """
    with _open(run) as file:
        notes: dict[str, Any] = json.loads((file.metadata() or {})["notes"])
        return notes


def each_tensor(run: Path, part: str = "") -> Iterator[tuple[str, Tensor]]:
    """What was written last, one tensor after the other; of a part those under `part.`, without it.

    Raises as `read_notes`.
    """
    prefix = f"{part}." if part else ""
    with _open(run) as file:
        for key in file.keys():  # noqa: SIM118, safe_open is no mapping
            if key.startswith(prefix):
                yield key.removeprefix(prefix), file.get_tensor(key)


@contextmanager
def _open(run: Path) -> Iterator[Any]:
    path = run / NAME
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingDataError(
            f"{path} is damaged ({error}); remove it to begin anew, or name another --run"
        ) from error


def weights_id(tensors: Mapping[str, Tensor]) -> str:
    """Names weights by their names and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
