"""Inputs and events as lines: what is written is what is read, bit for bit."""

from dataclasses import fields
from functools import reduce
from operator import or_
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.events import ConceptsKnown, FloatArray, Heard, ReplyAudio
from agent.core.input_log import (
    LogFormatError,
    event_line,
    input_from,
    input_line,
    parse_line,
    probability_byte,
    probability_from_byte,
    quantized_probability,
)
from agent.core.inputs import AudioInput, Encoded, Input, SettingsChanged, Thought, TypedText, Voiced
from audio.frames import from_pcm16

_TEXT = st.text(st.characters(codec="utf-8") | st.just("\ud800"))
"""A client may send half a character: JSON can say it"""


def arrays(dimensions: int) -> st.SearchStrategy[FloatArray]:
    """Any numbers, those included that are none; of one size, which no line checks."""
    size = 3**dimensions
    raw = st.binary(min_size=4 * size, max_size=4 * size)
    return raw.map(lambda content: np.frombuffer(content, np.float32).reshape([3] * dimensions))


def values(hint: Any, dimensions: int = 1) -> st.SearchStrategy[Any]:
    """Whatever a field of this type may hold."""
    inner = get_args(hint)
    if hint == FloatArray:
        return arrays(dimensions)
    if isinstance(hint, UnionType):
        return reduce(or_, (values(part, dimensions) for part in inner))
    if get_origin(hint) is Literal:
        return st.sampled_from(inner)
    if get_origin(hint) is tuple:
        return st.lists(values(inner[0]), min_size=3, max_size=3).map(tuple)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(0, 2**63 - 1),
        float: st.floats(0, 1),
        bool: st.booleans(),
        str: _TEXT,
        NoneType: st.none(),
    }
    return simple[hint]


def any_of(kind: type[Input]) -> st.SearchStrategy[Input]:
    dimensions = 2 if kind is Encoded else 1
    given_fields = {name: values(hint, dimensions) for name, hint in get_type_hints(kind).items()}
    if kind is Voiced:
        given_fields["samples"] = st.binary(max_size=40).map(
            lambda raw: from_pcm16(np.frombuffer(raw[: len(raw) // 2 * 2], "<i2"))
        )
    return st.builds(kind, **given_fields)


@pytest.mark.parametrize("kind", [kind for kind in get_args(Input) if kind is not AudioInput])
@settings(deadline=None, derandomize=True, max_examples=50)
@given(data=st.data())
def test_every_input_comes_back_as_it_was(kind: type[Input], data: st.DataObject) -> None:
    item = data.draw(any_of(kind))
    line = input_line(item, 7)
    assert "\n" not in line
    sound = item.samples if isinstance(item, Voiced) else None
    back = input_from(parse_line(line.encode().decode()), sound)
    assert type(back) is kind
    for entry in fields(item):
        was, now = getattr(item, entry.name), getattr(back, entry.name)
        if isinstance(was, np.ndarray):
            assert (was.tobytes(), was.shape) == (now.tobytes(), now.shape)
        else:
            assert was == now


def test_concepts_are_known_by_their_shape_because_their_last_digits_differ() -> None:
    a, b = (ConceptsKnown(1, 1, "user", 0, np.full((2, 3), x, np.float32), "eng") for x in (0.1, 0.1000001))
    assert event_line(a) == event_line(b)
    assert '"shape":[2,3]' in event_line(a)


def test_a_concept_survives_bit_for_bit() -> None:
    concepts = np.random.default_rng(1).normal(size=(3, 7)).astype(np.float32)
    line = input_line(Encoded(16, 2, 1, 0, concepts, ("a", "b", "ç 🙂")))
    back = input_from(parse_line(line))
    assert isinstance(back, Encoded)
    assert back.concepts.tobytes() == concepts.tobytes()
    assert back.texts == ("a", "b", "ç 🙂")


def test_a_language_that_was_found_out_survives_and_older_lines_have_none() -> None:
    concepts = np.zeros((1, 2), np.float32)
    line = input_line(Encoded(16, 2, 1, 0, concepts, None, language="fra", probability=0.97))
    back = input_from(parse_line(line))
    assert isinstance(back, Encoded)
    assert (back.language, back.probability) == ("fra", 0.97)
    older = {name: value for name, value in parse_line(line).items() if name not in {"language", "probability"}}
    item = input_from(older)
    assert isinstance(item, Encoded)
    assert (item.language, item.probability) == (None, None)
    changed = SettingsChanged(3, "eng", None, "converse", ("eng", "fra"))
    assert input_from(parse_line(input_line(changed))) == changed


def test_inputs_without_arrays_survive() -> None:
    for item in (TypedText(3, "Hello\nthere", None), TypedText(0, "", "fra")):
        assert input_from(parse_line(input_line(item))) == item
    thought = input_from(parse_line(input_line(Thought(9, 1, 1, None, "words", last=False))))
    assert isinstance(thought, Thought)
    assert thought.concept is None


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", '{"type": 3}', '{"no": "type"}'],
)
def test_a_damaged_line_says_so(line: str) -> None:
    with pytest.raises(LogFormatError):
        parse_line(line)


@pytest.mark.parametrize(
    "line", ['{"type":"Telepathy"}', '{"type":"TypedText"}', '{"type":"Encoded","concepts":{"float32":"?"}}']
)
def test_a_line_that_is_no_input_says_so(line: str) -> None:
    with pytest.raises(LogFormatError):
        input_from(parse_line(line))


@pytest.mark.parametrize(
    "changed",
    [
        {"at_sample": []},
        {"at_sample": True},
        {"turn": -1},
        {"request": 2**63},
        {"piece": 1.5},
        {"texts": "words"},
        {"texts": ["one", 2]},
        {"texts": ["one"]},
        {"concepts": None},
        {"concepts": {"shape": [6], "float32": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}},
        {"concepts": {"shape": [10**30], "float32": ""}},
        {"last": 1},
        {"language": 5},
        {"probability": 1.5},
        {"probability": float("nan")},
    ],
    ids=str,
)
def test_a_field_of_another_type_or_out_of_range_says_so(changed: dict[str, object]) -> None:
    content = parse_line(input_line(Encoded(16, 2, 1, 0, np.ones((2, 3), np.float32), ("a", "b"))))
    with pytest.raises(LogFormatError, match=f"damaged Encoded.*({'|'.join(changed)}|one concept|dimension)"):
        input_from(content | changed)


def test_a_line_nested_beyond_all_measure_says_so() -> None:
    with pytest.raises(LogFormatError, match="not a line"):
        parse_line('{"type":' + "[" * 200_000)


def test_every_probability_survives() -> None:
    for value in np.linspace(-0.1, 1.1, 1000):
        kept = quantized_probability(float(value))
        assert probability_from_byte(probability_byte(kept)) == kept


def test_equal_events_are_equal_lines_and_other_sound_is_another_line() -> None:
    a = ReplyAudio(1, 1, 0, 0, np.zeros(10, np.float32))
    b = ReplyAudio(1, 1, 0, 0, np.full(10, 1 / 32768, np.float32))
    assert event_line(a) == event_line(ReplyAudio(1, 1, 0, 0, np.zeros(10, np.float32)))
    assert event_line(a) != event_line(b)
    assert "où" in event_line(Heard(1, 1, "où", "fra", paraphrase=True))
