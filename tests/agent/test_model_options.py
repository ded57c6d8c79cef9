"""How the models are loaded: in which precision, whose modules, and only what a command needs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from agent.commands.options import BACKENDS, PRECISIONS, VARIANTS
from agent.config import Backend, Precision, Variant
from agent.recordings.recorded import read_info
from lcm.models import variants
from lcm.space import backend
from tests.lcm.space.golden_bundle import NEWER, write_golden_bundle
from tests.noema_command import Noema

ENGLISH, FRENCH = NEWER["eng"], "speech_fra.pt"


@pytest.fixture
def golden_bundle(tmp_path: Path) -> Path:
    """SONAR's layout: a checkpoint for each part, an encoder for each spoken language."""
    return write_golden_bundle(tmp_path / "golden", NEWER)


@pytest.fixture
def without(golden_bundle: Path) -> Callable[..., Path]:
    """The golden bundle with checkpoints that whoever loads them finds damaged."""

    def damaged(*files: str) -> Path:
        for file in files:
            path = golden_bundle / file
            path.write_bytes(b"\xff" * path.stat().st_size)
        return golden_bundle

    return damaged


def test_options_settings_and_space_know_the_same_names() -> None:
    """Written three times: options must not wait for torch, and settings not for options."""
    assert get_args(Precision) == PRECISIONS == get_args(backend.Precision)
    assert get_args(Backend) == BACKENDS == get_args(backend.BackendName)
    assert get_args(Variant) == VARIANTS == tuple(variants.VARIANTS)


def encoded(noema: Noema, *options: object) -> np.ndarray:
    result = noema("encode", "The cat is hungry.", "--json", *options)
    assert result.code == 0, result.err
    sentences: Any = result.json["sentences"]
    return np.array([sentence["concept"] for sentence in sentences])


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "int8"])
def test_less_precision_gives_nearly_the_same_concepts(noema: Noema, precision: str) -> None:
    if precision == "int8":
        pytest.importorskip("torchao", reason="torchao missing: pip install torchao")
    usual, rounded = encoded(noema), encoded(noema, "--precision", precision)
    assert not np.array_equal(usual, rounded)
    cosine = (usual * rounded).sum() / np.linalg.norm(usual) / np.linalg.norm(rounded)
    assert cosine > 0.999


