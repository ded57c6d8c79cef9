"""The mini bundle, as it ships: whole, small, of one space, and able to do what the README says it does."""

import pytest
import torch

from audio.frames import VOICE_RATE
from audio.voice import Voice
from lcm.bundle import SHARD_BYTES, Bundle
from lcm.engine import Engine
from lcm.reply_bank import ReplyBank
from lcm.space import ConceptSpace

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


def test_every_file_is_as_it_was_made() -> None:
    Bundle.open("mini", verify=True)


def test_it_stays_small() -> None:
    files = Bundle.open("mini").description["files"]
    assert sum(size for size, _ in files.values()) <= 48e6
    assert max(size for size, _ in files.values()) <= SHARD_BYTES


def test_all_parts_belong_to_its_space() -> None:
    bundle = Bundle.open("mini")
    parts = {"text_encoder", "text_decoder", "speech_encoder", "base", "bank"}
    assert {bundle.part(name).name for name in bundle.parts} == parts
    assert bundle.languages == {"text": LANGUAGES, "speech": LANGUAGES}


def test_it_says_what_it_was_made_from() -> None:
    description = Bundle.open("mini").description
    assert description["license"] == "CC-BY-SA-4.0"
    assert description["training"]["data"]
    assert description["training"]["commit"]


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


def test_it_answers_a_greeting_in_every_language(mini: ConceptSpace) -> None:
    engine, bank = Engine.load("mini", space=mini, device="cpu"), ReplyBank.load("mini")
    greeting = mini.encode_text(["Hello, how are you?"], "eng")
    [reply] = engine.predict([greeting], [torch.zeros(1)], max_concepts=1)
    answers = {language: bank.nearest(reply[0], language).text for language in LANGUAGES}
    assert all(answers.values())
    assert len(set(answers.values())) == 4
