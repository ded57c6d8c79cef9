"""Any corpus: each form of file read, what cannot be used told by file and line."""

import gzip
import json
import lzma
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import which
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from lcm.errors import TrainingDataError
from lcm.space.languages import Languages
from lcm.training import corpus as corpus_module
from lcm.training import corpus_files as files_module
from lcm.training.corpus import CorpusForm, FileCorpus
from lcm.training.corpus_files import corpus_files
from lcm.training.corpus_records import CorpusDocument, Record

LANGUAGES = Languages(["eng", "fra", "spa", "deu"], "the test")
FORM = CorpusForm("mine")


def read(path: Path | str, form: CorpusForm = FORM) -> list[Record]:
    return list(FileCorpus(corpus_files([str(path)]), form, LANGUAGES).records((0, 0)))


def documents(path: Path | str, form: CorpusForm = FORM) -> list[CorpusDocument]:
    return [record.document for record in read(path, form) if record.document]


def paragraphs(path: Path | str, form: CorpusForm = FORM) -> list[list[str]]:
    return [[text for _, text in document.turns] for document in documents(path, form)]


def wrong(path: Path | str, form: CorpusForm = FORM) -> list[str]:
    return [str(unusable) for record in read(path, form) for unusable in record.unusable]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


PROSE = "One.\nTwo.\n\n  \nThree.\r\nFour.\n"


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (FORM, [["One.", "Two.", "Three.", "Four."]]),
        (replace(FORM, documents="blank-line"), [["One.", "Two."], ["Three.", "Four."]]),
        (replace(FORM, documents="line"), [["One."], ["Two."], ["Three."], ["Four."]]),
        (replace(FORM, paragraphs="blank-line"), [["One. Two.", "Three. Four."]]),
        (replace(FORM, documents="blank-line", paragraphs="blank-line"), [["One. Two."], ["Three. Four."]]),
    ],
)
def test_what_is_a_document_and_a_paragraph_of_a_text(
    tmp_path: Path, form: CorpusForm, expected: list[list[str]]
) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + PROSE.encode())
    assert paragraphs(tmp_path / "a.txt", form) == expected


def test_packed_files_read_as_the_unpacked_one_and_share_its_name(tmp_path: Path) -> None:
    plain = tmp_path / "a.txt"
    plain.write_text(PROSE)
    [expected] = documents(plain)
    (tmp_path / "gz").mkdir()
    (tmp_path / "gz/a.txt.gz").write_bytes(gzip.compress(PROSE[:9].encode()) + gzip.compress(PROSE[9:].encode()))
    (tmp_path / "xz").mkdir()
    (tmp_path / "xz/a.txt.xz").write_bytes(lzma.compress(PROSE.encode()))
    (tmp_path / "zst").mkdir()
    packer = pyarrow.CompressedOutputStream(str(tmp_path / "zst/a.txt.zst"), "zstd")
    packer.write(PROSE.encode())
    packer.close()
    for packing in ("gz", "xz", "zst"):
        assert documents(tmp_path / packing) == [expected]


@pytest.mark.skipif(which("zstd") is None, reason="zstd is not installed")
def test_a_zst_file_of_several_frames_is_read_to_its_end(tmp_path: Path) -> None:
    frames = [
        subprocess.run(["zstd", "-c"], input=part.encode(), capture_output=True, check=True).stdout
        for part in (PROSE[:9], PROSE[9:])
    ]
    (tmp_path / "a.txt.zst").write_bytes(b"".join(frames))
    assert paragraphs(tmp_path / "a.txt.zst") == [["One.", "Two.", "Three.", "Four."]]


def test_folders_and_patterns_give_each_file_once_in_order(tmp_path: Path) -> None:
    for name in ("b/2.txt", "b/1.md", "a.jsonl", "b/notes.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x\n")
    found = corpus_files([str(tmp_path / "b"), str(tmp_path / "**/*.txt"), str(tmp_path / "*.jsonl")])
    assert [(file.name, file.kind) for file in found] == [("1.md", "text"), ("2.txt", "text"), ("a.jsonl", "jsonl")]
    with pytest.raises(TrainingDataError, match="no file"):
        corpus_files([str(tmp_path / "*.parquet")])
    with pytest.raises(TrainingDataError, match="--format"):
        corpus_files([str(tmp_path / "b/notes.pdf")])
    assert corpus_files([str(tmp_path / "b/notes.pdf")], "text")[0].kind == "text"


