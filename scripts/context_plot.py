"""Plot of `bench context`: its figures in, one PNG out: time, memory, and the ratio measured and derived."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_COLOURS = {"concepts": "#1f4e79", "together": "#6a9bd1", "tokens": "#b5502b"}
_NAMES = {"concepts": "concepts", "together": "concepts, decoded together", "tokens": "tokens"}
_MODES = {"read": "N read, few written", "write": "N written"}


def draw_context(sizes: Mapping[str, Any], png: Path) -> None:
    """A row for each size and mode. Hollow points are extrapolated; crosses mark where the two cost the same."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [(size, mode) for size, figures in sizes.items() for mode in _MODES if mode in figures]
    figure, axes = pyplot.subplots(len(rows), 3, figsize=(13, 3.4 * len(rows)), squeeze=False)
    for (size, mode), (time, memory, ratio) in zip(rows, axes, strict=True):
        figures = sizes[size][mode]
        millions = max(sizes[size]["parameters"].values()) / 1e6
        for axis, of, label in ((time, "seconds", "seconds"), (memory, "peak_mb", "peak memory, MB")):
            for side in _COLOURS:
                _draw_series(axis, figures.get(side, {}), of, side)
            _mark_crossings(axis, figures, of)
            axis.set(xscale="log", yscale="log", xlabel="tokens N", ylabel=label)
        time.set_title(f"{size}, {millions:.0f} M parameters each: {_MODES[mode]}", fontsize=9, loc="left")
        _draw_ratio(ratio, figures)
        time.legend(fontsize=7, frameon=False)
    for axis in axes.flat:
        axis.grid(visible=True, which="major", color="#e4e4e4", linewidth=0.6)
        axis.tick_params(labelsize=7)
    figure.tight_layout()
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=100)
    pyplot.close(figure)


def _draw_series(axis: Any, rows: Mapping[str, Any], of: str, side: str) -> None:
    measured = {int(n): f[of] for n, f in rows.items() if "extrapolated" not in f}
    guessed = {int(n): f[of] for n, f in rows.items() if "extrapolated" in f}
    colour = _COLOURS[side]
    if measured:
        axis.plot(*zip(*sorted(measured.items()), strict=True), "o-", color=colour, ms=4, label=_NAMES[side])
    if measured and guessed:
        last = max(measured)
        line = [(last, measured[last]), *sorted(guessed.items())]
        axis.plot(*zip(*line, strict=True), "o--", color=colour, ms=4, mfc="white", linewidth=0.9)


def _mark_crossings(axis: Any, figures: Mapping[str, Any], of: str) -> None:
    for found in figures.get("crossing", {}).get(of, {}).values():
        if found and "at_tokens" in found:
            axis.axvline(found["at_tokens"], color="#888888", linewidth=0.8, linestyle=":")
            axis.annotate(
                f"{found['at_tokens']:,}", (found["at_tokens"], 0.03), xycoords=("data", "axes fraction"), fontsize=7
            )


def _draw_ratio(axis: Any, figures: Mapping[str, Any]) -> None:
    axis.set(xscale="log", yscale="log", xlabel="tokens N", ylabel="tokens ÷ concepts, time")
    axis.axhline(1, color="#888888", linewidth=0.8)
    for side in ("concepts", "together"):
        shared = [n for n in figures.get(side, {}) if n in figures.get("tokens", {})]
        ratio = [(int(n), figures["tokens"][n]["seconds"] / figures[side][n]["seconds"]) for n in shared]
        if ratio:
            axis.plot(*zip(*ratio, strict=True), "o-", color=_COLOURS[side], ms=4, label=f"measured, {_NAMES[side]}")
    if figures.get("derived"):
        line = [(int(n), value) for n, value in figures["derived"]["ratio"].items()]
        axis.plot(*zip(*line, strict=True), "--", color="#444444", linewidth=1, label="derived")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=7, frameon=False)
