"""Data folder: where on this machine Noema keeps what belongs to its user. Knows nothing of what that is."""

import os
from pathlib import Path


def data_folder() -> Path:
    """Below XDG_DATA_HOME, or where that is if nobody has set it."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "noema"


def kept_at(variable: str, name: str) -> Path:
    """A place that an environment variable names, or else one in the data folder."""
    chosen = os.environ.get(variable)
    return Path(chosen) if chosen else data_folder() / name
