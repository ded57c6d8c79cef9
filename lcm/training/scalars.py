"""Scalars: a run's metrics to TensorBoard, where it is installed (the extra `train`). Knows nothing of models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"


class Scalars:
    """Writes to RUN/tensorboard; a resumed run goes on in the same curves."""

    def __init__(self, run: Path, step: int) -> None:
        """`step` where the run stands: what an interrupted one wrote beyond it is hidden."""
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(run / FOLDER), purge_step=step)

    def write(self, row: Mapping[str, float], step: int) -> None:
        """One row of metrics."""
        if self._writer is None:
            return
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()
