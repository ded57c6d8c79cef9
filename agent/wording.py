"""Wording: hints at a command, put the way it was started here (`scripts/run` says so in NOEMA_COMMAND).

Receives text in which commands stand as `noema …` in backticks, gives text that can be typed. Knows no command.
"""

import os
import shlex


def started_as() -> str:
    """What to type for `noema`."""
    return shlex.quote(os.environ.get("NOEMA_COMMAND") or "noema")


def as_typed(text: str) -> str:
    """A text whose `noema …` can be typed as it stands."""
    return text.replace("`noema ", f"`{started_as()} ")