def test_rows_hold_texts_or_paragraphs_in_a_language_of_their_own(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"body": "One.\nTwo.", "lang": "fra", "url": "x/1"},
        {"body": ["One.", "Two."], "lang": "de", "url": 7},
        {"body": "One.", "lang": "tlh", "url": "x/3"},
        {"body": None, "lang": "eng", "url": "x/4"},
        {"body": 5, "lang": "eng", "url": "x/5"},
        {"body": "One.", "lang": "eng"},
    ]
    form = replace(FORM, text="body", language="lang", identifier="url")
    path = write_rows(tmp_path / "a.jsonl", rows)
    with path.open("ab") as file:
        file.write(b'\n{"body": "Stop\n["One."]\n{"body": "\xff"}\n' + b"[" * 100_000 + b"\n")
    first, second = documents(path, form)
    assert (first.language, first.name, first.corpus) == ("fra", "x/1", "story/mine")
    assert (second.language, second.name) == ("deu", "7")
    told = wrong(path, form)
    assert [line.removeprefix(f"{path}:").split(" (")[0] for line in told] == [
        "3: unknown language",
        "4: no field 'body'",
        "5: no text",
        "6: no field 'url'",
        "8: not JSON",
        "9: not a JSON object",
        "10: not UTF-8",
        "11: not JSON",
    ]
    assert "it has body, lang, url" in told[1]


@pytest.mark.parametrize(
    ("turns", "roles"),
    [
        (["Hi.", "Hello.", "Bye."], [0, 1, 0]),
        ([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi."}], [2, 0]),
        ([{"from": "human", "value": "Hi."}, {"from": "GPT", "value": "Hello."}], [0, 1]),
        ([{"speaker": s, "text": "Hi."} for s in ("Ada", "Ada", "Bob", "Ada")], [0, 0, 1, 0]),
    ],
)
def test_who_speaks_in_a_dialogue(tmp_path: Path, turns: list[Any], roles: list[int]) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"said": turns}])
    [document] = documents(path, replace(FORM, turns="said"))
    assert [role for role, _ in document.turns] == roles
    assert document.corpus == "dialogue/mine"


@pytest.mark.parametrize(
    ("turns", "told"),
    [
        ("Hi.", "no turns"),
        ([], "no turns"),
        ([{"role": "user"}], "no turns"),
        ([1, 2], "no turns"),
        ([{"role": r, "text": "Hi."} for r in ("Ada", "Bob", "Cid")], "unknown roles"),
    ],
)
def test_what_is_no_dialogue(tmp_path: Path, turns: Any, told: str) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"said": turns}])
    [line] = wrong(path, replace(FORM, turns="said"))
    assert line.startswith(f"{path}:1: {told} (")


