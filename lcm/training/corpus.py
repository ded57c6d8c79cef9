"""Any corpus: text, JSONL and Parquet files in, documents with language, roles and split out.

A document's split is drawn from its identifier alone: the field that holds it, else the name of a whole file, else the
hash of its text; the pieces of a long one share its first one's. So it never changes split, and two equal ones are in
the same. What cannot be used is told, not raised. Knows nothing of sentences or concepts.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lcm.errors import LanguageError, TrainingDataError
from lcm.models.turns import ROLE_AGENT, ROLE_NARRATOR, ROLE_USER
from lcm.space.languages import Languages
from lcm.space.sentences import clean
from lcm.training.corpus_files import DAMAGE, CorpusFile, Line, damage, lines, pyarrow
from lcm.training.corpus_records import CorpusDocument, Position, Record, Unusable
from lcm.training.data import split_of

LONGEST_TEXT = 2_000_000
"""characters of a document after which another piece begins, so that none outgrows memory; they stay in one split"""
_MOST_WRONG = 1_000
_LONGEST_NAME = 120
_ROLES = {
    **dict.fromkeys(("user", "human", "prompter", "customer", "client"), ROLE_USER),
    **dict.fromkeys(("assistant", "agent", "gpt", "bot", "model", "chatbot"), ROLE_AGENT),
    **dict.fromkeys(("system", "narrator"), ROLE_NARRATOR),
}
_ROLE_FIELDS, _TEXT_FIELDS = ("role", "from", "speaker"), ("text", "content", "value")

Turns = list[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class CorpusForm:
    """How a corpus is read."""

    name: str
    """of the corpus, in the documents' names"""
    text: str = "text"
    """field of a row that holds a text: a string, or a list of paragraphs"""
    turns: str | None = None
    """field that holds a dialogue instead: strings, the user's and the agent's in turn, or objects {role, text}"""
    language: str = "eng"
    """of everything; or the field that holds it"""
    identifier: str | None = None
    """field"""
    documents: Literal["file", "blank-line", "line"] = "file"
    """what is a document in a text file: all of it, a block between blank lines, or a line"""
    paragraphs: Literal["line", "blank-line"] = "line"
    """what ends a paragraph; `blank-line` where lines are wrapped"""
    dev_share: float = 0.01
    test_share: float = 0.01

    def __post_init__(self) -> None:
        """See that something is left to train on.

        Raises:
            TrainingDataError: dev and test take everything.
        """
        if (held_out := self.dev_share + self.test_share) >= 1:
            raise TrainingDataError(f"--dev-share and --test-share are {held_out:g} together; leave some to train on")


class _UnusableError(Exception):
    """A row that cannot be used: kind, detail."""


