"""Blind comparison: the replies of two systems to the same prompts in, pairs in random order without names out.

`pairs.md` is to be read, `votes.json` to be filled in («left», «right» or «equal» for each pair), `key.json` says
afterwards which was which. Knows nothing of models.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lcm.errors import TrainingDataError
from lcm.training.intervals import estimate

VOTES = ("left", "right", "equal")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two replies to one prompt."""

    prompt: tuple[str, ...]
    left: str
    right: str
    left_is_first: bool


def paired(prompts: Sequence[Sequence[str]], first: Sequence[str], second: Sequence[str], seed: int = 0) -> list[Pair]:
    """The prompts in random order, each with the replies of both on random sides."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(prompts)).tolist()
    return [
        Pair(tuple(prompts[i]), *((first[i], second[i]) if kept else (second[i], first[i])), kept)
        for i, kept in zip(order, rng.integers(2, size=len(prompts)).astype(bool).tolist(), strict=True)
    ]


def check_new(names: tuple[str, str], folder: Path) -> None:
    """Whether these two can be compared in this folder.

    Raises:
        TrainingDataError: they are one system, or the folder holds votes, which would be lost.
    """
    if names[0] == names[1]:
        raise TrainingDataError(f"{names[0]} would be compared with itself; give two systems")
    path = folder / "votes.json"
    if path.exists() and any(_read(path).values()):
        raise TrainingDataError(f"{path} holds votes; count them with --votes, or give another --out")


def write_pairs(pairs: Sequence[Pair], names: tuple[str, str], folder: Path) -> None:
    """Write the three files; the folder is made.

    Raises:
        TrainingDataError: as `check_new` does.
    """
    check_new(names, folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"Which reply is better? Write «{VOTES[0]}», «{VOTES[1]}» or «{VOTES[2]}» into votes.json."]
    for number, pair in enumerate(pairs, start=1):
        said = "\n".join(f"> {speaker}: {turn}" for turn, speaker in zip(pair.prompt, "ABA", strict=False))
        parts.append(
            f"## {number}\n\n{said}\n\n- left: {pair.left or '(nothing)'}\n- right: {pair.right or '(nothing)'}"
        )
    (folder / "pairs.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    _write(folder / "votes.json", {str(number): None for number in range(1, len(pairs) + 1)})
    left = {str(number): names[0 if pair.left_is_first else 1] for number, pair in enumerate(pairs, start=1)}
    _write(folder / "key.json", {"systems": names, "left": left})


def counted(folder: Path) -> dict[str, Any]:
    """How often each system won, and the share that the first one has with a 95 % interval; «equal» is half a win.

    Raises:
        TrainingDataError: a file is missing or is not what was written, or a vote is missing.
    """
    votes, key = _read(folder / "votes.json"), _read(folder / "key.json")
    match key:
        case {"systems": [str(first), str(second)], "left": dict(sides)} if first != second and sides:
            pass
        case _:
            raise TrainingDataError(f"{folder / 'key.json'} does not say who is who; compare again in another folder")
    if open_ones := [number for number in sides if votes.get(number) not in VOTES]:
        raise TrainingDataError(f"pair {open_ones[0]} has no vote yet; write one of {', '.join(VOTES)} into votes.json")
    if strangers := [number for number, left in sides.items() if left not in (first, second)]:
        raise TrainingDataError(f"{folder / 'key.json'} names neither system at pair {strangers[0]}; compare again")
    other = {first: second, second: first}
    wins = {first: 0, second: 0, "equal": 0}
    points = []
    for number, left in sides.items():
        won = {"left": left, "right": other[left], "equal": "equal"}[votes[number]]
        wins[won] += 1
        points.append({first: 100.0, second: 0.0, "equal": 50.0}[won])
    share = estimate(np.array(points), np.arange(len(points)))
    assert share is not None, "every pair has a vote"
    return {"wins": wins, "share": {first: round(share.mean, 1), "ci": [round(share.low, 1), round(share.high, 1)]}}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingDataError(f"no blind comparison at {path.parent} ({error})") from error
    except ValueError as error:
        raise TrainingDataError(f"{path} is no JSON any more ({error}); mend it") from error
    if not isinstance(content, dict):
        raise TrainingDataError(f"{path} is no JSON object any more; mend it")
    return content


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
