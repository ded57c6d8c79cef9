"""`noema encode | decode | translate`: text, sound and concepts, as files, arguments and pipes; hostile ones too."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.noema_command import Noema, noema_process


def _header_of_terabytes(path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 512), }\n"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("concepts.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


def _encrypted(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("concepts.npy", b"secret")
    content = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(signature) + place] |= 1
    path.write_bytes(content)


def _single_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((1, 32), np.float32))


@pytest.mark.parametrize("make", [_header_of_terabytes, _encrypted, _single_array])
def test_an_npz_that_is_damaged_or_hostile(noema: Noema, tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "odd.npz")
    noema("decode", tmp_path / "odd.npz", "--language", "fra").fails(2, "not a file of concepts")


@pytest.mark.parametrize("number", ["NaN", "1e400", "1e300", "-Infinity"])
def test_concepts_that_are_no_numbers(noema: Noema, number: str) -> None:
    encoded = noema("encode", "--language", "eng", "--json", stdin="Hello.\n").out
    given = re.sub(r'("concept": ?\[)[^,]+', rf"\g<1>{number}", encoded)
    assert number in given
    noema("decode", "--language", "fra", stdin=given).fails(2, "no numbers")


@pytest.mark.parametrize("given", ["[" * 200_000, '{"sentences": [{"concept": [1' + "0" * 400 + "]}]}"], ids=len)
def test_json_that_is_no_concepts_by_its_size(noema: Noema, given: str) -> None:
    noema("decode", "--language", "fra", stdin=given).fails(2, "not concepts")


def test_encode_and_decode_fit_together(noema: Noema, tmp_path: Path) -> None:
    concepts = tmp_path / "c.npz"
    encoded = noema("encode", "The cat is hungry. Where is it?", "--out", concepts, "--json")
    sentences = encoded.json["sentences"]
    assert isinstance(sentences, list)
    assert len(sentences) == 2
    from_file = noema("decode", concepts, "--language", "fra", "--json").json["texts"]
    from_pipe = noema("decode", "--language", "fra", "--json", stdin=encoded.out).json["texts"]
    assert from_file == from_pipe


def test_translate_keeps_lines_together(noema: Noema) -> None:
    result = noema("translate", "--to", "deu", stdin="The cat.\n\nWhere is it? Good morning.\n")
    assert result.code == 0
    lines = result.out.split("\n")
    assert len(lines) == 4
    assert lines[1] == ""
    assert lines[0]


def test_translate_takes_sound(noema: Noema, recording: Path) -> None:
    result = noema("translate", recording, "--to", "spa", "--json")
    items = result.json["items"]
    assert isinstance(items, list)
    assert len(items) == 2


@pytest.mark.parametrize("text", ["", "   ", "\x00\x07\x1b", "\u200b\n"])
def test_text_without_words(noema: Noema, text: str) -> None:
    noema("translate", text, "--to", "fra").fails(2, "no words")
    noema("translate", "--to", "fra", stdin=text).fails(2, "no words")


def test_long_text_emoji_and_control_characters(noema: Noema) -> None:
    long = noema("translate", "The cat is hungry. " * 280, "--to", "fra", "--json")
    assert long.code == 0
    assert noema("translate", "🙂🙃 \x07👨‍👩‍👧", "--to", "fra").code == 0
    noema("translate", "a" * 100_001, "--to", "fra").fails(2, "characters")


def test_concepts_that_cannot_be_written_leave_the_older_file_whole(noema: Noema, tmp_path: Path) -> None:
    out = tmp_path / "c.npz"
    assert noema("encode", "Hello.", "--out", out).code == 0
    before = out.read_bytes()
    (tmp_path / ".c.npz.part").mkdir()  # where the new file would be written first
    noema("encode", "Good morning.", "--out", out).fails(1, "cannot be written")
    assert out.read_bytes() == before


def test_a_reader_that_has_enough_is_no_error(small_bundle: Path) -> None:
    process = noema_process("translate", "--to", "fra", "--bundle", small_bundle)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.write("The cat is hungry.\n" * 100)
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0
    process.stderr.close()
