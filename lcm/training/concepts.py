"""Concepts for training: a folder of them in, sentences' concepts and texts and the documents they stand in out.

A folder holds shards of concepts and sentences (`concept_shards`), one `documents.SPLIT.npz` a split (which rows follow
one another, who says them) and `manifest.json` with the `space_id`, the number of rows and those of each shard. It is
written by `shard_writer`, of any corpus; here of the prepared dialogues and stories. Knows nothing of models that
predict.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from lcm.errors import TrainingDataError
from lcm.models.turns import ROLE_AGENT, ROLE_NARRATOR, ROLE_USER
from lcm.space import ConceptSpace
from lcm.training.concept_shards import ShardedConcepts, ShardedTexts, concepts_path, sentences_path
from lcm.training.corpus_records import CorpusDocument, Position, Record
from lcm.training.data import SPLITS, SPLITS_NOTE, made_of, read_split, share, splits_id
from lcm.training.shard_writer import SOURCE, write_shards

_ADVICE = "python -m scripts.train configs/training/base_mini.yaml --bundle BUNDLE encodes them"
SGD_SHARE = 0.15
"""Of Schema-Guided Dialogue's templated dialogues so many are kept"""
SYMMETRIC = frozenset({"self_dialogue", "topicalchat", "xpersona"})
"""Corpora of two equals: either may stand for the agent. In the others the second speaker is a machine, or plays it."""

Ints = np.ndarray[Any, np.dtype[np.integer[Any]]]


def exchanged(roles: Ints) -> Ints:
    """[...] roles with the two speakers in each other's place; who narrates goes on narrating."""
    speaks = (roles == ROLE_USER) | (roles == ROLE_AGENT)
    return np.where(speaks, ROLE_USER + ROLE_AGENT - roles, roles)


@dataclass(frozen=True, slots=True)
class Documents:
    """Dialogues and stories of one split, one behind the other."""

    sentences: Ints  # [S] row of the concept table
    roles: Ints  # [S]
    last: Ints  # [S] 1 where the sentence ends its turn or paragraph
    starts: Ints  # [D + 1]
    corpora: Ints  # [D] index into `corpus_names`
    corpus_names: tuple[str, ...]
    """«dialogue/self_dialogue.eng», «story/african_storybook.fra»"""
    names: tuple[str, ...]  # D identifiers

    def __len__(self) -> int:
        return len(self.corpora)

    def corpus(self, document: int) -> str:
        """The corpus and language of a document."""
        return self.corpus_names[self.corpora[document]]

    def language(self, document: int) -> str:
        """ISO 639-3."""
        return self.corpus(document).rsplit(".", 1)[1]

    def rows(self, document: int) -> slice:
        """Where its sentences stand in `sentences`, `roles` and `last`."""
        return slice(int(self.starts[document]), int(self.starts[document + 1]))

    def sample(self, kept: float) -> "Documents":
        """The documents that a table of a share of them would hold: the same whatever this one holds."""
        return self.only([d for d in range(len(self)) if _is_kept(self.corpus(d), self.names[d], kept)])

    def only(self, chosen: Sequence[int]) -> "Documents":
        """Some of them."""
        kept_rows = [np.arange(self.starts[d], self.starts[d + 1]) for d in chosen]
        rows = np.concatenate([np.empty(0, dtype=np.int64), *kept_rows])
        lengths = np.diff(self.starts)[list(chosen)]
        return Documents(
            self.sentences[rows],
            self.roles[rows],
            self.last[rows],
            np.append(0, np.cumsum(lengths)),
            self.corpora[list(chosen)],
            self.corpus_names,
            tuple(self.names[d] for d in chosen),
        )

    def identity(self) -> str:
        """Names these documents by all that they hold."""
        digest = hashlib.sha256("\n".join([*self.corpus_names, *self.names]).encode())
        for numbers in (self.sentences, self.roles, self.last, self.starts, self.corpora):
            digest.update(numbers.astype(np.int64).tobytes())
        return digest.hexdigest()[:16]

    def reply_starts(self, document: int) -> list[int]:
        """Positions in the document of first sentences of replies: where the speaker changes."""
        roles = self.roles[self.rows(document)]
        return (np.flatnonzero(roles[1:] != roles[:-1]) + 1).tolist()


class ConceptRows(Protocol):
    """Sentences' concepts by their numbers."""

    def of(self, rows: Ints) -> torch.Tensor:
        """[...] rows → [..., C] float32."""
        ...


