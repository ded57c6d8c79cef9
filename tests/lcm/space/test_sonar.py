"""SONAR's files: each is what its card says, or why it is not is told; what a bundle lacks can be fetched."""

from pathlib import Path

import pytest
import torch

from lcm.bundle import Bundle
from lcm.errors import BundleError, LanguageError
from lcm.fetched import fetched_bundles
from lcm.space.languages import Languages
from lcm.space.sonar import SPEECH_CARDS, TEXT_CARDS, TOKENIZER, Card, checkpoint_misfit, fetchable, misfit
from lcm.space.text_encoder import TextEncoder, TextEncoderConfig
from tests.lcm.space.golden_bundle import GOLDEN, SIZES
from tests.published_files import published

CARDS = [TOKENIZER, *TEXT_CARDS.values(), SPEECH_CARDS["eng"], SPEECH_CARDS["fra"]]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_what_is_published_fits_its_card(card: Card, tmp_path: Path) -> None:
    path = tmp_path / card.saved_as
    path.write_bytes(published(card))
    assert misfit(path, card) == ""


@pytest.mark.parametrize(
    ("file", "card", "told"),
    [
        ("sonar_text_encoder.pt", TEXT_CARDS["encoder"], "'embed.weight' is [316, 32], expected [256206, 1024]"),
        ("older_text_encoder.pt", TEXT_CARDS["encoder"], "'embed.weight' is [316, 32], expected [256206, 1024]"),
        ("older_speech_eng.pt", SPEECH_CARDS["eng"], "is [32, 160], expected [1024, 160]"),
        ("sonar_text_encoder.pt", SPEECH_CARDS["eng"], "there is no place for"),
        ("tokenizer.model", TOKENIZER, "it makes 316 tokens of its languages, not 256,206"),
        ("sonar_text_encoder.pt", TOKENIZER, "the tokenizer model cannot be read"),
        ("tokenizer.model", TEXT_CARDS["decoder"], "cannot be read as a checkpoint"),
    ],
)
def test_any_other_file_is_told(file: str, card: Card, told: str) -> None:
    assert told in misfit(GOLDEN / file, card)


def test_another_language_s_encoder_is_told(tmp_path: Path) -> None:
    """English has three layers in its pooler, every other language six."""
    path = tmp_path / "spenc.pt"
    path.write_bytes(published(SPEECH_CARDS["eng"]))
    assert "'pooler.layers.3." in misfit(path, SPEECH_CARDS["fra"])


@pytest.mark.parametrize("file", ["sonar_text_encoder.pt", "older_text_encoder.pt"])
def test_small_models_fit_themselves_in_both_layouts(file: str) -> None:
    with torch.device("meta"):
        module = TextEncoder(TextEncoderConfig(**SIZES, max_tokens=514, first_position=2))
    assert checkpoint_misfit(GOLDEN / file, module) == ""


SWAHILI = r"does not cover language '{}'; it covers eng; fetch it: noema fetch sonar --speech swh"


@pytest.mark.parametrize("written", ["swh", "swh_Latn", "sw", "Swahili"])
def test_speech_that_could_be_fetched_says_how(written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for folder, where in ((fetched_bundles() / "sonar", "$"), (tmp_path / "my own", f" --folder '{tmp_path}/my own'$")):
        known = Languages(["eng"], "speech of 'sonar'", fetchable(bundle_at(folder, "sonar"), "speech"))
        with pytest.raises(LanguageError, match=SWAHILI.format(written) + where):
            known.resolve(written)


@pytest.mark.parametrize(
    ("kind", "written", "told"),
    [
        ("text", "fin", "it covers eng, deu; SONAR's weights cover it: noema fetch sonar --text (docs/SONAR.md)"),
        ("speech", "fin", "it covers eng, deu; SONAR's weights cover it: noema fetch sonar --text --speech fin (docs"),
        ("speech", "zho_Hans", "SONAR's weights cover it: noema fetch sonar --text --speech cmn (docs"),
        ("speech", "zul", "it covers eng, deu"),
        ("text", "en", "did you mean eng (English)?"),
        ("text", "Germann", "did you mean deu (German)?"),
    ],
)
def test_another_bundle_leads_to_sonar(kind: str, written: str, told: str, tmp_path: Path) -> None:
    known = Languages(["eng", "deu"], "'mini'", fetchable(bundle_at(tmp_path, "mini"), kind))
    with pytest.raises(LanguageError, match="does not cover") as raised:
        known.resolve(written)
    assert told in str(raised.value)
    assert ("SONAR" in told) == ("SONAR" in str(raised.value))


def bundle_at(folder: Path, name: str) -> Bundle:
    languages: dict[str, list[str]] = {"text": ["eng"], "speech": ["eng"]}
    return Bundle(folder, {"name": name, "space_id": "", "concept_dim": 1, "languages": languages})


def test_a_fetch_that_is_not_finished_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    home = fetched_bundles() / "sonar"
    home.mkdir(parents=True)
    (home / "tokenizer.model.fetch.json").touch()
    with pytest.raises(BundleError, match=f"the fetch into {home} is not finished.*: noema fetch sonar --text$"):
        Bundle.open("sonar")
    for name in ("finetuned_decoder.pt.part", "spenc.eng.pt", "spenc.v3ap.fra.pt.fetch.json"):
        (home / name).touch()
    with pytest.raises(BundleError, match=r": noema fetch sonar --text --finetuned --speech eng,fra$"):
        Bundle.open("sonar")


def test_a_fetched_bundle_is_repaired_by_fetching(tmp_path: Path) -> None:
    (tmp_path / "sonar_text_encoder.pt").touch()
    (tmp_path / "bundle.json").write_text('{"format": 1}')
    with pytest.raises(BundleError, match=f"run this again: noema fetch sonar --text --folder {tmp_path}$"):
        Bundle.open(tmp_path)
