"""What tests of the command line share: `noema`, run in this process."""

import sys
from pathlib import Path

import pytest

from agent.cli import main
from tests.noema_command import Noema, Result

_WITHOUT_BUNDLE = {"sessions", "fetch"}


@pytest.fixture
def noema(
    small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Noema:
    """Runs a command, on the small bundle and with a folder of its own for sessions."""
    monkeypatch.setenv("NOEMA_SESSIONS", str(tmp_path / "sessions"))

    def run(*args: object, stdin: str | None = None, bundle: object = small_bundle) -> Result:
        words = [str(word) for word in args]
        if bundle is not None and words[0] not in _WITHOUT_BUNDLE:
            words += ["--bundle", str(bundle), "--device", "cpu"]
        given = tmp_path / "stdin"
        given.write_bytes((stdin or "").encode("utf-8", "surrogateescape"))
        capsys.readouterr()
        with given.open() as typed, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", typed)
            try:
                code = main(words)
            except SystemExit as exit_:
                code = int(exit_.code or 0)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err, shows_progress=words[0] == "fetch")

    return run
