"""The sample conversation, in two languages, with nobody to say who speaks which."""

import json

import pytest

from agent.commands.first_minute import SAMPLE
from tests.noema_command import noema_process


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["auto", "fra,eng"])
def test_every_turn_of_the_sample_is_heard_and_answered_in_its_own_language(choice: str) -> None:
    spoken = [segment["language"] for segment in json.loads(SAMPLE.with_suffix(".json").read_text())["segments"]]
    process = noema_process("replay", SAMPLE, "--language", choice, "--text", "--json")
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    turns = json.loads(out)["turns"]
    assert [turn["language"] for turn in turns] == spoken
    assert [turn["reply_language"] for turn in turns] == spoken
    assert all(0.5 < turn["language_probability"] <= 1 for turn in turns)
