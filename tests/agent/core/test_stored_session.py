"""Items as rows: what is stored is what was taken, sound and all."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.input_log import LogFormatError, probability_from_byte
from agent.core.inputs import AudioInput, Encoded, InputEnded, TypedText, Voiced
from agent.core.stored_session import ClientText, Row, StoredItem, from_rows, to_rows
from audio.frames import from_pcm16


def sound(seed: int, length: int) -> np.ndarray:
    return from_pcm16(np.random.default_rng(seed).integers(-32768, 32768, length).astype(np.int16))


def frame(number: int) -> AudioInput:
    return AudioInput(320 * number, sound(number, 320), probability_from_byte(number % 256))


OTHERS = st.one_of(
    st.builds(ClientText, st.text(st.characters(codec="utf-8") | st.just("\ud800"))),
    st.builds(TypedText, st.integers(0, 99), st.text()),
    st.integers(0, 5).map(lambda n: Voiced(1, 2, 3, n, sound(n, 100 * n), last=n == 0)),
    st.just(Encoded(1, 2, 3, 0, np.ones((2, 3), np.float32), None)),
    st.just(InputEnded(7)),
)


def same(a: StoredItem, b: StoredItem) -> bool:
    def content(item: StoredItem) -> list[object]:
        values = [getattr(item, entry.name) for entry in fields(item)]
        return [(v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v for v in values]

    return type(a) is type(b) and content(a) == content(b)


@settings(deadline=None, derandomize=True)
@given(items=st.lists(OTHERS | st.builds(frame, st.integers(0, 300)) | st.lists(st.integers(0, 9), max_size=99)))
def test_what_goes_in_comes_out(items: list[StoredItem | list[int]]) -> None:
    taken: list[StoredItem] = []
    for item in items:
        taken += map(frame, range(len(item))) if isinstance(item, list) else [item]
    back = list(from_rows(to_rows(taken)))
    assert len(back) == len(taken)
    assert all(map(same, taken, back))


def test_frames_that_follow_one_another_share_a_row() -> None:
    assert len(list(to_rows(map(frame, range(50))))) == 1
    assert len(list(to_rows(map(frame, (0, 1, 3, 4))))) == 2


@pytest.mark.parametrize(
    "row",
    [
        Row("{"),
        Row('{"type":"Client"}'),
        Row('{"type":"Client","text":5}'),
        Row('{"type":"Audio","start_sample":0,"probabilities":"AAA="}', b"\0" * 640),
        Row('{"type":"Audio","start_sample":-1,"probabilities":"AA=="}', b"\0" * 640),
        Row('{"type":"Audio","start_sample":0,"probabilities":"AA=="}', b"\0" * 641),
    ],
    ids=lambda row: row.line,
)
def test_a_damaged_row_says_so(row: Row) -> None:
    with pytest.raises(LogFormatError):
        list(from_rows([row]))
