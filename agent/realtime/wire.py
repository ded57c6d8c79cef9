"""Wire: the parts of one session's side of the protocol, together, and what several of them need.

`requests.py` and `machine.py` act on it. Plain data and classes of ours: `agent.core.core_state` keeps it as it is.
"""

from agent.core.inputs import SettingsChanged
from agent.realtime.defaults import SessionDefaults
from agent.realtime.hearing import Hearing
from agent.realtime.items import Item, Items
from agent.realtime.replying import Replying
from agent.realtime.response import ResponseState
from agent.realtime.session_object import SessionObject
from agent.realtime.settings import DEFAULT_VOICE, SessionSettings, shown_session

_PREFIX = 12
"""Characters of the session's id that its other ids repeat"""


class Wire:
    """The parts of one session."""

    def __init__(self, session_id: str, defaults: SessionDefaults) -> None:
        self.session_id = session_id
        self.defaults = defaults
        self.settings = SessionSettings.of(defaults)
        self._prefix = session_id.removeprefix("sess_")[:_PREFIX]
        self.items = Items(self._prefix, defaults.limits.items)
        self.hearing = Hearing(self.items)
        self.replying = Replying(self.items, self)
        self._responses = 0
        self.pending: Item | None = None
        """A client's item, until the turn machine says which turn it is"""

    @property
    def conversation_id(self) -> str:
        """There is one conversation in a session."""
        return f"conv_{self._prefix}"

    @property
    def session(self) -> SessionObject:
        """As it holds now."""
        return shown_session(self.settings, self.defaults, self.session_id)

    @property
    def begun(self) -> bool:
        """Whether anything has been heard or typed."""
        return self.hearing.begun or self.items.any_made

    @property
    def wants_words(self) -> bool:
        """Whether the client is told what was heard."""
        return self.settings.transcription is not None or self.settings.noema is not None

    def changed(self, at_sample: int) -> SettingsChanged:
        """The settings as the turn machine takes them."""
        return self.settings.changed(at_sample, self.defaults, self.instructed(self.settings.instructions))

    def instructed(self, instructions: str) -> str:
        """All that a thinker is told: to instructions belong the items of the system."""
        texts = [instructions, *(item.text for item in self.items.of_system())]
        return "\n\n".join(text for text in texts if text)

    def new_response(self, turn: int, spoken: bool | None) -> ResponseState:
        """What a response to a turn is like: spoken or not, or as the settings say."""
        self._responses += 1
        settings = self.settings
        return ResponseState(
            f"resp_{self._prefix}_{self._responses}",
            turn,
            self.conversation_id,
            settings.spoken if spoken is None else spoken,
            settings.output_format,
            settings.voice or DEFAULT_VOICE,
        )