@dataclass(frozen=True, slots=True)
class FileCorpus:
    """Documents of files."""

    files: list[CorpusFile]
    form: CorpusForm
    languages: Languages
    """of the space"""
    language: str | None = field(init=False)
    """of everything; None: `form.language` is a field"""

    def __post_init__(self) -> None:
        """See that a language which is no field is known.

        Raises:
            TrainingDataError: text files have no fields; or it is a language's name, which no field bears.
        """
        written = self.form.language
        try:
            object.__setattr__(self, "language", self._known(written, named=len(written) == 2))
        except LanguageError as error:
            if self.languages.named(written) or any(file.kind == "text" for file in self.files):
                raise TrainingDataError(f"--language: {error}") from error
            object.__setattr__(self, "language", None)
        if any(file.kind == "parquet" for file in self.files):
            pyarrow("Parquet")

    @property
    def identity(self) -> dict[str, Any]:
        """What the documents depend on; raises as `CorpusFile.identity`."""
        return asdict(self.form) | {"files": [file.identity for file in self.files]}

    def records(self, start: Position) -> Iterator[Record]:
        """From a place on; what lies behind in the same file is passed over quickly."""
        whole = max(1, sum(file.size for file in self.files))
        before = sum(file.size for file in self.files[: start[0]])
        for number, file in enumerate(self.files[start[0] :], start=start[0]):
            skip = start[1] if number == start[0] else 0
            read = {"text": self._texts, "jsonl": self._json_lines, "parquet": self._parquet_rows}[file.kind]
            for count, at, document, unusable in read(file, skip):
                yield Record((number, count), min(1.0, (before + at) / whole), document, unusable)
            before += file.size

    def _texts(self, file: CorpusFile, skip: int) -> Iterator["_Read"]:
        assert self.language is not None, "seen to when this was made"
        name = file.name
        for count, (some, ends, begins) in enumerate(_blocks(file, self.form.documents), start=1):
            turns = self._paragraphs([line.text for line in some])
            if begins and self.form.documents != "file":
                name = _hashed(turns)
            if count <= skip:
                continue
            unusable = tuple(_wrong(file, line) for line in some if line.wrong)
            document = self._document(f"story/{self.form.name}", self.language, name, turns) if turns else None
            yield count, ends, document, unusable

    def _json_lines(self, file: CorpusFile, skip: int) -> Iterator["_Read"]:
        for line in lines(file):
            if line.number <= skip or not (line.text.strip() or line.wrong):
                continue
            if line.wrong:
                yield line.number, line.read, None, (_wrong(file, line),)
                continue
            yield line.number, line.read, *self._row(_json_object, line.text, f"{file.path}:{line.number}")

    def _parquet_rows(self, file: CorpusFile, skip: int) -> Iterator["_Read"]:
        count = 0
        try:
            with pyarrow("Parquet").parquet.ParquetFile(file.path) as table:
                wanted = [self.form.turns or self.form.text, self.form.identifier]
                wanted += [self.form.language] if self.language is None else []
                columns = [column for column in wanted if column]
                if missing := [column for column in columns if column not in table.schema_arrow.names]:
                    known = ", ".join(table.schema_arrow.names)
                    unusable = Unusable(str(file.path), f"no column {missing[0]!r}", f"it has {known}")
                    yield 1, file.size, None, (unusable,)
                    return
                total = max(1, table.metadata.num_rows)
                for group in range(table.num_row_groups):
                    size = table.metadata.row_group(group).num_rows
                    if count + size <= skip:
                        count += size
                        continue
                    for batch in table.iter_batches(batch_size=256, row_groups=[group], columns=columns):
                        for row in batch.to_pylist():
                            count += 1
                            if count > skip:
                                at = file.size * count // total
                                yield count, at, *self._row(dict, row, f"{file.path} row {count}")
        except (*DAMAGE, pyarrow("Parquet").ArrowException) as error:
            where = f"{file.path} row {count + 1}"
            yield count + 1, file.size, None, (Unusable(where, "damaged file", damage(error, where)),)

    def _row(self, parse: Any, content: Any, where: str) -> "tuple[CorpusDocument | None, tuple[Unusable, ...]]":
        try:
            row = parse(content)
            kind = "dialogue" if self.form.turns else "story"
            turns = _dialogue(_field(row, self.form.turns)) if self.form.turns else self._story(row)
            name = _identifier(row, self.form.identifier) if self.form.identifier else _hashed(turns)
            return self._document(f"{kind}/{self.form.name}", self._language(row), name, turns), ()
        except _UnusableError as error:
            return None, (Unusable(where, *error.args),)

    def _story(self, row: Mapping[str, Any]) -> Turns:
        text = _field(row, self.form.text)
        if isinstance(text, list) and all(isinstance(paragraph, str) for paragraph in text):
            return [(ROLE_NARRATOR, paragraph) for paragraph in text]
        if not isinstance(text, str):
            raise _UnusableError("no text", f"{self.form.text!r} holds {_shown(text)}")
        return self._paragraphs(text.splitlines())

    def _paragraphs(self, given: list[str]) -> Turns:
        if self.form.paragraphs == "line":
            return [(ROLE_NARRATOR, line) for line in given if line.strip()]
        blocks = re.split(r"\n\s*\n", "\n".join(given))
        return [(ROLE_NARRATOR, " ".join(block.split())) for block in blocks if block.strip()]

    def _language(self, row: Mapping[str, Any]) -> str:
        if self.language is not None:
            return self.language
        written = _field(row, self.form.language)
        try:
            return self._known(str(written))
        except LanguageError as error:
            raise _UnusableError("unknown language", str(error)) from error

    def _known(self, written: str, *, named: bool = True) -> str:
        """The space's own tag, also of what is `named` otherwise: `en`, `English`."""
        try:
            return self.languages.resolve(written)
        except LanguageError:
            if named and len(tags := self.languages.named(written)) == 1:
                return tags[0]
            raise

    def _document(self, corpus: str, language: str, name: str, turns: Turns) -> CorpusDocument:
        split = split_of(name, "corpus", self.form.dev_share, self.form.test_share)
        return CorpusDocument(corpus, language, name, split, turns)


