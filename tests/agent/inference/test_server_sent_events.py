"""Server-sent events: the data of each, however the bytes are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.inference.server_sent_events import ServerSentEvents

STREAM = (
    "\ufeff: hello\n\ndata: één\n\nevent: x\r\ndata:two\r\ndata:  lines\r\n\r\n"
    ":\ndata\rid: 7\r\rdata: 😀\n\ndata: no end"
).encode()


def test_the_data_of_each_event_comes_out() -> None:
    assert ServerSentEvents().push(STREAM) == ["één", "two\n lines", "😀"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12).map(sorted))
def test_bytes_may_be_cut_anywhere(cuts: list[int]) -> None:
    events = ServerSentEvents()
    pieces = [STREAM[start:end] for start, end in zip([0, *cuts], [*cuts, len(STREAM)], strict=True)]
    assert [event for piece in pieces for event in events.push(piece)] == ["één", "two\n lines", "😀"]


@pytest.mark.parametrize("content", [b"", b"\n\n\n", b": only this\n\n", b"event: x\n\n", b"\xff\n\n"])
def test_what_holds_no_data_is_no_event(content: bytes) -> None:
    assert ServerSentEvents().push(content) == []


def test_bytes_that_are_no_letters_are_shown_as_such() -> None:
    assert ServerSentEvents().push(b"data: a\xffb\n\n") == ["a\ufffdb"]
