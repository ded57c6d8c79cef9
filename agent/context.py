"""Conversation: the concepts of both sides with their roles, bounded. Pure.

Receives what was understood and what was said; gives the context a thinker continues. What the user heard of
a reply stays, what was cut off is forgotten. Knows nothing of how concepts are made.
"""

from collections import deque

from agent.events import FloatArray
from agent.inputs import ContextEntry

ROLE_USER = 0
ROLE_AGENT = 1


class Conversation:
    """The last sentences of a conversation, oldest first."""

    def __init__(self, max_sentences: int) -> None:
        self._entries: deque[ContextEntry] = deque(maxlen=max_sentences)

    def __len__(self) -> int:
        return len(self._entries)

    def user_said(self, turn: int, concepts: FloatArray, texts: tuple[str, ...] | None, language: str) -> None:
        """Adds a user's sentences; `concepts` is [N, D], `texts` has N items where the words are known."""
        for number, concept in enumerate(concepts):
            text = texts[number] if texts is not None else None
            self._entries.append(ContextEntry(turn, ROLE_USER, concept, text, language))

    def user_words(self, turn: int, text: str) -> None:
        """Fills in the words of a turn, once its concepts have been decoded back."""
        for place, entry in enumerate(self._entries):
            if entry.turn == turn and entry.role == ROLE_USER and entry.text is None:
                self._entries[place] = ContextEntry(turn, ROLE_USER, entry.concept, text, entry.language)
                text = ""

    def agent_said(self, turn: int, concept: FloatArray | None, text: str, language: str) -> None:
        """Adds one sentence of the reply."""
        self._entries.append(ContextEntry(turn, ROLE_AGENT, concept, text, language))

    def keep_heard(self, turn: int, sentences: int) -> None:
        """Of the reply to `turn`, keeps the first `sentences`: the rest was never heard."""
        kept: list[ContextEntry] = []
        seen = 0
        for entry in self._entries:
            if entry.turn == turn and entry.role == ROLE_AGENT:
                seen += 1
                if seen > sentences:
                    continue
            kept.append(entry)
        self._entries = deque(kept, maxlen=self._entries.maxlen)

    def view(self) -> tuple[ContextEntry, ...]:
        """The context as it stands, oldest first."""
        return tuple(self._entries)
