"""Concepts for training: prepared dialogues and stories in, every sentence's concept out, encoded once.

Writes a folder: `concepts.npy` (float16 [N, C], memory-mapped when read), `sentences.jsonl.xz` (language and text of
each row), one `documents.SPLIT.npz` a split (which rows follow one another, who says them) and `manifest.json` with the
`space_id`. Knows nothing of models that predict.
"""

import json
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lcm.errors import TrainingDataError
from lcm.models.base_lcm import ROLE_AGENT, ROLE_NARRATOR, ROLE_USER
from lcm.space import ConceptSpace
from lcm.space.sentences import split_sentences
from lcm.training.data import MAX_CHARS, SPLITS, made_of, read_split, share

ENCODE_CHUNK = 8_192
_ADVICE = "python -m scripts.train configs/training/base_mini.yaml --bundle BUNDLE encodes them"
SGD_SHARE = 0.15
"""Of Schema-Guided Dialogue's templated dialogues so many are kept"""
SYMMETRIC = frozenset({"self_dialogue", "topicalchat", "xpersona"})
"""Corpora of two equals: either may stand for the agent. In the others the second speaker is a machine, or plays it."""

Ints = np.ndarray[Any, np.dtype[np.integer[Any]]]


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
        chosen = [d for d in range(len(self)) if _is_kept(self.corpus(d), self.names[d], kept)]
        rows = np.concatenate([np.arange(self.starts[d], self.starts[d + 1]) for d in chosen])
        lengths = np.diff(self.starts)[chosen]
        return Documents(
            self.sentences[rows],
            self.roles[rows],
            self.last[rows],
            np.append(0, np.cumsum(lengths)),
            self.corpora[chosen],
            self.corpus_names,
            tuple(self.names[d] for d in chosen),
        )

    def reply_starts(self, document: int) -> list[int]:
        """Positions in the document of first sentences of replies: where the speaker changes."""
        roles = self.roles[self.rows(document)]
        return (np.flatnonzero(roles[1:] != roles[:-1]) + 1).tolist()


@dataclass(frozen=True, slots=True)
class ConceptTable:
    """Every distinct sentence's concept."""

    concepts: np.ndarray[Any, np.dtype[np.float16]]  # [N, C], memory-mapped
    folder: Path
    space_id: str

    @classmethod
    def open(cls, folder: Path, space_id: str | None = None) -> "ConceptTable":
        """Open what `prepare_concepts` wrote.

        Raises:
            TrainingDataError: nothing there, or made for another space than `space_id`.
        """
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            concepts = np.load(folder / "concepts.npy", mmap_mode="r")
        except (OSError, ValueError) as error:
            raise TrainingDataError(f"no concepts at {folder} ({error}); {_ADVICE}") from error
        if space_id is not None and manifest["space_id"] != space_id:
            raise TrainingDataError(
                f"the concepts at {folder} are of space {manifest['space_id']}, not {space_id}; {_ADVICE}"
            )
        return cls(concepts, folder, manifest["space_id"])

    def of(self, rows: Ints) -> torch.Tensor:
        """[...] rows → [..., C] float32."""
        return torch.from_numpy(self.concepts[rows].astype(np.float32))

    def texts(self) -> list[tuple[str, str]]:
        """(language, text) of every row."""
        with lzma.open(self.folder / "sentences.jsonl.xz", "rt", encoding="utf-8") as lines:
            return [(row[0], row[1]) for row in map(json.loads, lines)]

    def documents(self, split: str) -> Documents:
        """The documents of `train`, `dev` or `test`."""
        with np.load(self.folder / f"documents.{split}.npz") as a:
            names = (tuple(a["corpus_names"].tolist()), tuple(a["names"].tolist()))
            return Documents(a["sentences"], a["roles"], a["last"], a["starts"], a["corpora"], *names)


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
        out: where to write; replaced file by file, the manifest last.
        space: whose concepts.
        train_share: how many of all training documents to keep, for a trial.
        report: told of progress.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in ("manifest.json", "splits.txt"):
        (out / name).unlink(missing_ok=True)
    made_of(out, data)
    index: dict[tuple[str, str], int] = {}
    for split in SPLITS:
        kept = train_share if split == "train" else 1.0
        documents = _numbered(_turns(data, split, kept), index)
        np.savez(out / f"documents.{split}.npz", **documents)
        report(f"{split}: {len(documents['corpora'])} documents, {len(documents['sentences'])} sentences")
    with lzma.open(out / "sentences.jsonl.xz", "wt", encoding="utf-8", preset=1) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in index)
    _encode(list(index), out / "concepts.npy", space, report)
    manifest = {"space_id": space.space_id, "rows": len(index), "dim": space.dim}
    (out / "manifest.json").write_text(json.dumps(manifest) + "\n", encoding="utf-8")