_Read = tuple[int, int, CorpusDocument | None, tuple[Unusable, ...]]
"""records and bytes of the file that lie behind, and what was read"""


def _blocks(file: CorpusFile, documents: str) -> Iterator[tuple[list[Line], int, bool]]:
    """The lines of one document after the other, or of a piece of a long one; how much is read; whether it is a first.

    «How much» is of the file; a piece that is no document's first goes on with that of the piece before.
    """
    block: list[Line] = []
    length = wrong = 0
    begins = True
    for line in lines(file):
        blank = not (line.text.strip() or line.wrong)
        full = length > LONGEST_TEXT or wrong > _MOST_WRONG
        ends = documents == "line" or (blank and documents == "blank-line")
        if block and (ends or full):
            yield block, line.read, begins
            block, length, wrong, begins = [], 0, 0, ends
        if not blank or block:
            block.append(line)
            length, wrong = length + len(line.text), wrong + bool(line.wrong)
    if block:
        yield block, file.size, begins


def _wrong(file: CorpusFile, line: Line) -> Unusable:
    kind, _, detail = line.wrong.partition(": ")
    return Unusable(f"{file.path}:{line.number}", kind, detail)


def _json_object(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _UnusableError("not JSON", str(error)) from error
    if not isinstance(row, dict):
        raise _UnusableError("not a JSON object", f"one object a line, {{…}}, not {_shown(row)}")
    return row


def _field(row: Mapping[str, Any], name: str) -> Any:
    if row.get(name) is None:
        raise _UnusableError(f"no field {name!r}", f"it has {', '.join(row) or 'none'}")
    return row[name]


def _identifier(row: Mapping[str, Any], name: str) -> str:
    written = " ".join(clean(str(_field(row, name))).split())
    if len(written) <= _LONGEST_NAME:
        return written
    return written[: _LONGEST_NAME - 17] + "#" + hashlib.blake2b(written.encode(), digest_size=8).hexdigest()


def _dialogue(turns: Any) -> Turns:
    """Roles by their names; two speakers of other names are user and agent, in the order in which they speak."""
    if not isinstance(turns, list) or not turns:
        raise _UnusableError("no turns", f"give a list, not {_shown(turns)}")
    if all(isinstance(turn, str) for turn in turns):
        return [((ROLE_USER, ROLE_AGENT)[number % 2], turn) for number, turn in enumerate(turns)]
    said = [(_one_of(turn, _ROLE_FIELDS), _one_of(turn, _TEXT_FIELDS)) for turn in turns]
    speakers = list(dict.fromkeys(speaker for speaker, _ in said))
    if all(speaker.casefold() in _ROLES for speaker in speakers):
        return [(_ROLES[speaker.casefold()], text) for speaker, text in said]
    if len(speakers) > 2:
        raise _UnusableError("unknown roles", f"{', '.join(speakers[:4])}; use user and agent, or two speakers' names")
    return [((ROLE_USER, ROLE_AGENT)[speakers.index(speaker)], text) for speaker, text in said]


def _one_of(turn: Any, names: tuple[str, ...]) -> str:
    if isinstance(turn, dict):
        for name in names:
            if isinstance(turn.get(name), str):
                return str(turn[name])
    raise _UnusableError("no turns", f"a turn is a string or an object {{role, text}}, not {_shown(turn)}")


def _hashed(turns: Turns) -> str:
    """Names a document by what it says."""
    content = "\n".join(text for _, text in turns)
    return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _shown(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 60 else shown[:57] + "…"
