"""The mini bundle, as it ships: whole, small, of one space, and able to do what the README says it does."""

import json
from pathlib import Path

import pytest
import torch

from audio.files import read_audio
from audio.frames import SAMPLE_RATE, VOICE_RATE
from audio.voice import Voice
from lcm.bundle import SHARD_BYTES, Bundle
from lcm.engine import Engine
from lcm.errors import BundleError
from lcm.models.variants import VARIANTS
from lcm.reply_bank import ReplyBank
from lcm.space import ConceptSpace

ROOT = Path(__file__).parents[2]
LANGUAGES = ["eng", "fra", "spa", "deu"]
SAME = {
    "eng": "Where is the station?",
    "fra": "Où est la gare ?",
    "spa": "¿Dónde está la estación?",
    "deu": "Wo ist der Bahnhof?",
}
OTHER = {
    "eng": "I bought a new car yesterday.",
    "fra": "J'ai acheté une nouvelle voiture hier.",
    "spa": "Ayer compré un coche nuevo.",
    "deu": "Ich habe gestern ein neues Auto gekauft.",
}


@pytest.fixture(scope="module")
def mini() -> ConceptSpace:
    return ConceptSpace.load("mini", device="cpu")


@pytest.mark.parametrize("name", ["mini", "mini-lcms"])
def test_every_file_is_as_it_was_made(name: str) -> None:
    Bundle.open(ROOT / "lcm" / "bundles" / name, verify=True)


@pytest.mark.parametrize("name", ["mini", "mini-lcms"])
def test_it_stays_small(name: str) -> None:
    files = Bundle.open(ROOT / "lcm" / "bundles" / name).description["files"]
    assert sum(size for size, _ in files.values()) <= 48e6
    assert max(size for size, _ in files.values()) <= SHARD_BYTES


def test_all_parts_belong_to_its_space() -> None:
    bundle = Bundle.open("mini")
    parts = {"text_encoder", "text_decoder", "speech_encoder", "spoken_language", "base", "bank"}
    assert {bundle.part(name).name for name in bundle.parts} == parts
    assert bundle.languages == {"text": LANGUAGES, "speech": LANGUAGES}


@pytest.mark.parametrize("name", ["mini", "mini-lcms"])
def test_it_says_what_it_was_made_from(name: str) -> None:
    description = Bundle.open(ROOT / "lcm" / "bundles" / name).description
    assert description["license"] == "CC-BY-SA-4.0"
    assert description["training"]["data"]
    assert description["training"]["commit"]


def test_what_holds_only_models_is_no_space() -> None:
    with pytest.raises(BundleError, match=r"mini-lcms only holds more models for .*mini; name that"):
        ConceptSpace.load("mini-lcms", device="cpu")


def test_a_translation_lies_nearer_than_another_sentence(mini: ConceptSpace) -> None:
    same = torch.cat([mini.encode_text([text], language) for language, text in SAME.items()])
    other = torch.cat([mini.encode_text([text], language) for language, text in OTHER.items()])
    similarity = torch.nn.functional.cosine_similarity(same[:, None], torch.cat([same, other])[None], dim=2)
    assert similarity[:, :4].min() > similarity[:, 4:].max()


def test_it_translates_an_everyday_question_from_and_to_every_language(mini: ConceptSpace) -> None:
    words = {"eng": "station", "fra": "gare", "spa": "estación", "deu": "bahnhof"}
    concepts = torch.cat([mini.encode_text([text], language) for language, text in SAME.items()])
    texts = {target: mini.decode_text(concepts, target) for target in LANGUAGES}
    right = sum(words[target] in text.casefold() for target in LANGUAGES for text in texts[target])
    assert right >= 12, texts  # of 16: it is small, and now and then a station becomes a garage


async def test_it_hears_the_voice_it_speaks_with(mini: ConceptSpace) -> None:
    async with Voice() as voice:
        spoken = [torch.from_numpy(await voice.synthesize(SAME[language], language)) for language in LANGUAGES]
    heard = mini.encode_speech(spoken, sample_rate=VOICE_RATE, language=LANGUAGES)
    same = torch.cat([mini.encode_text([text], language) for language, text in SAME.items()])
    other = torch.cat([mini.encode_text([text], language) for language, text in OTHER.items()])
    nearest = torch.nn.functional.normalize(heard, dim=1) @ torch.nn.functional.normalize(torch.cat([same, other])).T
    assert (nearest.argmax(dim=1) < 4).all()


async def test_it_tells_which_language_its_own_voice_speaks(mini: ConceptSpace) -> None:
    async with Voice() as voice:
        spoken = [torch.from_numpy(await voice.synthesize(OTHER[language], language)) for language in LANGUAGES]
    heard = mini.identify(spoken, sample_rate=VOICE_RATE)
    assert [utterance.language for utterance in heard] == LANGUAGES
    assert torch.equal(torch.stack([utterance.concept for utterance in heard]), mini.encode_speech(spoken, VOICE_RATE))


def test_it_tells_the_languages_of_the_sample_apart(mini: ConceptSpace) -> None:
    sound = torch.from_numpy(read_audio(ROOT / "agent" / "samples" / "first_words.opus"))
    segments = json.loads((ROOT / "agent" / "samples" / "first_words.json").read_text(encoding="utf-8"))["segments"]
    spoken = [sound[int(s["start_ms"] * SAMPLE_RATE / 1000) : int(s["end_ms"] * SAMPLE_RATE / 1000)] for s in segments]
    heard = mini.identify(spoken, languages=["fra", "eng"])
    assert [utterance.language for utterance in heard] == [s["language"] for s in segments]


def test_it_tells_the_languages_of_the_recorded_session_apart(mini: ConceptSpace) -> None:
    folder = ROOT / "tests" / "recordings" / "first_words"
    sound = torch.from_numpy(read_audio(folder / "audio.flac"))
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    taken = [event for event in events if event["type"] == "UtteranceTaken"]
    heard = mini.identify([sound[event["start_sample"] : event["end_sample"]] for event in taken])
    assert [utterance.language for utterance in heard] == ["eng", "fra"]  # «Good morning, …», «Je suis très fatigué.»


def test_it_answers_a_greeting_in_every_language(mini: ConceptSpace) -> None:
    engine, bank = Engine.load("mini", space=mini, device="cpu"), ReplyBank.load("mini")
    greeting = mini.encode_text(["Hello, how are you?"], "eng")
    [reply] = engine.predict([greeting], [torch.zeros(1)], max_concepts=1)
    answers = {language: bank.nearest(reply[0], language).text for language in LANGUAGES}
    assert all(answers.values())
    assert len(set(answers.values())) == 4


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_concept_model_answers_by_its_name(mini: ConceptSpace, variant: str) -> None:
    engine = Engine.load("mini", variant=variant, space=mini, device="cpu")
    context = mini.encode_text(["I bought a new car yesterday.", "What did it cost?"], "eng")
    [reply] = engine.predict([context], [torch.tensor([1, 0])], max_concepts=2, seeds=[0])
    assert 1 <= len(reply) <= 2
    assert bool(torch.isfinite(reply).all())
    assert all(text.strip() for text in mini.decode_text(reply, "eng"))
