"""Server-sent events: bytes as they arrive in, the data of each event out. Pure.

Cut anywhere, also within a letter [HTML Standard §9.2.6]. Names, numbers and waiting times of events are passed
over, and so are comments. Knows nothing of what the data means; whoever pushes bounds how much it is.
"""

import codecs
import io


class ServerSentEvents:
    """One stream of events."""

    def __init__(self) -> None:
        text = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._decoder = io.IncrementalNewlineDecoder(text, translate=True)
        self._line: list[str] = []
        self._data: list[str] = []

    def push(self, content: bytes) -> list[str]:
        """The data of the events that are complete now, in order."""
        *complete, rest = self._decoder.decode(content).split("\n")
        events = []
        for end in complete:
            event = self._take("".join([*self._line, end]))
            self._line = []
            if event is not None:
                events.append(event)
        self._line.append(rest)
        return events

    def _take(self, line: str) -> str | None:
        """One line; an empty one ends an event."""
        if line:
            field, _, value = line.partition(":")
            if field == "data":
                self._data.append(value.removeprefix(" "))
            return None
        data, self._data = self._data, []
        return "\n".join(data) or None  # some servers say nothing, to show that they are there
