"""The reply bank, built from dialogues by a model: clean sentences that were said, in every language they survive."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from lcm.engine import Engine
from lcm.reply_bank import ReplyBank
from lcm.space import ConceptSpace
from lcm.training.concepts import ConceptTable, prepare_concepts
from lcm.training.data import SPLITS
from lcm.training.replies import BankBuilding, build_bank
from lcm.training.reply_texts import presentable

REPLIES = ["that sounds good to me", "I like it very much !", "shit happens", "My wife likes it.", "what do you like"]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    folder = tmp_path / "prepared"
    folder.mkdir()
    for split in SPLITS:
        rows = [
            {"id": f"{split}{n}", "corpus": "self_dialogue", "language": "eng", "turns": _turns(n)} for n in range(30)
        ]
        _write(folder / f"dialogues.{split}.jsonl", rows)
        _write(folder / f"stories.{split}.jsonl", [])
    pair = {"languages": ["eng", "fra"], "texts": ["I like it very much.", "Je l'aime beaucoup."], "component": 0}
    _write(folder / "parallel.train.jsonl", [pair])
    (folder / "manifest.json").write_text("{}")
    return folder


def _turns(number: int) -> list[str]:
    """What may be replied to anyone is made of words that many sentences hold."""
    words = f"That sounds good to me, I like it very much, what do you, 7 {'very ' * number}?"
    return [turn for reply in REPLIES for turn in (words, reply)]


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_a_bank_holds_what_people_said_tidied_and_translated(
    prepared: Path, small_bundle: Path, small_space: ConceptSpace, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(small_bundle, tmp_path / "bundle"))
    prepare_concepts(prepared, tmp_path / "concepts", small_space)
    table = ConceptTable.open(tmp_path / "concepts", small_space.space_id)
    assert table.corpus() is None, "it is ours, and the sources of the splits are its"
    config = BankBuilding(size=10, contexts=40, same_meaning=0.9999, human_cosine=-1.0)
    build_bank(config, small_space, Engine.load(bundle, space=small_space), table, prepared, bundle)
    bank = ReplyBank.load(bundle)
    said = {entry["eng"] for entry in bank.texts}
    assert said == {"That sounds good to me.", "I like it very much!", "What do you like."}
    [liked] = [entry for entry in bank.texts if entry["eng"] == "I like it very much!"]
    assert liked["fra"] == "Je l'aime beaucoup.", "people's translation comes before the decoder's"


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        ("yes i do , thanks", "Yes I do, thanks."),
        ("Well , that is 5 dollars.", None),
        ("My husband told me so.", None),
        ("I met Sarah there.", None),
        ("no", None),
    ],
)
def test_what_may_be_said_to_anyone(text: str, tidied: str | None) -> None:
    assert presentable(text, "eng") == tidied
