"""The command that measures: what it refuses, and a blind comparison from beginning to end."""

import json
from pathlib import Path

import pytest

from lcm.space import ConceptSpace
from scripts.evaluate import judge_of, main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["evaluate", *arguments])
    return main()


def test_two_systems_are_compared_without_names_and_the_votes_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--blind", "base:retrieve", "base:lcm", "--out", str(tmp_path)) == 0
    assert json.loads(capsys.readouterr().out) == {"pairs": 50, "folder": str(tmp_path)}
    assert run(monkeypatch, "--votes", str(tmp_path)) == 2
    assert "no vote yet" in capsys.readouterr().err
    left = json.loads((tmp_path / "key.json").read_text(encoding="utf-8"))["left"]
    votes = {number: "left" if name == "base:retrieve" else "right" for number, name in left.items()}
    (tmp_path / "votes.json").write_text(json.dumps(votes), encoding="utf-8")
    assert run(monkeypatch, "--votes", str(tmp_path)) == 0
    assert json.loads(capsys.readouterr().out)["wins"] == {"base:retrieve": 50, "base:lcm": 0, "equal": 0}
    assert run(monkeypatch, "--blind", "base:retrieve", "base:lcm", "--out", str(tmp_path)) == 2
    assert "holds votes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("system", "message"), [("base:sing", "no way to answer"), ("nobody:lcm", "no model 'nobody'")]
)
def test_systems_that_do_not_exist_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], system: str, message: str
) -> None:
    assert run(monkeypatch, "--blind", system, "base:lcm", "--out", str(tmp_path / "blind")) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "blind").exists()


def test_what_is_kept_is_every_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--write", "--variants", "base")
    assert stopped.value.code == 2
    assert "leave out --variants" in capsys.readouterr().err


def test_without_a_judge_it_goes_on_and_says_how_one_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("scripts.evaluate.DEFAULT_RUNS", tmp_path)
    told: list[str] = []
    assert judge_of(ConceptSpace.load("mini", device="cpu"), None, told.append) is None
    assert "judge_mini.yaml" in told[0]
