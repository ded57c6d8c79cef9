"""Conversation: the concepts of both sides with their roles, bounded. Pure.

Receives what was understood and what was said; gives the context a thinker continues. What the user heard of
a reply stays, what was cut off is forgotten. Knows nothing of how concepts are made.
"""

from collections import OrderedDict, deque
from copy import copy
from itertools import takewhile

from agent.core.events import FloatArray
from agent.core.inputs import ContextEntry, Role

ROLE_USER = 0
ROLE_AGENT = 1
ROLES: dict[Role, int] = {"user": ROLE_USER, "agent": ROLE_AGENT}
_REPLIES_KEPT = 8
"""Replies whose unheard sentences are remembered: a client tells late how much of one was heard"""


class Conversation:
    """The last sentences of a conversation, oldest first.

    Where there is no room for another, the oldest quarter is forgotten at once: a model that has read the others reads
    them anew when the first one changes, and should not have to at every sentence.
    """

    def __init__(self, max_sentences: int) -> None:
        self._most = max_sentences
        self._entries: deque[ContextEntry] = deque()
        self._replies: OrderedDict[int, tuple[ContextEntry, ...]] = OrderedDict()
        """Of the last turns, all that the agent said"""

    def __len__(self) -> int:
        return len(self._entries)

    def copy(self) -> "Conversation":
        """Another that goes its own way."""
        other = copy(self)
        other._entries, other._replies = self._entries.copy(), self._replies.copy()
        return other

    def said(self, turn: int, role: Role, concepts: FloatArray, texts: tuple[str, ...] | None, language: str) -> None:
        """Adds sentences; `concepts` is [N, D], `texts` has N items where the words are known."""
        for number, concept in enumerate(concepts):
            text = texts[number] if texts is not None else None
            self._add(ContextEntry(turn, ROLES[role], concept, text, language))

    def user_words(self, turn: int, text: str) -> None:
        """Fills in the words of a turn, once its concepts have been decoded back."""
        for place, entry in enumerate(self._entries):
            if entry.turn == turn and entry.role == ROLE_USER and entry.text is None:
                self._entries[place] = ContextEntry(turn, ROLE_USER, entry.concept, text, entry.language)
                text = ""

    def agent_said(self, turn: int, concept: FloatArray | None, text: str, language: str) -> None:
        """Adds one sentence of the reply."""
        entry = ContextEntry(turn, ROLE_AGENT, concept, text, language)
        self._add(entry)
        self._replies[entry.turn] = (*self._replies.pop(entry.turn, ()), entry)
        while len(self._replies) > _REPLIES_KEPT:
            self._replies.popitem(last=False)

    def keep_heard(self, turn: int, sentences: int) -> None:
        """Of the reply to `turn`, keeps the first `sentences`, whatever was kept of it so far: no more was heard."""
        said = self._replies.get(turn)
        if said is None:  # long ago: what is left of it stays
            return
        kept = [entry for entry in self._entries if entry.turn != turn or entry.role != ROLE_AGENT]
        place = next((n for n, entry in enumerate(self._entries) if entry in said), None)
        if place is None:  # all of it was cut off before: it followed what the user said, and what came earlier
            place = next((n for n, entry in enumerate(kept) if entry.turn > turn), len(kept))
        kept[place:place] = said[:sentences]
        self._entries.clear()
        for entry in kept:
            self._add(entry)

    def forget(self, turn: int, role: Role) -> None:
        """Forgets what one side said in a turn."""
        kept = [entry for entry in self._entries if entry.turn != turn or entry.role != ROLES[role]]
        self._entries = deque(kept)
        if role == "agent":
            self._replies.pop(turn, None)

    def last_language(self) -> str | None:
        """What was spoken last."""
        return next((entry.language for entry in reversed(self._entries) if entry.role == ROLE_USER), None)

    def unanswered(self) -> tuple[ContextEntry, ...]:
        """What the user has said since the agent last spoke."""
        entries = takewhile(lambda entry: entry.role == ROLE_USER, reversed(self._entries))
        return tuple(entries)[::-1]

    def view(self) -> tuple[ContextEntry, ...]:
        """The context as it stands, oldest first."""
        return tuple(self._entries)

    def _add(self, entry: ContextEntry) -> None:
        if len(self._entries) == self._most:
            for _ in range(max(1, self._most // 4)):
                self._entries.popleft()
        self._entries.append(entry)
