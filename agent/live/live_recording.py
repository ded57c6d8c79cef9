"""Live recording: a session on disk, if that is wanted by the time anything is heard. A listener.

Whether a session is recorded may be the client's wish, which comes after the first inputs: until there is sound or a
turn, what happens is remembered, so that a recording holds the session from its beginning. Knows nothing of wires.
"""

import asyncio
import logging
from collections.abc import Callable

from agent.core.events import DomainEvent, TurnCommitted
from agent.core.inputs import AudioInput, Input
from agent.core.turn_options import TurnOptions
from agent.errors import RecordingError, one_line
from agent.opening import Opened
from agent.recordings.recording import SessionRecorder, new_session_folder, new_session_info, sessions_folder

_FIRST_KEPT = 256
_log = logging.getLogger(__name__)


class LiveRecording:
    """Records one session, or nothing.

    Args:
        there: what runs here, for the description.
        options: of the session.
        wanted: whether it is to be recorded.
        began: called when the recording begins.
        stopped: called when the disk refuses.
    """

    def __init__(
        self,
        there: Opened,
        options: TurnOptions,
        wanted: Callable[[], bool],
        began: Callable[[], None],
        stopped: Callable[[], None],
    ) -> None:
        self._there = there
        self._options = options
        self._wanted = wanted
        self._began = began
        self._stopped = stopped
        self._recorder: SessionRecorder | None = None
        self._first: list[Input | DomainEvent] | None = []
        """What happened so far; None: it is decided"""

    @property
    def goes_on(self) -> bool:
        """Whether what happens is being written down."""
        return self._recorder is not None and self._recorder.active

    async def on_input(self, item: Input) -> None:
        """Writes down an input."""
        if self._first is not None:
            await self._consider(item, begins=isinstance(item, AudioInput))
        elif self._recorder is not None:
            await self._recorder.on_input(item)

    async def on_event(self, event: DomainEvent) -> None:
        """Writes down an event."""
        if self._first is not None:
            await self._consider(event, begins=isinstance(event, TurnCommitted))
        elif self._recorder is not None:
            await self._recorder.on_event(event)

    async def close(self) -> None:
        """Ends the recording; compressing it takes a while, beside the loop. Goes on when cancelled."""
        if self._recorder is not None:
            closing = asyncio.get_running_loop().run_in_executor(None, self._recorder.close)
            await asyncio.shield(closing)  # cancelled while it waits for a thread, it would never be closed

    async def _consider(self, item: Input | DomainEvent, *, begins: bool) -> None:
        assert self._first is not None, "it is not decided yet"
        self._first.append(item)
        if not begins and not self._wanted() and len(self._first) < _FIRST_KEPT:
            return
        first, self._first = self._first, None
        if not self._wanted():
            return
        try:
            self._recorder = self._open()
        except (OSError, RecordingError) as error:
            self._warn(f"no recording: {one_line(error)}")
            return
        for entry in first:
            if isinstance(entry, DomainEvent):
                await self._recorder.on_event(entry)
            else:
                await self._recorder.on_input(entry)

    def _open(self) -> SessionRecorder:
        space_id = self._there.worker.models.space.space_id
        info = new_session_info(self._there.config, self._options, space_id, served=True)
        loop = asyncio.get_running_loop()
        recorder = SessionRecorder(
            new_session_folder(sessions_folder()),
            info,
            lambda message: loop.call_soon_threadsafe(self._warn, message),  # it is closed on another thread
        )
        _log.info("recording to %s", recorder.folder)
        self._began()
        return recorder

    def _warn(self, message: str) -> None:
        _log.warning("%s", message)
        self._stopped()