def test_the_settings_say_the_precision_too(noema: Noema, tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text("precision: bfloat16\n")
    rounded = encoded(noema, "--precision", "bfloat16")
    assert np.array_equal(encoded(noema, "--config", tmp_path / "agent.yaml"), rounded)
    (tmp_path / "agent.yaml").write_text("precision: bfloat15\n")
    noema("encode", "Hello.", "--config", tmp_path / "agent.yaml").fails(2, "precision")


@pytest.mark.parametrize(
    "command",
    [
        ("translate", "Hello.", "--to", "fra"),
        ("decode", "c.npz", "--language", "fra"),
        ("chat",),
        ("replay", "RECORDING"),
    ],
    ids=lambda command: command[0],
)
def test_int8_without_torchao_says_what_to_install(
    noema: Noema, recording: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    words = [str(recording) if word == "RECORDING" else word for word in command]
    noema(*words, "--precision", "int8").fails(2, "int8 needs torchao")


def test_a_backend_that_is_not_here_says_so(noema: Noema, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sonar", None)
    noema("translate", "Hello.", "--to", "fra", "--backend", "sonar-space").fails(2, "sonar-space is not installed")
    assert noema("translate", "Hello.", "--to", "fra", "--backend", "jax").code == 2


def test_doctor_says_what_is_used(noema: Noema) -> None:
    findings: Any = noema("doctor", "--json", "--precision", "bfloat16").json["findings"]
    [space] = [finding["detail"] for finding in findings if finding["part"] == "concept space"]
    assert space.startswith("bfloat16 on cpu, backend noema; ")


def test_a_session_is_recomputed_with_the_precision_that_it_had(
    noema: Noema, golden_bundle: Path, recording: Path, tmp_path: Path
) -> None:
    interpreting = ("--task", "translate", "--to", "fin", "--text")
    done = noema("replay", recording, "--record", *interpreting, "--precision", "bfloat16", bundle=golden_bundle)
    assert done.code == 0
    [session] = (tmp_path / "sessions").iterdir()
    assert read_info(session).precision == "bfloat16"
    assert "lowest cosine 1.0" in noema("replay", session, "--recompute", bundle=golden_bundle).out
    again = noema("replay", session, "--recompute", "--precision", "float32", bundle=golden_bundle)
    again.fails(1, "recomputing differs")


def test_a_session_that_says_nothing_of_precision_had_float32(noema: Noema, recording: Path, tmp_path: Path) -> None:
    assert noema("replay", recording, "--record", "--text").code == 0
    [session] = (tmp_path / "sessions").iterdir()
    description = json.loads((session / "session.json").read_text())
    del description["precision"], description["backend"]
    (session / "session.json").write_text(json.dumps(description))
    assert "lowest cosine 1.0" in noema("replay", session, "--recompute").out


def test_translating_text_needs_no_speech_encoder(noema: Noema, without: Callable[..., Path]) -> None:
    bundle = without(ENGLISH, FRENCH)
    assert noema("translate", "Good morning.", "--to", "fin", bundle=bundle).code == 0
    assert noema("chat", "--task", "translate", "--to", "fin", stdin="Good morning.\n", bundle=bundle).code == 0


def test_encoding_text_needs_no_decoder(noema: Noema, without: Callable[..., Path]) -> None:
    bundle = without(ENGLISH, FRENCH, NEWER["text_decoder"])
    assert noema("encode", "Good morning.", bundle=bundle).code == 0
    noema("translate", "Good morning.", "--to", "fin", bundle=bundle).fails(1, NEWER["text_decoder"])


def test_encoding_speech_needs_the_encoder_of_its_language(
    noema: Noema, without: Callable[..., Path], recording: Path
) -> None:
    bundle = without(FRENCH, NEWER["text_encoder"], NEWER["text_decoder"])
    assert noema("encode", recording, bundle=bundle).code == 0
    noema("encode", recording, "--language", "fra", bundle=bundle).fails(1, FRENCH)


def test_decoding_needs_the_decoder(noema: Noema, golden_bundle: Path, without: Callable[..., Path]) -> None:
    concepts = noema("encode", "Good morning.", "--json", bundle=golden_bundle).out
    bundle = without(ENGLISH, FRENCH, NEWER["text_encoder"])
    assert noema("decode", "--language", "fin", stdin=concepts, bundle=bundle).code == 0


@pytest.mark.parametrize("command", ["translate", "replay"])
def test_interpreting_speech_needs_no_text_encoder(
    noema: Noema, without: Callable[..., Path], recording: Path, command: str
) -> None:
    bundle = without(FRENCH, NEWER["text_encoder"])
    task = () if command == "translate" else ("--task", "translate", "--text")
    assert noema(command, recording, "--to", "fin", *task, bundle=bundle).code == 0


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("translate", "Good morning.", "--to", "finnnish"), "'finnnish'"),
        (("translate", "Good morning.", "--language", "swaheli", "--to", "fin"), "'swaheli'"),
        (("translate", "RECORDING", "--language", "zul", "--to", "fin"), "'zul'"),
        (("translate", "Good morning.", "nowhere.wav", "--to", "fin"), "nowhere.wav: no such file"),
        (("encode", "RECORDING", "--language", "zul"), "'zul'"),
        (("chat", "--task", "translate", "--to", "finnnish"), "'finnnish'"),
        (("replay", "RECORDING", "--task", "translate", "--to", "finnnish"), "'finnnish'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_said_before_gigabytes_are_read(
    noema: Noema, without: Callable[..., Path], recording: Path, command: tuple[str, ...], message: str
) -> None:
    nothing_loads = without(ENGLISH, FRENCH, NEWER["text_encoder"], NEWER["text_decoder"])
    words = [str(recording) if word == "RECORDING" else word for word in command]
    result = noema(*words, stdin="Good morning.\n", bundle=nothing_loads)
    result.fails(2, message)


@pytest.mark.parametrize("command", [("chat",), ("replay", "RECORDING")], ids=lambda command: command[0])
def test_a_bundle_that_cannot_converse_says_what_it_can(
    noema: Noema, golden_bundle: Path, recording: Path, command: tuple[str, ...]
) -> None:
    words = [str(recording) if word == "RECORDING" else word for word in command]
    noema(*words, stdin="Hello.\n", bundle=golden_bundle).fails(2, "let it interpret: --task translate --to")
