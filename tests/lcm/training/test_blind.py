"""Blind comparison: who is who cannot be told from the pairs, and the votes are counted for the right one."""

import json
from pathlib import Path

import pytest

from lcm.errors import TrainingDataError
from lcm.training.blind import counted, paired, write_pairs

PROMPTS = [[f"Question {n}?"] for n in range(30)]
GOOD, BAD = [f"good {n}" for n in range(30)], [f"bad {n}" for n in range(30)]


def test_sides_and_order_are_drawn_and_replies_stay_with_their_prompts() -> None:
    pairs = paired(PROMPTS, GOOD, BAD)
    assert [p.prompt[0] for p in pairs] != [p[0] for p in PROMPTS]
    assert 5 < sum(p.left_is_first for p in pairs) < 25
    for pair in pairs:
        number = pair.prompt[0].removeprefix("Question ").removesuffix("?")
        first, second = (pair.left, pair.right) if pair.left_is_first else (pair.right, pair.left)
        assert (first, second) == (f"good {number}", f"bad {number}")
    assert pairs == paired(PROMPTS, GOOD, BAD)


def test_the_pairs_to_be_read_name_nobody(tmp_path: Path) -> None:
    write_pairs(paired(PROMPTS, GOOD, BAD), ("base:retrieve", "two_tower:lcm"), tmp_path)
    text = (tmp_path / "pairs.md").read_text(encoding="utf-8")
    assert "base" not in text
    assert "two_tower" not in text
    assert text.count("- left:") == 30


def test_votes_are_counted_for_whoever_stood_there(tmp_path: Path) -> None:
    pairs = paired(PROMPTS, GOOD, BAD)
    write_pairs(pairs, ("a:lcm", "b:lcm"), tmp_path)
    votes = {str(n): "left" if pair.left.startswith("good") else "right" for n, pair in enumerate(pairs, start=1)}
    votes["1"] = "equal"
    (tmp_path / "votes.json").write_text(json.dumps(votes), encoding="utf-8")
    found = counted(tmp_path)
    assert found["wins"] == {"a:lcm": 29, "b:lcm": 0, "equal": 1}
    assert found["share"]["a:lcm"] == pytest.approx(100 * 29.5 / 30, abs=0.1)


def test_open_votes_are_told(tmp_path: Path) -> None:
    write_pairs(paired(PROMPTS, GOOD, BAD), ("a:lcm", "b:lcm"), tmp_path)
    with pytest.raises(TrainingDataError, match="pair 1 has no vote"):
        counted(tmp_path)
    with pytest.raises(TrainingDataError, match="no blind comparison"):
        counted(tmp_path / "nowhere")


def test_votes_are_never_written_over(tmp_path: Path) -> None:
    pairs = paired(PROMPTS, GOOD, BAD)
    write_pairs(pairs, ("a:lcm", "b:lcm"), tmp_path)
    write_pairs(pairs, ("a:lcm", "c:lcm"), tmp_path)  # nobody has voted yet
    voted = json.dumps({"1": "left"} | {str(n): None for n in range(2, 31)})
    (tmp_path / "votes.json").write_text(voted, encoding="utf-8")
    with pytest.raises(TrainingDataError, match="holds votes"):
        write_pairs(pairs, ("a:lcm", "b:lcm"), tmp_path)
    assert (tmp_path / "votes.json").read_text(encoding="utf-8") == voted
    assert "c:lcm" in (tmp_path / "key.json").read_text(encoding="utf-8")


def test_a_system_is_not_compared_with_itself(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="compared with itself"):
        write_pairs(paired(PROMPTS, GOOD, GOOD), ("a:lcm", "a:lcm"), tmp_path / "blind")
    assert not (tmp_path / "blind").exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("votes.json", '{"1": "left",', "votes.json is no JSON any more"),
        ("votes.json", '["left"]', "votes.json is no JSON object"),
        ("key.json", "{}", "does not say who is who"),
        ("key.json", '{"systems": ["a", "a"], "left": {"1": "a"}}', "does not say who is who"),
        ("key.json", '{"systems": ["a", "b"], "left": {}}', "does not say who is who"),
        ("key.json", '{"systems": ["a", "b"], "left": {"1": ["c"]}}', "names neither system at pair 1"),
    ],
)
def test_files_that_are_not_as_written_are_told(name: str, content: str, says: str, tmp_path: Path) -> None:
    write_pairs(paired(PROMPTS, GOOD, BAD), ("a", "b"), tmp_path)
    (tmp_path / "votes.json").write_text(json.dumps({str(n): "left" for n in range(1, 31)}), encoding="utf-8")
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(TrainingDataError, match=says):
        counted(tmp_path)
