"""The splits: nothing held out is ever trained on, and they are the ones that the mini bundle was made from."""

import json
import lzma
from pathlib import Path

import pytest

from lcm.errors import TrainingDataError
from lcm.training.data import (
    DEFAULT_DATA,
    SPLITS,
    Pair,
    Recording,
    key,
    prepare,
    read_split,
    split_parallel,
    split_recordings,
    splits_differ,
    with_components,
)

HELD_OUT = ("dev", "test")
WORDS = ("cat", "dog", "bird", "house", "tree", "river", "stone", "cloud", "train", "apple")


def xz(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress("\n".join(lines).encode()))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with every trap in it, prepared: shared translations, transcripts in text sets, repeated dialogues."""
    data = tmp_path_factory.mktemp("raw")
    english = [f"The {a} sees the {b} {n}." for a in WORDS for b in WORDS for n in range(20)]
    for language in ("fra", "spa", "deu"):
        pairs = [f"{text}\t{language} {text.upper()}" for text in english]
        pairs += [
            f"{text}\t{language} alles {i // 2}" for i, text in enumerate(english[:200])
        ]  # two share a translation
        xz(data / f"text/parallel/tatoeba.eng-{language}.tsv.xz", pairs)
    for code in ("en", "fr", "es", "de"):
        xz(
            data / f"text/sentences/commonvoice.{code}.txt.xz",
            [*english[::7], f"Only here in {code}.", "He hoped there"],
        )
    turns = [f"d{i}\t{english[i]}\t{english[i + 1]} Fresh words {i}." for i in range(900)]
    xz(data / "text/dialogue/self_dialogue.tsv.xz", [*turns, "again\t" + turns[0].split("\t", 1)[1]])
    xz(data / "text/dialogue/xpersona.en.valid.tsv.xz", [f"en-{i:04}\tHello {i}.\tHi {i}." for i in range(200)])
    xz(data / "text/dialogue/xpersona.fr.valid.tsv.xz", [f"fr-{i:04}\tBonjour {i}.\tSalut {i}." for i in range(200)])
    xz(data / "text/stories/alices-adventures-in-wonderland.tsv.xz", ["one\tAlice fell down a hole."])
    xz(data / "text/stories/grimm.txt.xz", ["A king had a garden.", "Alice fell down a hole."])
    story = {"id": "1", "lang": "en", "pages": ["One page.", "Two pages."]}
    xz(data / "text/stories/african_storybook.jsonl.xz", [json.dumps(story)])
    rows = ["file\tspeaker\tlang\tseconds\ttext"]
    rows += [f"{i}.opus\t{i % 60}\ten\t2.0\tSENTENCE NUMBER {i // 2}" for i in range(600)]
    rows += ["x.opus\t61\ten\t2.0\tHE HOPED THERE", "y.opus\t62\ten\t2.0\tTHE CAT SEES THE CAT 3"]
    (data / "speech").mkdir()
    (data / "speech/librispeech_en.tsv").write_text("\n".join(rows), encoding="utf-8")
    out = tmp_path_factory.mktemp("prepared")
    prepare(data, out)
    return out


def test_no_translation_of_a_held_out_sentence_is_trained_on(prepared: Path) -> None:
    trained = {key(t) for p in read_split(prepared, "parallel.train") for t in p["texts"]}
    held_out = {key(t) for s in HELD_OUT for p in read_split(prepared, f"parallel.{s}") for t in p["texts"]}
    assert len(trained) > 1_000
    assert len(held_out) > 50
    assert not trained & held_out


def test_dev_and_test_share_no_sentence(prepared: Path) -> None:
    dev, test = ({key(t) for p in read_split(prepared, f"parallel.{s}") for t in p["texts"]} for s in HELD_OUT)
    assert dev
    assert not dev & test


def test_no_sentence_for_text_training_is_held_out_anywhere(prepared: Path) -> None:
    sentences = [key(row["text"]) for row in read_split(prepared, "sentences.train")]
    held_out = {key(t) for s in HELD_OUT for p in read_split(prepared, f"parallel.{s}") for t in p["texts"]}
    held_out |= {key(row["text"]) for s in HELD_OUT for row in read_split(prepared, f"speech.{s}")}
    assert len(sentences) == len(set(sentences)) > 100
    assert not held_out & set(sentences)


def test_transcripts_of_recordings_are_in_no_pair(prepared: Path) -> None:
    texts = {key(t) for s in SPLITS for p in read_split(prepared, f"parallel.{s}") for t in p["texts"]}
    assert key("THE CAT SEES THE CAT 3") not in texts


def test_speech_is_split_by_speaker_and_by_sentence(prepared: Path) -> None:
    rows = {s: list(read_split(prepared, f"speech.{s}")) for s in SPLITS}
    assert all(rows.values())
    for field in ("speaker", "text"):
        seen = [{row[field] for row in rows[s]} for s in SPLITS]
        assert not seen[0] & seen[1]
        assert not seen[0] & seen[2]
        assert not seen[1] & seen[2]


def test_a_persona_dialogue_and_its_translation_lie_in_one_split(prepared: Path) -> None:
    place: dict[str, set[str]] = {}
    for split in SPLITS:
        for row in read_split(prepared, f"dialogues.{split}"):
            if row["corpus"] == "xpersona":
                place.setdefault(row["id"].rsplit("-", 1)[-1], set()).add(split)
    assert len(place) == 200
    assert all(len(splits) == 1 for splits in place.values())
    assert len(set.union(*place.values())) > 1


def test_a_dialogue_told_twice_is_kept_once(prepared: Path) -> None:
    ids = [row["id"] for s in SPLITS for row in read_split(prepared, f"dialogues.{s}")]
    assert "again" not in ids


def test_books_are_split_whole(prepared: Path) -> None:
    assert [row["id"] for row in read_split(prepared, "stories.test") if row["corpus"] == "book"] == [
        "alices-adventures-in-wonderland"
    ]


def test_components_join_whatever_is_linked_through_any_language() -> None:
    pairs = [
        Pair(-1, ("eng", "fra"), ("Go.", "Va !")),
        Pair(-1, ("eng", "fra"), ("Move!", "va")),
        Pair(-1, ("eng", "deu"), ("move", "Geh.")),
        Pair(-1, ("eng", "deu"), ("Stay.", "Bleib.")),
    ]
    numbers = [p.component for p in with_components(pairs)]
    assert numbers[0] == numbers[1] == numbers[2] != numbers[3]
    assert numbers == [p.component for p in reversed(with_components(pairs[::-1]))]


def test_a_banned_sentence_takes_its_whole_component_away() -> None:
    pairs = with_components([Pair(-1, ("eng", "fra"), ("Go.", "Va !")), Pair(-1, ("eng", "fra"), ("Move!", "Va !"))])
    assert not any(split_parallel(pairs, {key("go")}).values())


def test_a_sentence_of_a_held_out_speaker_leaves_the_others() -> None:
    rows = [Recording("librispeech_en", f"{i}", f"{i}", "eng", 1.0, "the same words") for i in range(40)]
    splits = split_recordings(rows)
    assert not splits["train"]
    assert splits["test"]


def test_a_missing_corpus_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="--data"):
        prepare(tmp_path, tmp_path / "out")
    with pytest.raises(TrainingDataError, match="prepare_data"):
        next(read_split(tmp_path, "parallel.train"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_splits_are_the_ones_the_mini_bundle_was_trained_on(tmp_path: Path) -> None:
    if not (DEFAULT_DATA / "speech").is_dir():
        pytest.skip("the training corpora are missing: set NOEMA_DATA to their folder")
    assert splits_differ(prepare(DEFAULT_DATA, tmp_path)) == []
