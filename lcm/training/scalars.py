"""Scalars: a run's metrics to `metrics.jsonl`, and to TensorBoard where it is installed (the extra `train`).

A resumed run goes on in the same file and curves: what an interrupted one wrote beyond its checkpoint is taken back.
Knows nothing of models.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcm.errors import TrainingDataError

LOG = "metrics.jsonl"
FOLDER = "tensorboard"


class Scalars:
    """Writes the rows of one run."""

    def __init__(self, run: Path, step: int, epoch: int) -> None:
        """`step` and `epoch` where the run stands.

        Raises:
            TrainingDataError: the disk is full, or not writable.
        """
        self.run, self._begun = run, step
        self._writer: Any = None
        try:
            _cut(run / LOG, step, epoch)
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, row: Mapping[str, float], step: int, epoch: int) -> None:
        """One row of metrics; what is not finite is null.

        Raises:
            TrainingDataError: the disk is full, or not writable.
        """
        finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
        try:
            with (self.run / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps({"step": step, "epoch": epoch} | finite) + "\n")
            if writer := self._opened():
                for name, value in row.items():
                    writer.add_scalar(name, value, step)
                writer.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def _opened(self) -> Any:
        """TensorBoard's writer, at the first row; None without it."""
        if self._writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return None
            self._writer = SummaryWriter(str(self.run / FOLDER), purge_step=self._begun + 1)
        return self._writer

    def _unwritable(self, error: OSError) -> TrainingDataError:
        return TrainingDataError(
            f"the metrics in {self.run} could not be written ({error}): make room and start the same command again"
        )


def _cut(log: Path, step: int, epoch: int) -> None:
    """Leave the rows up to there; the last line of a killed run may be half a row.

    An epoch's evaluation stands at its last step, under the next one's number: it goes where that has not begun.
    """
    if not log.exists():
        return
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if _is_before(line, step, epoch)]
    if kept != lines:
        aside = log.with_name(f"{log.name}.new")
        aside.write_text("".join(kept), encoding="utf-8")
        aside.replace(log)


def _is_before(line: str, step: int, epoch: int) -> bool:
    try:
        row = json.loads(line)
        return bool(line.endswith("\n") and row["step"] <= step and row["epoch"] <= epoch)
    except (ValueError, TypeError, KeyError):
        return False
