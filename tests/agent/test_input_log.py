"""Inputs and events as lines: what is written is what is read, bit for bit."""

import numpy as np
import pytest

from agent.events import Heard, ReplyAudio
from agent.input_log import (
    LogFormatError,
    event_line,
    input_from,
    input_line,
    parse_line,
    probability_byte,
    probability_from_byte,
    quantized_probability,
)
from agent.inputs import Encoded, SettingsChanged, Thought, TypedText


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
