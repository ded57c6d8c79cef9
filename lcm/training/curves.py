"""Curves: a run's `metrics.jsonl` in, one PNG out. Knows nothing of what the figures mean."""

import json
from collections import defaultdict
from pathlib import Path

from lcm.errors import INSTALL_TRAIN, BackendError, TrainingDataError


def draw_curves(metrics: Path, png: Path) -> None:
    """One small plot for each figure of the log, over steps; light lines are raw, dark ones their running median.

    Raises:
        BackendError: matplotlib is not installed.
        TrainingDataError: the disk is full, or not writable.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise BackendError(f"curves are drawn by matplotlib: {INSTALL_TRAIN}") from error

    series: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in metrics.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                series[name].append((row["step"], value))
    columns = 4
    rows = max(1, -(-len(series) // columns))
    figure, axes = pyplot.subplots(rows, columns, figsize=(4 * columns, 2.6 * rows), squeeze=False)
    for axis, (name, points) in zip(axes.flat, series.items(), strict=False):
        steps, values = zip(*points, strict=True)
        axis.plot(steps, values, color="#9db7d5" if len(points) > 60 else "#1f4e79", linewidth=0.8)
        if len(points) > 60:
            axis.plot(steps, _running_median(list(values), 15), color="#1f4e79", linewidth=1.4)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in list(axes.flat)[len(series) :]:
        axis.axis("off")
    figure.tight_layout()
    try:
        figure.savefig(png, dpi=90)
    except OSError as error:
        raise TrainingDataError(f"{png} could not be written ({error}): make room") from error
    finally:
        pyplot.close(figure)


def _running_median(values: list[float], reach: int) -> list[float]:
    windows = (sorted(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values)))
    return [window[len(window) // 2] for window in windows]
