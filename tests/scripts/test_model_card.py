"""`scripts.model_card` where the extra `train` is not installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from lcm.errors import BackendError
from lcm.training.evaluate_text import chrf

ROOT = Path(__file__).parents[2]
WITHOUT = "import runpy, sys; sys.modules['sacrebleu'] = None; runpy.run_module('scripts.model_card', None, '__main__')"


def test_help_asks_for_nothing() -> None:
    said = subprocess.run(
        [sys.executable, "-c", WITHOUT, "--help"], capture_output=True, text=True, check=False, timeout=60, cwd=ROOT
    )
    assert (said.returncode, said.stderr) == (0, "")


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(BackendError, match=r"counted by sacrebleu, of the extra `train`: pip install -e '\.\[train\]'"):
        chrf(["One."], ["One."])
