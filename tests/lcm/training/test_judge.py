"""Mutual information: hand-made language models whose answer is known, and the one that is trained here."""

import json
import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.loader import ConfigError, parse_config
from lcm.errors import TrainingDataError
from lcm.space.tokenizer import PAD, Tokenizer
from lcm.training.concepts import ConceptTable
from lcm.training.judge import FolderJudge, Said, gains, perplexity
from lcm.training.judge_model import SmallJudge
from lcm.training.judge_trainer import JudgeTrainer, JudgeTraining, TokenisedDocuments
from tests.lcm.training.conversations import write_concepts

BUNDLE = Path(__file__).parents[3] / "lcm" / "bundles" / "mini"
SMALL = JudgeTraining(
    dim=32, layers=1, heads=2, ffn_dim=32, context=32, rows_a_step=8, steps=80, decay_steps=20, warmup_steps=5,
    evaluate_every=80, checkpoint_every=1_000, lr=1e-2, ema=0.9,
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(BUNDLE / "tokenizer.model", ["eng", "fra", "spa", "deu"])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ConceptTable:
    return write_concepts(tmp_path_factory.mktemp("concepts"))


class Remembering:
    """A letter that was said before has probability 1/2, any other 1/8."""

    name, longest = "remembering", 12

    def opening(self, language: str) -> list[int]:
        return [1]

    def sentence(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def log_probabilities(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        scores = [
            -math.log(2) if int(row[at]) in row[:at].tolist() else -math.log(8)
            for row, chosen in zip(tokens, wanted, strict=True)
            for at in chosen.nonzero()[:, 0].tolist()
        ]
        return torch.tensor(scores)


def test_a_sentence_gains_what_its_context_tells() -> None:
    said = [Said("ab", ("b", "xa"), "eng"), Said("cd", ("ab",), "eng"), Said("abcd", ("a",), "eng")]
    found = gains(Remembering(), said)
    np.testing.assert_allclose(found.nats, [2 * math.log(4), 0, math.log(4)], atol=1e-6)
    assert found.tokens.tolist() == [2, 2, 4]
    assert found.mean == pytest.approx(3 * math.log(4) / 8), "long sentences count for more"


def test_only_the_latest_whole_sentences_that_fit_are_read() -> None:
    near = Said("ab", ("a", "wxyz", "wxy"), "eng")  # 2 + 1, 3 + 1, 4 + 1 are 12; not one more
    assert gains(Remembering(), [near]).nats[0] == 0
    far = Said("ab", ("a", *(["z"] * 10)), "eng")
    assert gains(Remembering(), [far]).nats[0] == 0, "ten sentences back, and no more"


def test_a_sentence_without_words_weighs_nothing() -> None:
    found = gains(Remembering(), [Said("", ("a",), "eng"), Said("a", ("a",), "eng")])
    assert found.tokens.tolist() == [0, 1]
    assert found.mean == pytest.approx(math.log(4))


def test_perplexity_is_of_the_sentences_after_their_contexts() -> None:
    said = [Said("ab", ("ab",), "eng"), Said("cd", (), "eng")]
    assert perplexity(Remembering(), said) == pytest.approx(math.sqrt(2 * 8))


def test_rows_begin_with_sentences_and_lose_none() -> None:
    documents = TokenisedDocuments(
        np.array([9, 1, 2, 9, 3, 5, 9, 4, 9, 6, 7, 8, 5]), np.array([0, 3, 6, 8]), np.array([0, 6, 13])
    )
    assert documents.rows(5, np.array([0, 1])).tolist() == [
        [9, 1, 2, 9, 3],
        [9, 3, 5, 9, 4],
        [9, 6, 7, 8, 5],
    ], "one that was cut off comes again"
    assert documents.rows(8, np.array([1])).tolist() == [[9, 4, 9, 6, 7, 8, 5, PAD]]


def test_it_learns_what_follows_what(table: ConceptTable, tokenizer: Tokenizer, tmp_path: Path) -> None:
    trainer = JudgeTrainer(SMALL, table, tokenizer, tmp_path)
    for _ in trainer.train():
        pass
    trainer.save()
    judge = SmallJudge.open(tmp_path, tokenizer)
    texts = [text for _, text in table.texts()]
    right = [Said(texts[n + 1], tuple(texts[n - 2 : n + 1]), "eng") for n in range(2, 30)]
    wrong = [Said(texts[(n + 15) % 40], tuple(texts[n - 2 : n + 1]), "eng") for n in range(2, 30)]
    assert gains(judge, right).mean > gains(judge, wrong).mean + 0.1
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert logged[-1]["dev_perplexity"] < 10, "of 8,000 pieces"


def test_a_resumed_run_has_the_same_losses(table: ConceptTable, tokenizer: Tokenizer, tmp_path: Path) -> None:
    def stepped(trainer: JudgeTrainer, count: int) -> None:
        for _ in islice(trainer.train(), count):
            pass

    whole = JudgeTrainer(SMALL, table, tokenizer, tmp_path / "whole")
    stepped(whole, 40)
    cut = JudgeTrainer(SMALL, table, tokenizer, tmp_path / "cut")
    stepped(cut, 23)
    cut.save()
    again = JudgeTrainer(SMALL, table, tokenizer, tmp_path / "cut")
    assert again.step == 23
    stepped(again, 17)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    "setting", ["rows_a_step: 0", "steps: -5", "context: 0", "warmup_steps: 0", "decay_steps: -1", "lr: .nan", "ema: 2"]
)
def test_what_no_run_can_go_by_is_refused_as_it_is_read(setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"own.yaml:1: {setting.split(':', maxsplit=1)[0]}: should be"):
        parse_config(setting, JudgeTraining, source="own.yaml")


def test_a_missing_judge_says_how_one_is_made(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match=r"judge_mini\.yaml"):
        SmallJudge.open(tmp_path / "nowhere", tokenizer)


def test_a_folder_of_hugging_face_judges_the_same_way(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    pieces = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"<unk>": 0, "\n": 1, "yes": 2, "no": 3, "maybe": 4}, unk_token="<unk>")
    )
    pieces.pre_tokenizer = tokenizers.pre_tokenizers.Split(" ", "removed")
    transformers.PreTrainedTokenizerFast(tokenizer_object=pieces, unk_token="<unk>").save_pretrained(tmp_path)
    torch.manual_seed(0)
    sizes = transformers.GPT2Config(
        vocab_size=5, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1
    )
    model = transformers.GPT2LMHeadModel(sizes).eval()
    model.save_pretrained(tmp_path)
    judge = FolderJudge(tmp_path)
    with torch.inference_mode():
        alone = model(torch.tensor([[1, 2, 3]])).logits[0].log_softmax(dim=1)
        after = model(torch.tensor([[1, 4, 1, 2, 3]])).logits[0].log_softmax(dim=1)
    expected = float(after[2, 2] + after[3, 3] - alone[0, 2] - alone[1, 3])
    found = gains(judge, [Said("yes no", ("maybe",), "eng"), Said("maybe", ("yes", "no"), "eng")])
    assert found.nats[0] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(TrainingDataError, match="safetensors"):
        FolderJudge(tmp_path / "nothing")
