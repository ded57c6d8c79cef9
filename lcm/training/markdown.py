"""Markdown of the model card: rows in, tables out."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def interval(bounds: Sequence[float], digits: int = 1) -> str:
    """«[1.0, 2.0]»."""
    return f"[{bounds[0]:.{digits}f}, {bounds[1]:.{digits}f}]"
