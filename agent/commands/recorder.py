"""Where subcommands get a recorder from: a new folder among the user's sessions."""

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from agent.commands.options import warn

if TYPE_CHECKING:
    from agent.core.turn_options import TurnOptions
    from agent.opening import Opened
    from agent.recordings.recording import SessionRecorder


def recorder(there: "Opened", options: "TurnOptions", closing: AsyncExitStack) -> "SessionRecorder":
    """A recorder in a new folder, closed with `closing`; what was left unfinished is finalised first."""
    from agent.recordings.recording import (
        SessionRecorder,
        finalise_unfinished,
        new_session_folder,
        new_session_info,
        sessions_folder,
    )

    root = sessions_folder()
    finalise_unfinished(root)
    info = new_session_info(there.config, options, there.worker.models.space.space_id)
    recording = SessionRecorder(new_session_folder(root), info, warn)
    closing.callback(recording.close)
    warn(f"recording to {recording.folder}")
    return recording
