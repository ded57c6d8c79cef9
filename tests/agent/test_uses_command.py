"""`noema continue | summarise | plan`: from text, files, pipes and sound, in any language; wrong input."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor

from tests.noema_command import Noema

STORY = "The cat is hungry. Where is the station?\nGood morning, how are\nyou today?\n\nWe will meet. The cat."


@pytest.mark.parametrize("command", ["continue", "summarise", "plan"])
@pytest.mark.parametrize("to", ["eng", "fra", "spa", "deu"])
def test_text_becomes_words_of_any_language(noema: Noema, command: str, to: str) -> None:
    result = noema(command, "--to", to, "--json", stdin=STORY)
    assert result.code == 0, result.err
    assert (result.json["language"], result.json["to"]) == ("eng", to)
    rows = result.json["paragraphs" if command == "plan" else "sentences"]
    assert isinstance(rows, list)
    assert rows
    assert all(row["text"].strip() for row in rows)


@pytest.mark.parametrize("command", ["continue", "summarise", "plan"])
def test_sound_is_taken_as_text_is(noema: Noema, recording: Path, command: str) -> None:
    result = noema(command, recording, "--to", "spa", "--json")
    assert result.code == 0, result.err
    assert result.json["to"] == "spa"
    assert noema(command, recording, "--to", "spa").out.strip()


def test_lines_up_to_an_empty_one_belong_together(noema: Noema) -> None:
    paragraphs = noema("plan", "--json", stdin=STORY).json["paragraphs"]
    assert isinstance(paragraphs, list)
    assert [(p["start"], p["sentences"]) for p in paragraphs] == [(0, 3), (3, 2)]


def test_signs_between_paragraphs_are_none(noema: Noema) -> None:
    paragraphs = noema("plan", "--json", stdin="The cat!!\n\n* * *\n\nWhere is it?").json["paragraphs"]
    assert isinstance(paragraphs, list)
    assert [paragraph["text"] for paragraph in paragraphs] == ["The cat!!", "Where is it?"]


def test_a_text_without_paragraphs_gets_some(noema: Noema) -> None:
    text = "The cat is hungry. Where is the station? Good morning. " * 8
    paragraphs = noema("plan", text, "--sentences", 5, "--json").json["paragraphs"]
    assert isinstance(paragraphs, list)
    assert sum(p["sentences"] for p in paragraphs) == 24
    assert max(p["sentences"] for p in paragraphs) <= 5
    assert noema("plan", text, "--sentences", 5).out.count("\n") == len(paragraphs)


def test_a_summary_keeps_the_share_asked_for_in_order_and_quotes(noema: Noema) -> None:
    sentences = ["The cat is hungry.", "Where is the station?", "Good morning.", "We will meet.", "The cat."]
    result = noema("summarise", " ".join(sentences), "--ratio", 0.5, "--json")
    rows = result.json["sentences"]
    assert isinstance(rows, list)
    assert [row["text"] for row in rows] == [row["source"] for row in rows] == [sentences[row["place"]] for row in rows]
    assert [row["place"] for row in rows] == sorted({row["place"] for row in rows})
    assert (len(rows), result.json["of"]) == (3, 5)
    assert noema("summarise", " ".join(sentences), "--sentences", 2).out.count("\n") == 2


def test_a_continuation_says_sentence_by_sentence_what_its_json_says(noema: Noema) -> None:
    told = noema("continue", STORY, "--sentences", 3, "--json").json
    rows = told["sentences"]
    assert isinstance(rows, list)
    assert 1 <= len(rows) <= 3
    assert (told["variant"], told["seed"]) == ("base", 0)
    assert noema("continue", STORY, "--sentences", 3).out.splitlines() == [row["text"] for row in rows]


def test_a_plan_goes_ahead_with_any_model_of_the_bundle(noema: Noema) -> None:
    result = noema("plan", STORY, "--ahead", 2, "--variant", "base", "--json")
    ahead = result.json["ahead"]
    assert isinstance(ahead, list)
    assert 1 <= len(ahead) <= 2
    assert "(ahead)" in noema("plan", STORY, "--ahead", 2, "--variant", "base").out


def test_that_a_model_went_no_further_is_told(noema: Noema, monkeypatch: pytest.MonkeyPatch) -> None:
    def planned(engine: object, paragraphs: list[Tensor], ahead: int, seed: int) -> Tensor:
        return paragraphs[0][:2]

    monkeypatch.setattr("lcm.continuation.plan", planned)
    assert noema("plan", STORY, "--ahead", 2).err == ""
    result = noema("plan", STORY, "--ahead", 3)
    assert (result.code, result.out.count("(ahead)")) == (0, 2)
    assert result.err.startswith("noema: the model went no further than 2 of 3: it ended the text")
    monkeypatch.setattr("lcm.continuation.continuation", lambda *given: iter(()))
    assert "no further than 0 of 4" in noema("continue", STORY).err


@pytest.mark.parametrize("command", ["continue", "summarise", "plan"])
def test_wrong_input_says_what_to_do(noema: Noema, tmp_path: Path, command: str) -> None:
    noema(command, "none.txt").fails(2, "no such file")
    noema(command, "", "--to", "fra").fails(2, "no words")
    noema(command, "!!!").fails(2, "no words")
    noema(command, "Hello.", "--to", "tlh").fails(2, "tlh")
    noema(command, "Hello.", "--language", "auto").fails(2, "name one")
    noema(command, "Hello.", "--beam", "0").fails(2, "--beam")
    noema(command, tmp_path).fails(2, "a folder")
    noema(command, ".").fails(2, "a folder")
    noema(command, "missing.pdf").fails(2, "no such file")
    noema(command, "./missing").fails(2, "no such file")
    noema(command, "/dev/null").fails(2, "a pipe or a device")
    noema(command, "a" * 100_001).fails(2, "a paragraph has more than")
    noema(command, stdin="word\n" * 30_000).fails(2, "a paragraph has more than")


def test_a_file_is_text_or_sound_by_what_it_holds(noema: Noema, recording: Path, tmp_path: Path) -> None:
    expected = noema("summarise", stdin=STORY).out
    for name in ("LICENSE", "story.rst", "server.log", "-", ".story"):
        (tmp_path / name).write_text(STORY, encoding="utf-8")
        assert noema("summarise", tmp_path / name).out == expected
    (tmp_path / "memo").write_bytes(recording.read_bytes())
    paragraphs = noema("plan", tmp_path / "memo", "--json").json["paragraphs"]
    assert isinstance(paragraphs, list)
    assert all(paragraph["source"].startswith("memo ") for paragraph in paragraphs)


@pytest.mark.parametrize("content", ["Où est-il ?".encode("latin-1"), "Hello.".encode("utf-16"), bytes(64), b"PK\xff"])
def test_a_file_of_neither_says_how_it_becomes_text(noema: Noema, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "story.txt").write_bytes(content)
    noema("summarise", tmp_path / "story.txt").fails(2, "neither sound nor text in UTF-8")


def test_what_the_beginning_of_a_file_does_not_show_is_seen_later(
    noema: Noema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.commands.given._BEGINNING_BYTES", 8)
    (tmp_path / "story.txt").write_bytes("The café.".encode())
    assert noema("summarise", tmp_path / "story.txt").out == "The café.\n", "its é is cut in two"
    (tmp_path / "story.txt").write_bytes(b"The cat. The caf\xe9.")
    noema("summarise", tmp_path / "story.txt").fails(2, "neither sound nor text in UTF-8")


def test_a_dash_is_stdin(noema: Noema) -> None:
    assert noema("plan", "-", stdin=STORY).out == noema("plan", stdin=STORY).out
    both = noema("summarise", "Good morning.", "-", "--ratio", 1, stdin="The cat.")
    assert both.out == "Good morning.\nThe cat.\n"


@pytest.mark.parametrize("text", ["3.5", "Hello.", "e.g.", "p.m", "and/or"])
def test_a_word_that_is_no_name_is_text(noema: Noema, text: str) -> None:
    assert noema("summarise", text).out == f"{text}\n"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("continue", "--sentences", "0"), "--sentences 0"),
        (("continue", "--seed", "-1"), "--seed -1"),
        (("summarise", "--ratio", "0"), "--ratio 0"),
        (("summarise", "--ratio", "1.5"), "--ratio 1.5"),
        (("summarise", "--ratio", "nan"), "--ratio nan"),
        (("summarise", "--sentences", "-2"), "--sentences -2"),
        (("plan", "--sentences", "0"), "--sentences 0"),
        (("plan", "--ahead", "99"), "--ahead 99"),
        (("plan", "--ahead", "-1"), "--ahead -1: choose a number from 0 to 32"),
    ],
)
def test_a_number_out_of_range(noema: Noema, command: tuple[str, ...], told: str) -> None:
    noema(*command, "Hello.").fails(2, told)


def test_a_model_that_is_not_there(noema: Noema, small_bundle: Path) -> None:
    for command in ("continue", "plan"):
        noema(command, "Hello.", "--variant", "none").fails(2, "'none', choose from base, base_mse")
    lacks = f"{small_bundle} has no model 'planning'; it has: base"
    noema("plan", "Hello.", "--ahead", "1", "--variant", "planning").fails(1, lacks)
    assert noema("plan", "Hello.", "--ahead", "1", "--json").json["variant"] == "base", "the best there is"
    assert noema("plan", "Hello.").code == 0
    assert noema("summarise", "Hello.", "--ratio", "0.5", "--sentences", "2").code == 2


def test_a_continuation_is_told_the_paragraphs_that_a_text_has(noema: Noema, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []

    def noted(*given: object) -> Iterator[object]:
        told.append(given[-1])
        return iter(())

    monkeypatch.setattr("lcm.continuation.continuation", noted)
    for text in (STORY, "The cat is hungry. Where is the station?"):
        assert noema("continue", "--variant", "base", stdin=text).code == 0
    assert told == [[0, 3], None]
