"""Settings: the file that ships is what the code defaults to, and wrong ones are refused with one line."""

from pathlib import Path

import pytest

from agent.config import AgentConfig, load_config
from agent.errors import exit_code


def test_the_file_that_ships_holds_the_defaults() -> None:
    assert load_config(None) == AgentConfig()


def test_a_copy_may_leave_things_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("language: fra\nsegmenter:\n  hangover_ms: 600\n")
    config = load_config(path)
    assert config.language == "fra"
    assert config.segmenter.options("silero").hangover_ms == 600
    assert config.segmenter.options("silero").pre_roll_ms == 300


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("languge: fra", "did you mean language"),
        ("task: sing", "translate"),
        ("thinker:\n  variant: two_towr", r"mine\.yaml:2: thinker\.variant: .* did you mean two_tower\?"),
        ("segmenter:\n  hangover_ms: -1", "hangover_ms"),
        ("segmenter:\n  max_utterance_ms: 60000", "less than or equal to 30000"),
        ("[1, 2]", "expected settings"),
        (":", "mine.yaml"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(Exception, match=told) as caught:
        load_config(path)
    assert exit_code(caught.value) == 2


def test_times_that_contradict_each_other_are_refused() -> None:
    config = AgentConfig.model_validate({"segmenter": {"tail_ms": 400}})
    with pytest.raises(Exception, match="tail_ms") as caught:
        config.segmenter.options("silero")
    assert exit_code(caught.value) == 2


def test_a_detector_brings_its_thresholds_unless_they_are_set() -> None:
    config = AgentConfig()
    assert config.segmenter.options("silero").threshold != config.segmenter.options("webrtc").threshold
    mine = AgentConfig.model_validate({"segmenter": {"threshold": 0.7, "release_threshold": 0.4}})
    assert mine.segmenter.options("silero").threshold == 0.7
