"""Score both voice activity detectors on labelled meetings, clean and in noise."""

import argparse
import sys
from pathlib import Path
from typing import Any

from audio.scoreboard import format_scoreboard, vad_scoreboard
from lcm.training.data import DEFAULT_DATA


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where the excerpts lie."""
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with speech/ami_vad.tar (%(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The scoreboard; a table for people goes to stderr."""
    scores = vad_scoreboard(args.data)
    print(format_scoreboard(scores), file=sys.stderr)
    return scores
