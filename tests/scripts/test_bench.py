"""`scripts.bench`: what cannot be measured is a line."""

import sys
from pathlib import Path

import pytest

from scripts.bench import main


@pytest.mark.parametrize("name", ["vad", "echo"])
def test_without_recordings_it_says_what_is_missing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", name, "--force", "--data", str(tmp_path)])
    assert main() == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("bench: ")
    assert str(tmp_path) in line
