"""Meta's public LCM code in a process of its own: requests out, answers in. The other end is meta_lcm.py.

Knows nothing of what is measured.
"""

import contextlib
import json
import os
import subprocess
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BRING = """\
    git clone https://github.com/facebookresearch/large_concept_model .meta-lcm
    git -C .meta-lcm checkout fd7db80
    python3.11 -m venv .meta-lcm/.venv
    .meta-lcm/.venv/bin/pip install fairseq2==0.3.0 sonar-space==0.3.2 dacite hydra-core polars pyarrow retrying \\
        fire scikit-learn
and the system's libsndfile (apt install libsndfile1). 6 GB; another folder or Python: --meta and --meta-python, or
NOEMA_META_LCM and NOEMA_META_LCM_PYTHON."""
_SERVER = Path(__file__).with_name("meta_lcm.py")
_ROOT = Path(__file__).parent.parent
_LEAVE_S = 10.0
_TOLD = 2_000


class MetaError(RuntimeError):
    """Their process ended, or never began."""


def add_meta_options(parser: ArgumentParser) -> None:
    """Where their code and its Python are."""
    folder = Path(os.environ.get("NOEMA_META_LCM", _ROOT / ".meta-lcm"))
    python = os.environ.get("NOEMA_META_LCM_PYTHON")
    parser.add_argument("--meta", type=Path, default=folder, metavar="DIR", help="Meta's code (%(default)s)")
    parser.add_argument(
        "--meta-python",
        type=Path,
        default=python and Path(python),
        metavar="FILE",
        help="the Python that has what it needs (DIR/.venv/bin/python)",
    )


def missing_of_meta(folder: Path, python: Path | None) -> str | None:
    """What of it is not here, in words; None if all is."""
    if not (folder / "lcm" / "models" / "two_tower_diffusion_lcm").is_dir():
        return f"Meta's code (no large_concept_model in {folder})"
    if not (found := python or folder / ".venv" / "bin" / "python").exists():
        return f"the Python for Meta's code (no {found})"
    return None


class MetaProcess:
    """Their side, started; one request at a time. As a context manager it ends with the block."""

    def __init__(self, folder: Path, python: Path | None, threads: int) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed with the process
        self._process = subprocess.Popen(
            [python or folder / ".venv" / "bin" / "python", "-W", "ignore", _SERVER, folder.resolve()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": ""},
        )
        try:
            self.versions = self._answer()
        except MetaError:
            self.close()
            raise

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """The answer of a method of `meta_lcm.Meta`.

        Raises:
            MetaError: their process ended; what it said last is in the message.
        """
        assert self._process.stdin is not None  # a pipe was asked for
        with contextlib.suppress(BrokenPipeError):  # the missing answer tells more
            print(json.dumps({"do": do, **what}), file=self._process.stdin, flush=True)
        return self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, now or after its last answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            answer: dict[str, Any] = json.loads(line)
            return answer
        self._process.wait()
        self._log.seek(0)
        raise MetaError(f"Meta's code ended with {self._process.returncode}:\n{self._log.read()[-_TOLD:]}")
