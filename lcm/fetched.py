"""Fetched bundles: where they lie, how one that is not whole is recognised, and which command makes it whole.

Receives folders, gives advice. Knows nothing of what is in the files, nor of networks: `agent/fetching` downloads.
"""

import os
import re
import shlex
from pathlib import Path

SONAR = "sonar"
_TRACES = ("sonar_text_*coder.pt*", "finetuned_decoder.pt*", "spenc.*.pt*", "tokenizer.model.*")
"""Published checkpoints, and what lies beside a file while it is on its way (`agent/fetching/partial_file.py`)"""
_SPEECH = re.compile(r"spenc\.(?:\w+\.)?(?P<language>[a-z]{3})\.pt")
_DECODER, _FINETUNED = "sonar_text_decoder.pt", "finetuned_decoder.pt"


def fetched_bundles() -> Path:
    """Where fetched bundles lie: `$XDG_DATA_HOME/noema/bundles`, usually in `~/.local/share`."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "noema" / "bundles"


def is_fetched(folder: Path) -> bool:
    """Whether published files lie in a folder, whole or on their way."""
    return any(next(folder.glob(trace), None) for trace in _TRACES)


def fetch_command(folder: Path) -> str:
    """What to type for everything that a folder holds, or was to hold: it fetches what is missing or is not right."""
    names = {path.name.removesuffix(".part").removesuffix(".fetch.json") for path in folder.glob("*.pt*")}
    heard = sorted({found["language"] for name in names if (found := _SPEECH.match(name))})
    finetuned = [" --finetuned"] if _FINETUNED in names and _DECODER not in names else []
    return "".join(
        ["noema fetch sonar --text", *finetuned, f" --speech {','.join(heard)}" if heard else "", folder_option(folder)]
    )


def folder_option(folder: Path) -> str:
    """The option that leads a fetch to a folder; empty where it goes there anyway."""
    usual = fetched_bundles() / SONAR
    return "" if folder.absolute() == usual.absolute() else f" --folder {shlex.quote(str(folder))}"