def test_parquet_reads_as_the_same_rows_in_jsonl(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    rows = [{"id": f"r{n}", "said": said if n != 4 else None, "lang": "eng", "more": n} for n in range(700)]
    write_rows(tmp_path / "a.jsonl", rows)
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    form = replace(FORM, turns="said", language="lang", identifier="id")
    assert documents(tmp_path / "a.parquet", form) == documents(tmp_path / "a.jsonl", form)
    assert len(documents(tmp_path / "a.parquet", form)) == 699
    assert wrong(tmp_path / "a.parquet", form) == [
        f"{tmp_path / 'a.parquet'} row 5: no field 'said' (it has said, id, lang)"
    ]
    [line] = wrong(tmp_path / "a.parquet", replace(FORM, text="body"))
    assert "no column 'body' (it has id, said, lang, more)" in line


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.xz", "a.jsonl.zst", "a.parquet"])
def test_a_damaged_file_is_told_and_the_next_one_read(tmp_path: Path, name: str) -> None:
    rows = [{"text": f"Line {n}. And {n * n}."} for n in range(5000)]
    whole = write_rows(tmp_path / "z.jsonl", rows).read_bytes()
    path = tmp_path / name
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif name.endswith("zst"):
        with pyarrow.CompressedOutputStream(str(path), "zstd") as packer:
            packer.write(whole)
    else:
        path.write_bytes(gzip.compress(whole) if name.endswith("gz") else lzma.compress(whole))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    [line] = wrong(tmp_path)
    assert line.startswith(str(path))
    assert "damaged file (" in line
    assert len([d for d in documents(tmp_path) if d.turns[0][1].startswith("Line 4999.")]) == 1


def test_reading_goes_on_where_any_record_ended(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(PROSE)
    (tmp_path / "b.txt").write_bytes(b"Five.\n\xff\n\nSix.\n\n\xfe\n")
    write_rows(tmp_path / "c.jsonl", [{"text": f"Row {n}."} for n in range(4)] + [{"no": 1}])
    table = pyarrow.Table.from_pylist([{"text": f"Row {n}."} for n in range(6)])
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet", row_group_size=2)
    corpus = FileCorpus(corpus_files([str(tmp_path)]), replace(FORM, documents="blank-line"), LANGUAGES)
    whole = list(corpus.records((0, 0)))
    assert len(whole) == 2 + 3 + 5 + 6
    assert [record.share for record in whole] == sorted(record.share for record in whole)
    for number, record in enumerate(whole):
        assert list(corpus.records(record.after)) == whole[number + 1 :]


def test_a_document_never_changes_split(tmp_path: Path) -> None:
    rows = [{"text": f"Once upon a time {n}."} for n in range(400)]
    form = replace(FORM, dev_share=0.2, test_share=0.3)
    before = {d.name: d.split for d in documents(write_rows(tmp_path / "a.jsonl", rows), form)}
    after = {d.name: d.split for d in documents(write_rows(tmp_path / "b.jsonl", rows[:50:-1]), form)}
    assert len(before) == 400
    assert after.items() <= before.items()
    counts = {split: list(before.values()).count(split) for split in ("train", "dev", "test")}
    assert 60 < counts["dev"] < 100
    assert 95 < counts["test"] < 145


def test_a_long_file_is_cut_into_documents_of_one_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "LONGEST_TEXT", 20)
    (tmp_path / "a.txt").write_text("".join(f"Line {n}.\n" for n in range(10)))
    pieces = documents(tmp_path / "a.txt")
    assert [text for piece in pieces for _, text in piece.turns] == [f"Line {n}." for n in range(10)]
    assert len(pieces) > 2
    assert {(piece.name, piece.split) for piece in pieces} == {("a.txt", pieces[0].split)}


def test_a_long_block_is_cut_into_pieces_of_one_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "LONGEST_TEXT", 20)
    form = replace(FORM, documents="blank-line", dev_share=0.3, test_share=0.3)
    blocks = ["".join(f"Line {n} of {block}.\n" for n in range(length)) for block, length in enumerate((3, 60, 2, 9))]
    (tmp_path / "a.txt").write_text("\n".join(blocks))
    pieces = documents(tmp_path / "a.txt", form)
    assert [text for piece in pieces for _, text in piece.turns] == "".join(blocks).splitlines()
    of = [{piece.name for piece in pieces if piece.turns[0][1].endswith(f" {block}.")} for block in range(4)]
    assert [len(names) for names in of] == [1, 1, 1, 1]
    assert len(set.union(*of)) == 4
    assert len({(piece.name, piece.split) for piece in pieces}) == 4
    assert len(pieces) > 20
    corpus = FileCorpus(corpus_files([str(tmp_path)]), form, LANGUAGES)
    whole = list(corpus.records((0, 0)))
    for number, record in enumerate(whole):
        assert list(corpus.records(record.after)) == whole[number + 1 :], "a piece keeps its name where reading goes on"


def test_a_line_without_end_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "LONGEST_LINE", 1 << 20)
    (tmp_path / "a.jsonl").write_bytes(b"x" * (5 << 20) + b'\n{"text": "Here. I am."}\n')
    assert wrong(tmp_path / "a.jsonl") == [f"{tmp_path / 'a.jsonl'}:1: longer than 1 MiB"]
    assert paragraphs(tmp_path / "a.jsonl") == [["Here. I am."]]


def test_odd_characters_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "A \\ud800 half. \\u0000 Two.", "id": "\\ud800' + "i" * 500 + '"}\n')
    [document] = documents(tmp_path / "a.jsonl")
    [named] = documents(tmp_path / "a.jsonl", replace(FORM, identifier="id"))
    assert document.turns == named.turns
    assert len(named.name.encode()) == 120


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_language_is_asked_for_by_its_code(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"text": "Il pleut."}\n', encoding="utf-8")
    with pytest.raises(TrainingDataError, match=r"--language: .* language 'french'; did you mean fra \(French\)\?"):
        read(tmp_path / name, replace(FORM, language="french"))
    [document] = documents(tmp_path / name, replace(FORM, language="fr"))
    assert document.language == "fra"


def test_text_has_no_field_for_its_language(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(PROSE)
    with pytest.raises(TrainingDataError, match="--language: the test does not cover language 'lang'"):
        read(tmp_path / "a.txt", replace(FORM, language="lang"))
