"""Reply bank: near sentences, in the wanted language, said once; and the way into a bundle and back."""

import lzma
from pathlib import Path

import pytest
import torch

from lcm.bundle_writer import BundleWriter
from lcm.errors import BundleError, ContextError, LanguageError
from lcm.reply_bank import ReplyBank, packed

TEXTS = [
    {"eng": "I like dogs.", "fra": "J'aime les chiens."},
    {"eng": "I love dogs.", "fra": "J'adore les chiens."},
    {"eng": "It will rain."},
    {"eng": "That is good.", "fra": "C'est bien."},
]
DOGS, ALSO_DOGS, RAIN, GOOD = (
    torch.tensor(v) for v in ([4.0, 0.1, 0.0], [4.0, 0.4, 0.0], [0.0, 4.0, 0.0], [2.0, 2.0, 2.0])
)
CONCEPTS = torch.stack([DOGS, ALSO_DOGS, RAIN, GOOD])


@pytest.fixture
def bank() -> ReplyBank:
    return ReplyBank(CONCEPTS, torch.zeros(4), TEXTS, 0.5)


def test_the_nearest_sentence_in_the_language(bank: ReplyBank) -> None:
    assert bank.nearest(DOGS, "eng").text == "I like dogs."
    assert bank.nearest(DOGS, "fra_Latn").text == "J'aime les chiens."
    assert bank.nearest(RAIN, "fra").text == "C'est bien.", "the rain has no French"


def test_what_was_said_is_not_said_again(bank: ReplyBank) -> None:
    assert bank.nearest(DOGS, "eng", exclude={"I like dogs."}).text == "I love dogs."
    assert bank.nearest(DOGS, "eng", exclude={"J'aime les chiens."}).text == "I love dogs.", "nor in another language"
    assert bank.nearest(DOGS, "eng", exclude=frozenset({0, 1})).text == "That is good."


def test_the_users_own_sentence_is_not_echoed(bank: ReplyBank) -> None:
    assert bank.nearest(DOGS, "eng", avoid=torch.stack([DOGS])).text == "That is good."


def test_rather_a_repetition_than_nothing(bank: ReplyBank) -> None:
    assert bank.nearest(DOGS, "eng", exclude={0, 1, 2, 3}).text == "I like dogs."


def test_popularity_counts_against_an_entry() -> None:
    bank = ReplyBank(CONCEPTS, torch.tensor([0.9, 0.0, 0.0, 0.0]), TEXTS, 0.5)
    assert bank.nearest(DOGS, "eng").text == "I love dogs."


def test_the_best_come_best_first(bank: ReplyBank) -> None:
    best = bank.best(DOGS, "eng", 10)
    assert [r.index for r in best][:2] == [0, 1]
    assert len(best) == 4
    assert [r.score for r in best] == sorted((r.score for r in best), reverse=True)


def test_bad_questions_are_refused(bank: ReplyBank) -> None:
    with pytest.raises(LanguageError, match="eng, fra"):
        bank.nearest(DOGS, "deu")
    with pytest.raises(ContextError):
        bank.nearest(torch.zeros(7), "eng")
    with pytest.raises(ContextError):
        bank.nearest(torch.full((3,), float("inf")), "eng")


def written(folder: Path, sidecar: bytes | None = None) -> Path:
    writer = BundleWriter(folder, "small")
    space = writer.write_space(b"tokens", ["eng", "fra"], {"concept_dim": 3}, {"weight": torch.zeros(2)})
    tensors, texts = packed(CONCEPTS, torch.zeros(4), TEXTS)
    writer.write_part("bank", {"hubness": 0.5}, tensors, space, {"texts.json.xz": sidecar or texts})
    return folder


def test_a_bundle_keeps_it(tmp_path: Path) -> None:
    bank = ReplyBank.load(written(tmp_path))
    assert bank.nearest(RAIN, "eng").text == "It will rain."
    assert bank.texts == TEXTS
    torch.testing.assert_close(bank.concepts, CONCEPTS, rtol=0, atol=0.02)


@pytest.mark.parametrize("sidecar", [b"no xz", lzma.compress(b"[" * 70_000_000, preset=0)], ids=["no xz", "a bomb"])
def test_a_damaged_bank_says_what_to_do(tmp_path: Path, sidecar: bytes) -> None:
    with pytest.raises(BundleError, match="restore"):
        ReplyBank.load(written(tmp_path, sidecar=sidecar))