def _is_kept(corpus: str, name: str, kept: float) -> bool:
    """Whether a document belongs to a share of all; a story always does."""
    kind, _, corpus = corpus.partition("/")
    return kind == "story" or share(name, "concepts") < kept * (SGD_SHARE if corpus.startswith("sgd") else 1.0)


def _turns(data: Path, split: str, kept: float) -> Iterator[tuple[str, str, str, list[tuple[int, str]]]]:
    """Each kept document: corpus, language, identifier, and its turns as (role, text)."""
    for row in read_split(data, f"dialogues.{split}"):
        if not _is_kept(f"dialogue/{row['corpus']}", row["id"], kept):
            continue
        roles = (ROLE_USER, ROLE_AGENT)
        turns = [(roles[i % 2], turn) for i, turn in enumerate(row["turns"])]
        yield f"dialogue/{row['corpus']}", row["language"], row["id"], turns
    for row in read_split(data, f"stories.{split}"):
        turns = [(ROLE_NARRATOR, paragraph) for paragraph in row["paragraphs"]]
        yield f"story/{row['corpus']}", row["language"], row["id"], turns


def _numbered(
    documents: Iterator[tuple[str, str, str, list[tuple[int, str]]]], index: dict[tuple[str, str], int]
) -> dict[str, Any]:
    sentences, roles, last, starts, corpora, names = [], [], [], [0], [], []
    corpus_names: dict[str, int] = {}
    for corpus, language, name, turns in documents:
        for role, turn in turns:
            parts = [s for s in split_sentences(turn, language, max_chars=MAX_CHARS) if any(c.isalnum() for c in s)]
            for number, sentence in enumerate(parts, start=1):
                sentences.append(index.setdefault((language, sentence), len(index)))
                roles.append(role)
                last.append(number == len(parts))
        if len(sentences) - starts[-1] < 2:
            del sentences[starts[-1] :], roles[starts[-1] :], last[starts[-1] :]
            continue
        starts.append(len(sentences))
        corpora.append(corpus_names.setdefault(f"{corpus}.{language}", len(corpus_names)))
        names.append(str(name))
    return {
        "sentences": np.array(sentences, dtype=np.int32),
        "roles": np.array(roles, dtype=np.uint8),
        "last": np.array(last, dtype=np.uint8),
        "starts": np.array(starts, dtype=np.int64),
        "corpora": np.array(corpora, dtype=np.int16),
        "corpus_names": np.array(list(corpus_names)),
        "names": np.array(names),
    }


def _encode(sentences: list[tuple[str, str]], path: Path, space: ConceptSpace, report: Callable[[str], None]) -> None:
    """Shortest first, so that a batch holds little padding."""
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i][1]))
    aside = path.with_suffix(".new.npy")
    table = np.lib.format.open_memmap(aside, mode="w+", dtype=np.float16, shape=(len(sentences), space.dim))
    for start in range(0, len(order), ENCODE_CHUNK):
        rows = order[start : start + ENCODE_CHUNK]
        texts, languages = [sentences[i][1] for i in rows], [sentences[i][0] for i in rows]
        table[rows] = space.encode_text(texts, languages).numpy().astype(np.float16)
        report(f"encoded {start + len(rows)} of {len(sentences)} sentences")
    table.flush()
    aside.replace(path)