@dataclass(frozen=True, slots=True)
class ConceptTable:
    """Every distinct sentence's concept."""

    concepts: ShardedConcepts  # [N, C], memory-mapped
    folder: Path
    space_id: str
    languages: frozenset[str] = frozenset()
    """of the training documents; all if empty"""

    @classmethod
    def open(cls, folder: Path, space_id: str | None = None) -> "ConceptTable":
        """Open what `prepare_concepts` or `python -m scripts.prepare_data corpus` wrote.

        Raises:
            TrainingDataError: nothing there, or not finished, or made for another space than `space_id`.
        """
        manifest = _manifest(folder)
        if space_id is not None and manifest["space_id"] != space_id:
            raise TrainingDataError(
                f"the concepts at {folder} are of space {manifest['space_id']}, not {space_id}; {_ADVICE}"
            )
        paths, rows = _shards(folder, manifest, concepts_path, "concepts.npy")
        return cls(ShardedConcepts.open(paths, rows, manifest["dim"]), folder, manifest["space_id"])

    def of(self, rows: Ints) -> torch.Tensor:
        """[...] rows → [..., C] float32."""
        return torch.from_numpy(self.concepts[rows].astype(np.float32))

    def texts(self) -> ShardedTexts:
        """(language, text) of every row, unpacked when asked for; `texts().of(rows)` for some rows of a large table."""
        return ShardedTexts(*_shards(self.folder, _manifest(self.folder), sentences_path, "sentences.jsonl.xz"))

    def documents(self, split: str) -> Documents:
        """The documents of `train`, `dev` or `test`."""
        with np.load(self.folder / f"documents.{split}.npz") as a:
            names = (tuple(a["corpus_names"].tolist()), tuple(a["names"].tolist()))
            found = Documents(a["sentences"], a["roles"], a["last"], a["starts"], a["corpora"], *names)
        if split != "train" or not self.languages:
            return found
        return found.only([d for d in range(len(found)) if found.language(d) in self.languages])

    def corpus(self) -> dict[str, Any] | None:
        """What somebody's own corpus was: name, number of files, documents a split. None: the prepared splits."""
        if (self.folder / SPLITS_NOTE).exists():
            return None
        note = self.folder / SOURCE
        form = json.loads(note.read_text(encoding="utf-8"))["corpus"] if note.exists() else {}
        documents = _manifest(self.folder).get("documents", {})
        name, files = form.get("name", self.folder.name), form.get("files", [])
        return {"corpus": name, "files": len(files), "documents": documents}

    def taught_in(self, languages: Sequence[str]) -> "ConceptTable":
        """The same, with training documents in these languages alone.

        Raises:
            TrainingDataError: there are none in one of them.
        """
        known = {name.rsplit(".", 1)[1] for name in self.documents("train").corpus_names}
        if unknown := sorted(set(languages) - known):
            raise TrainingDataError(f"no training document is in {unknown[0]!r}; languages: {', '.join(sorted(known))}")
        return replace(self, languages=frozenset(languages))


def concept_table(
    space: ConceptSpace,
    data: Path,
    folder: Path,
    report: Callable[[str], None] = lambda _: None,
    *,
    train_share: float = 1.0,
) -> ConceptTable:
    """Open the encoded sentences at `folder`; encode the splits at `data` if they are missing or of another space."""
    try:
        table = ConceptTable.open(folder, space.space_id)
    except TrainingDataError:
        prepare_concepts(data, folder, space, train_share=train_share, report=report)
        return ConceptTable.open(folder, space.space_id)
    made_of(folder, data)
    return table


def prepare_concepts(
    data: Path,
    out: Path,
    space: ConceptSpace,
    *,
    train_share: float = 1.0,
    report: Callable[[str], None] = lambda _: None,
) -> None:
    """Split, number and encode every sentence of the dialogues and stories under `data`, for `space`.

    Args:
        data: the folder of prepared splits.
        out: where to write; the beginning of the same is gone on with, anything else replaced.
        space: whose concepts.
        train_share: how many of all training documents to keep, for a trial.
        report: told of progress.
    """
    (out / SPLITS_NOTE).unlink(missing_ok=True)
    made_of(out, data)
    for progress in write_shards(PreparedCorpus(data, train_share), out, space, replace=True):
        report(f"{progress.counts['documents']} documents read, {progress.rows} sentences encoded")


@dataclass(frozen=True, slots=True)
class PreparedCorpus:
    """The dialogues and stories of the prepared splits."""

    data: Path
    train_share: float = 1.0

    @property
    def identity(self) -> dict[str, Any]:
        """What the documents depend on."""
        return {"splits": splits_id(self.data), "train_share": self.train_share}

    def records(self, start: Position) -> Iterator[Record]:
        """Dialogues, then stories, split by split."""
        files = [(kind, split) for split in SPLITS for kind in ("dialogues", "stories")]
        for number, (kind, split) in enumerate(files[start[0] :], start=start[0]):
            kept = self.train_share if split == "train" else 1.0
            for line, row in enumerate(read_split(self.data, f"{kind}.{split}"), start=1):
                if number == start[0] and line <= start[1]:
                    continue
                if kind == "dialogues":
                    corpus = f"dialogue/{row['corpus']}"
                    turns = [((ROLE_USER, ROLE_AGENT)[i % 2], turn) for i, turn in enumerate(row["turns"])]
                else:
                    corpus = f"story/{row['corpus']}"
                    turns = [(ROLE_NARRATOR, paragraph) for paragraph in row["paragraphs"]]
                if _is_kept(corpus, row["id"], kept):
                    document = CorpusDocument(corpus, row["language"], str(row["id"]), split, turns)
                    yield Record((number, line), number / len(files), document)


def _is_kept(corpus: str, name: str, kept: float) -> bool:
    """Whether a document belongs to a share of all; a story always does."""
    kind, _, corpus = corpus.partition("/")
    return kind == "story" or share(name, "concepts") < kept * (SGD_SHARE if corpus.startswith("sgd") else 1.0)


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return {"rows": manifest["rows"], "dim": manifest["dim"], "space_id": manifest["space_id"]} | manifest
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TrainingDataError(f"no concepts at {folder} ({error}); {_ADVICE}") from error


def _shards(
    folder: Path, manifest: dict[str, Any], path: Callable[[Path, int], Path], alone: str
) -> tuple[list[Path], list[int]]:
    """The file of each shard, and its rows. Without shards one file, called `alone`, holds everything."""
    if "shards" not in manifest:
        return [folder / alone], [manifest["rows"]]
    return [path(folder, number) for number in range(len(manifest["shards"]))], manifest["shards"]
