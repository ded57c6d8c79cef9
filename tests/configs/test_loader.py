"""The loader: what it accepts, and the one line it says when it does not."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml
from pydantic import Field

from configs.loader import ConfigError, Settings, load_config, packaged_config, parse_config


class Detector(Settings):
    name: Literal["webrtc", "silero"] = "webrtc"
    threshold: float | None = Field(default=None, gt=0, lt=1)


@dataclass(frozen=True, slots=True)
class Optimizer:
    learning_rate: float = 1e-3
    betas: tuple[float, ...] = (0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Run:
    steps: int
    optimizer: Optimizer = field(default_factory=Optimizer)
    stages: list[Optimizer] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)


class Program(Settings):
    language: str = "eng"
    record: bool = False
    detector: Detector = Detector()
    run: Run | None = None


def complaint(text: str, shape: type = Program) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, shape, source="f.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nested_settings_keep_defaults_for_what_is_left_out() -> None:
    program = parse_config("detector:\n  name: silero\nrun:\n  steps: 10\n", Program, source="f.yaml")
    assert program == Program(detector=Detector(name="silero"), run=Run(steps=10))


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_file_gives_the_defaults(text: str) -> None:
    assert parse_config(text, Program, source="f.yaml") == Program()


def test_a_dataclass_is_a_shape_too() -> None:
    run = parse_config("steps: 3\nweights: {eng: 1, fra: 2e-1}\n", Run, source="f.yaml")
    assert run == Run(steps=3, weights={"eng": 1.0, "fra": 0.2})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("3", 3),
        ("-2.5E+2", -250.0),
        (".5", 0.5),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("true", True),
        ("null", None),
        ("", None),
        ("0123", 123),
        ("1_000", "1_000"),
        ("2026-11-23", "2026-11-23"),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: object) -> None:
    content = parse_config(f"value: {text}\n", dict[str, object], source="f.yaml")
    assert content == {"value": value}
    assert type(content["value"]) is type(value)


def test_an_unknown_setting_names_file_line_and_the_likely_one() -> None:
    assert complaint("language: fra\ndetector:\n  treshold: 0.5\n") == (
        "f.yaml:3: unknown setting detector.treshold; did you mean threshold?"
    )


def test_an_unknown_setting_far_from_all_lists_what_there_is() -> None:
    assert complaint("zebra: 1\n") == "f.yaml:1: unknown setting zebra; known: detector, language, record, run"


def test_unknown_settings_are_found_in_dataclasses_lists_and_behind_optionals() -> None:
    text = "run:\n  steps: 1\n  stages:\n    - learning_rate: 0.1\n    - learning_rat: 0.1\n"
    assert complaint(text) == ("f.yaml:5: unknown setting run.stages.1.learning_rat; did you mean learning_rate?")


def test_a_wrong_choice_names_the_likely_one() -> None:
    assert complaint("\ndetector:\n  name: silerro\n") == (
        "f.yaml:3: detector.name: should be 'webrtc' or 'silero', not 'silerro'; did you mean silero?"
    )


def test_a_value_out_of_range_says_the_range() -> None:
    assert complaint("detector: {threshold: 2}\n") == ("f.yaml:1: detector.threshold: should be less than 1, not 2")


def test_what_a_structure_finds_wrong_in_itself_is_not_followed_by_all_that_it_holds() -> None:
    @dataclass(frozen=True)
    class Band:
        low: int = 1
        high: int = 2

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError(f"low is {self.low}, above high")

    assert complaint("low: 3", Band) == "f.yaml:1: the settings: low is 3, above high"


def test_a_missing_setting_points_at_the_part_that_lacks_it() -> None:
    assert complaint("record: true\nrun:\n  optimizer: {}\n") == "f.yaml:2: run.steps is missing"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("language:", "language: should be text, not nothing"),
        ("language: 3", "language: should be text, not 3"),
        ("record: maybe", "record: should be true or false, not 'maybe'"),
        ("detector: silero", "detector: should be settings, as {name: value}, not 'silero'"),
        ("run: true", "run: should be settings, as {name: value}, not true"),
        ("detector: {name: }", "detector.name: should be 'webrtc' or 'silero', not nothing"),
        ("run: {steps: 1.5}", "run.steps: should be a whole number, not 1.5"),
        ("run: {steps: 1, stages: 2}", "run.stages: should be a list, not 2"),
    ],
)
def test_a_value_of_another_kind_is_told_without_pythons_words(text: str, told: str) -> None:
    assert complaint(text) == f"f.yaml:1: {told}"


def test_several_problems_are_counted() -> None:
    assert complaint("langage: x\nrecord: 17\n").endswith("did you mean language? (and 1 more)")


def test_a_setting_given_twice_is_refused() -> None:
    assert complaint("language: eng\nrecord: true\nlanguage: fra\n") == "f.yaml:3: language is set twice"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2\n", "f.yaml:2: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: \x00\n", "f.yaml: not YAML: unacceptable character #x0000: special characters are not allowed"),
        ("- a\n", "f.yaml:1: expected settings, one `name: value` a line"),
        ("just words\n", "f.yaml:1: expected settings, one `name: value` a line"),
        ("a: !!python/object:os.system x\n", "f.yaml:1: not YAML: could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: not YAML: but found another document"),
        ("a: 1\n? [b, c]\n: 2\n", "f.yaml:2: the name of a setting must be a word"),
        ("a: &x [*x]\n", "f.yaml: an alias that holds itself"),
    ],
)
def test_what_is_not_settings_at_all(text: str, message: str) -> None:
    assert complaint(text).startswith(message)


def test_a_missing_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file or directory"):
        load_config(tmp_path / "none.yaml", Program)
    (tmp_path / "latin.yaml").write_bytes(b"language: fran\xe7ais\n")
    with pytest.raises(ConfigError, match="not a text file in UTF-8"):
        load_config(tmp_path / "latin.yaml", Program)


def test_every_packaged_file_is_found_by_name_and_is_strict_yaml() -> None:
    folder = packaged_config("agent.yaml").parent
    names = [str(path.relative_to(folder)) for path in folder.rglob("*.yaml")]
    assert "agent.yaml" in names
    for name in names:
        assert load_config(packaged_config(name), dict[str, object]), name
        yaml.safe_load(packaged_config(name).read_text(encoding="utf-8"))


def test_a_packaged_name_misspelt() -> None:
    with pytest.raises(ConfigError, match=r"no settings called agnet\.yaml; did you mean agent\.yaml\?"):
        packaged_config("agnet.yaml")
