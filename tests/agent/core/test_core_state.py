"""A core as bytes: all of it comes back, and nothing that is not ours."""

import json
import os
import pickle
from collections import OrderedDict, deque
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest

from agent.core.core_state import _digest, freeze, thaw
from agent.core.events import Speculated
from agent.core.inputs import InputEnded, TypedText
from agent.core.turn import TurnMachine
from agent.core.turn_options import TurnOptions
from agent.errors import StoreError
from tests.agent.talk import Conversation


def plain(value: Any, above: tuple[int, ...] = ()) -> Any:
    """Something that can be compared, whatever it was; of what lies within itself, how far above."""
    if id(value) in above:
        return "above", above.index(id(value))
    above = (id(value), *above)
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, value.tobytes()
    if isinstance(value, dict):
        return [(plain(key, above), plain(entry, above)) for key, entry in value.items()]
    if isinstance(value, list | tuple | deque):
        return [plain(entry, above) for entry in value]
    if is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__, [plain(getattr(value, entry.name), above) for entry in fields(value)]
    return (type(value).__name__, plain(vars(value), above)) if hasattr(value, "__dict__") else value


def test_a_machine_comes_back_with_everything_that_is_under_way() -> None:
    talk = Conversation(speculation=True, interruptible=True, adaptive_hangover=True)
    talk.say()
    talk.answers = False
    talk.say(0.6)
    talk.sound(0.3, speech=True)
    talk.push(TypedText(talk.sample, "Hello."))
    back = thaw(freeze(talk.machine))
    assert plain(back) == plain(talk.machine)
    assert back is not talk.machine


def test_what_is_one_thing_stays_one_thing() -> None:
    talk = Conversation(speculation=True)
    talk.sound(1.0, speech=True)
    talk.sound(0.2, speech=False)
    talk.machine = thaw(freeze(talk.machine))
    talk.sound(0.5, speech=False)
    talk.push(InputEnded(talk.sample))
    assert [event.used for event in talk.of(Speculated)] == [True]


def test_arrays_can_be_written_to() -> None:
    concept = thaw(freeze({"concept": np.ones(3, np.float32)}))["concept"]
    concept[0] = 2
    assert concept.tolist() == [2, 1, 1]


@pytest.mark.parametrize("value", [os.system, print, object(), lambda: None, np.random.default_rng(1)], ids=repr)
def test_what_is_no_plain_data_is_not_kept(value: object) -> None:
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        freeze(OrderedDict(value=value))


def state_with(content: bytes, **header: object) -> bytes:
    made_by = json.loads(freeze(TurnMachine(TurnOptions())).partition(b"\n")[0])
    return json.dumps(made_by | header).encode() + b"\n" + content


def test_a_change_of_what_a_class_builds_upon_makes_it_another_versions() -> None:
    modules = json.loads(freeze(TurnMachine(TurnOptions())).partition(b"\n")[0])["modules"]
    assert {"agent.core.answering", "agent.core.open_turns"} <= modules.keys()


class Harmful:
    """Its pickle asks for a call."""

    def __init__(self, call: Any, *args: Any) -> None:
        self._asked = (call, args)

    def __reduce__(self) -> Any:
        return self._asked


@pytest.mark.parametrize(
    "harm", [Harmful(os.getcwd), Harmful(eval, "1"), Harmful(__import__, "os"), Harmful(thaw, b"")], ids=repr
)
def test_a_state_that_somebody_else_wrote_calls_nothing(harm: Harmful) -> None:
    with pytest.raises(StoreError, match=r"damaged.*names"):
        thaw(state_with(pickle.dumps(harm)))


@pytest.mark.parametrize("name", ["copy", "copy.copy", "OrderedDict", "MAX_SILENT_TURNS"])
def test_what_stands_in_our_modules_and_is_no_class_of_ours_is_refused(name: str) -> None:
    module = "agent.core.open_turns"
    asked = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
    content = b"\x80\x04" + asked + b"\x93)R."  # protocol 4: call what has this name in this module
    with pytest.raises(StoreError, match=r"damaged.*names agent\.core\.open_turns"):
        thaw(state_with(content, modules={module: _digest(module)}))


@pytest.mark.parametrize("module", ["antigravity", "agent.recordings.recording"])
def test_a_state_of_other_modules_is_refused_before_they_are_imported(module: str) -> None:
    with pytest.raises(StoreError, match="no core is made of"):
        thaw(state_with(b"", modules={module: ""}))


@pytest.mark.parametrize("header", [{"python": "2.7"}, {"modules": {"agent.core.turn": "0"}}], ids=str)
def test_another_version_is_refused(header: dict[str, object]) -> None:
    with pytest.raises(StoreError, match="another version"):
        thaw(state_with(b"", **header))


@pytest.mark.parametrize("cut", [0, 5, 400, -1])
def test_a_damaged_state_says_so(cut: int) -> None:
    with pytest.raises(StoreError, match="damaged"):
        thaw(freeze(TurnMachine(TurnOptions()))[:cut])
