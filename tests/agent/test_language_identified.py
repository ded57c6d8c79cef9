"""Which language is spoken is found out for each turn: by the turn machine's rules, and at the command line."""

import io
import json
from dataclasses import asdict
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from agent.core.events import Heard, LanguageIdentified, ReplySentence, TurnCommitted
from agent.core.inputs import Decode, Encoded, EncodeSpeech, InputEnded, SettingsChanged, Think, TypedText
from agent.language_choice import is_open, named
from agent.metrics import Metrics
from agent.terminal import Screen
from lcm.bundle import Bundle
from lcm.bundle_writer import BundleWriter
from lcm.space.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from lcm.space.spoken_language import PART, SpokenLanguage, SpokenLanguageConfig, phone_shares
from tests.agent.talk import Conversation
from tests.lcm.space.golden_bundle import NEWER, write_golden_bundle
from tests.noema_command import Noema
from tests.small_bundle import LANGUAGES

ANY = ("eng", "fra", "deu")


@pytest.fixture(scope="session")
def french_bundle(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small bundle, with a head that takes whatever it hears for French rather than for anything else."""
    folder = Path(copytree(small_bundle, tmp_path_factory.mktemp("french") / "bundle"))
    bundle = Bundle.open(folder)
    encoder = bundle.part("speech_encoder")
    frames = SpeechEncoder(SpeechEncoderConfig(**encoder.config)).frames(torch.zeros(1, 80, 80), torch.tensor([80]))
    config = SpokenLanguageConfig(LANGUAGES, phone_shares(frames).shape[1], encoder.hashes)
    head = SpokenLanguage(config)
    torch.nn.init.zeros_(head.head.weight)
    with torch.no_grad():
        head.head.bias.copy_(torch.tensor([2.0 * (language == "fra") for language in LANGUAGES]))
    BundleWriter(folder).write_part(PART, asdict(config), head.state_dict(), bundle.space_id)
    return folder


# The turn machine.


def test_a_turn_is_in_the_language_that_is_found_out_and_so_is_its_reply() -> None:
    talk = Conversation(candidates=ANY)
    talk.spoken = "fra"
    talk.say()
    [request] = talk.of(EncodeSpeech)
    assert request.candidates == ANY
    [committed], [found] = talk.of(TurnCommitted), talk.of(LanguageIdentified)
    assert (committed.language, committed.reply_language) == ("", "")
    assert (found.turn, found.language, found.reply_language, found.probability) == (1, "fra", "fra", 0.9)
    assert [think.reply_language for think in talk.of(Think)] == ["fra"]
    assert {decode.language for decode in talk.of(Decode)} == {"fra"}
    assert talk.of(ReplySentence)[0].language == talk.of(Heard)[0].language == "fra"
    assert {entry.language for entry in talk.machine.conversation.view()} == {"fra"}


def test_each_turn_has_its_own_language() -> None:
    talk = Conversation(candidates=ANY)
    for language in ("fra", "deu", "eng"):
        talk.spoken = language
        talk.say()
    assert [event.language for event in talk.of(ReplySentence)] == ["fra", "deu", "eng"]


def test_an_interpreter_says_all_of_them_in_one_language() -> None:
    talk = Conversation(candidates=ANY, task="translate", reply_language="spa")
    talk.spoken = "deu"
    talk.say()
    assert talk.of(TurnCommitted)[0].reply_language == "spa"
    assert (talk.of(LanguageIdentified)[0].language, talk.of(LanguageIdentified)[0].reply_language) == ("deu", "spa")
    assert (talk.of(Heard)[0].language, talk.of(ReplySentence)[0].language) == ("deu", "spa")


def test_one_language_is_never_found_out() -> None:
    talk = Conversation(language="fra")
    talk.say()
    assert talk.of(EncodeSpeech)[0].candidates == ()
    assert talk.of(LanguageIdentified) == []


def test_a_language_that_is_named_from_then_on_wins() -> None:
    talk = Conversation(candidates=ANY)
    talk.spoken = "fra"
    talk.say()
    talk.push(SettingsChanged(talk.sample, "deu", None, "converse"))
    talk.say()
    talk.push(SettingsChanged(talk.sample, "eng", None, "converse", ANY))
    talk.say()
    assert [event.language for event in talk.of(TurnCommitted)] == ["", "deu", ""]
    assert [event.turn for event in talk.of(LanguageIdentified)] == [1, 3]


def test_typed_text_is_in_the_first_unless_it_says_otherwise() -> None:
    talk = Conversation(language="eng", candidates=ANY)
    talk.push(TypedText(0, "Hello."))
    talk.push(TypedText(0, "Bonjour.", "fra"))
    assert [event.language for event in talk.of(TurnCommitted)] == ["eng", "fra"]
    assert talk.of(LanguageIdentified) == []


def test_the_first_piece_of_a_long_turn_decides() -> None:
    talk = Conversation(candidates=ANY)
    talk.answers = False
    talk.say(12.0)
    first, second = talk.of(EncodeSpeech)
    assert second.candidates == ANY, "nobody knew yet"
    for request, talk.spoken in ((first, "fra"), (second, "deu")):
        talk.take(request)
    assert [event.language for event in talk.of(LanguageIdentified)] == ["fra"]
    assert talk.of(Think)[0].reply_language == "fra"


def test_what_is_known_is_not_asked_again() -> None:
    talk = Conversation(candidates=ANY)
    talk.spoken = "fra"
    talk.say(12.0)
    assert [(request.language, request.candidates) for request in talk.of(EncodeSpeech)] == [("eng", ANY), ("fra", ())]
    kinds = [type(event) for event in talk.events]
    assert kinds.index(LanguageIdentified) < kinds.index(TurnCommitted)
    assert talk.of(TurnCommitted)[0].language == "fra"


def test_an_answer_without_a_language_cannot_have_been_given() -> None:
    talk = Conversation(candidates=ANY)
    talk.answers = False
    talk.say()
    [request] = talk.of(EncodeSpeech)
    with pytest.raises(AssertionError, match="which language"):
        talk.push(Encoded(talk.sample, request.request, request.turn, 0, np.ones((1, 4), np.float32), None))


def test_the_screen_says_how_sure_it_is() -> None:
    shown = io.StringIO()
    talk = Conversation(candidates=ANY)
    talk.spoken = "fra"
    talk.say()
    talk.push(InputEnded(talk.sample))
    play(Screen(Metrics(), Console(file=shown, width=100)), talk)
    assert "≈ heard (fra 90 %)  words" in shown.getvalue()
    assert "→ reply (fra)  sentence 0" in shown.getvalue()


def play(screen: Screen, talk: Conversation) -> None:
    for event in talk.events:
        with pytest.raises(StopIteration):  # a coroutine that never waits ends at once
            screen.on_event(event).send(None)


# The command line.


def test_a_choice_names_one_or_leaves_several_open() -> None:
    assert (named("eng"), is_open("eng")) == (["eng"], False)
    assert (named("eng, fra"), is_open("eng, fra")) == (["eng", "fra"], True)
    assert is_open("auto")


@pytest.mark.parametrize(
    ("choice", "language", "probability"),
    [("auto", "fra", 0.71), ("eng,fra", "fra", 0.88), ("eng,deu_Latn", "eng", 0.5), ("spa,spa", "spa", None)],
)
def test_a_recording_is_answered_in_what_is_spoken(
    noema: Noema, french_bundle: Path, recording: Path, choice: str, language: str, probability: float | None
) -> None:
    result = noema("replay", recording, "--language", choice, "--json", "--text", bundle=french_bundle)
    assert (result.code, result.err) == (0, "")
    turns: Any = result.json["turns"]
    assert len(turns) == 2
    for turn in turns:
        assert (turn["language"], turn["language_probability"]) == (language, probability)
        assert turn["reply_language"] == language
        assert turn["reply"].startswith(f"{language} reply")


def test_it_is_shown_and_reported(noema: Noema, french_bundle: Path, recording: Path, tmp_path: Path) -> None:
    report = tmp_path / "r.html"
    (tmp_path / "agent.yaml").write_text("language: eng,fra\n")
    options = ("--task", "translate", "--to", "deu", "--text", "--report", report, "--config", tmp_path / "agent.yaml")
    result = noema("replay", recording, *options, bundle=french_bundle)
    assert result.code == 0
    assert result.out.count("heard (fra 88 %, a paraphrase)") == result.out.count("reply (deu)") == 2
    assert report.read_text().count("heard, as a paraphrase (fra, 88 % sure)") == 2


@pytest.mark.parametrize("bundle", ["french", "golden"])
def test_a_session_replays_and_recomputes(
    noema: Noema, french_bundle: Path, recording: Path, tmp_path: Path, bundle: str
) -> None:
    folder = french_bundle if bundle == "french" else write_golden_bundle(tmp_path / "golden", NEWER)
    options = ("--language", "auto", "--task", "translate", "--to", "deu", "--text")
    assert noema("replay", recording, "--record", "--out", tmp_path, *options, bundle=folder).code == 0
    [session] = (tmp_path / "sessions").iterdir()
    assert "events, as in" in noema("replay", session, "--against", tmp_path / f"{recording.stem}.events.jsonl").out
    assert "lowest cosine 1.0" in noema("replay", session, "--recompute", bundle=folder).out
    inputs = session / "inputs.jsonl"
    lines = [json.loads(line) for line in inputs.read_text().splitlines()]
    found = [line["language"] for line in lines if line["type"] == "Encoded"]
    assert len(found) == 2
    other = {"fra": "eng", "fra_Latn": "eng_Latn", "eng_Latn": "fra_Latn"}[found[0]]
    inputs.write_text(inputs.read_text().replace(f'"language":"{found[0]}"', f'"language":"{other}"', 1))
    noema("replay", session, "--recompute", bundle=folder).fails(1, f"the language {other} (now {found[0]})")


def test_files_are_translated_and_encoded_from_what_is_spoken(
    noema: Noema, french_bundle: Path, recording: Path, tmp_path: Path
) -> None:
    translated = noema("translate", recording, "--language", "auto", "--to", "deu", "--json", bundle=french_bundle)
    items: Any = translated.json["items"]
    assert [(item["language"], item["language_probability"]) for item in items] == [("fra", 0.71)] * 2
    concepts = tmp_path / "c.npz"
    encoded = noema("encode", recording, "--language", "eng,fra", "--out", concepts, bundle=french_bundle)
    assert encoded.out.count("(fra 88 %)") == 2
    with np.load(concepts) as file:
        assert (str(file["language"]), list(file["languages"])) == ("fra", ["fra", "fra"])
    assert noema("decode", concepts, "--language", "deu", bundle=french_bundle).code == 0
    rows: Any = noema("encode", recording, "--language", "auto", "--json", bundle=french_bundle).json["sentences"]
    assert [row["language"] for row in rows] == ["fra", "fra"]


@pytest.mark.parametrize(
    "command",
    [
        ("translate", "Hello.", "--to", "fra", "--language", "auto"),
        ("encode", "--language", "eng,fra"),
        ("translate", "RECORDING", "Hello.", "--to", "fra", "--language", "auto"),
        ("chat", "--language", "auto"),
    ],
)
def test_of_text_one_language_has_to_be_named(noema: Noema, recording: Path, command: tuple[str, ...]) -> None:
    words = [str(recording) if word == "RECORDING" else word for word in command]
    noema(*words).fails(2, "the language of text is not found out; instead of")


def test_what_cannot_be_told_apart_is_said_before_anybody_speaks(noema: Noema, recording: Path) -> None:
    for command in (("replay", recording, "--text"), ("translate", recording, "--to", "fra")):
        noema(*command, "--language", "auto").fails(2, "cannot tell spoken languages apart")
        noema(*command, "--language", "eng,tlh").fails(2, "'tlh'")
    assert noema("translate", recording, "--to", "fra", "--language", "spa,").code == 2
