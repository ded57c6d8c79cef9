"""Data preparation: the raw corpora in, frozen splits out. Made once, before anything trains.

Gives JSONL files of parallel sentences, sentences, dialogues, stories and speech, each in `train`, `dev` and `test`,
and `manifest.json` with their SHA-256. Knows nothing of tokens or models.

Leaks that a naive split has, and what is done about each:
- Tatoeba links many translations: split by connected component over normalised text, all language pairs at once.
- Transcripts of every recording leave the parallel sets, whatever the recording's own split; those of held-out
  recordings leave the sentences too.
- Held-out sentences leave the sentence lists, dialogues' and stories' sentences used for text training.
- Dialogues are split by dialogue, stories by book, speech by speaker *and* sentence.
"""

import hashlib
import itertools
import json
import lzma
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lcm.errors import TrainingDataError
from lcm.space.sentences import split_sentences

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
LANGUAGES = ("eng", "fra", "spa", "deu")
_ISO3 = {"en": "eng", "fr": "fra", "es": "spa", "de": "deu", "en-L2zh": "eng"}

_CHECKOUT = Path(__file__).resolve().parents[2]
DEFAULT_DATA = Path(os.environ.get("NOEMA_DATA") or _CHECKOUT.parent / "shared" / "data")
DEFAULT_RUNS = _CHECKOUT / "runs"
DEFAULT_PREPARED = DEFAULT_RUNS / "data"
SPLITS_FILE = _CHECKOUT / "configs" / "training" / "splits.json"

SPLITS_NOTE = "splits.txt"
"""In a folder that is derived from the splits: which ones they were"""

DEV_SHARE, TEST_SHARE = 0.01, 0.02
MAX_CHARS = 220
LARGEST_HELD_OUT_COMPONENT = 60
TEST_BOOKS = {"alices-adventures-in-wonderland", "the-wonderful-wizard-of-oz"}
DEV_BOOKS = {"aesop-fables"}
TEST_DIALOGUE_FILES: dict[str, Split] = {"sgd.dev": "test"}
SPEECH_SHARES = {"librispeech_en": (0.1, 0.2), "speechocean_en": (0.1, 0.2), "kerstin_de": (0.05, 0.1)}
TEST_ONLY_SPEECH = {"commonvoice_half", "css10_es"}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sentences that mean the same, and the component of translations they belong to."""

    component: int
    languages: tuple[str, str]
    texts: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Recording:
    """One utterance of a speech corpus."""

    corpus: str
    file: str
    speaker: str
    language: str
    seconds: float
    text: str


def key(text: str) -> str:
    """What makes two sentences the same for a split: NFKC, case-folded letters and digits, single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(c if c.isalnum() else " " for c in folded).split())


def share(name: str, salt: str) -> float:
    """A number in [0, 1) that depends on `name` alone: the same split on every machine."""
    digest = hashlib.blake2b(f"{salt}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def split_of(name: str, salt: str, dev: float = DEV_SHARE, test: float = TEST_SHARE) -> Split:
    """The split of whatever `name` names."""
    at = share(name, salt)
    return "test" if at < test else "dev" if at < test + dev else "train"


def read_lines(path: Path) -> Iterator[str]:
    """Lines of an xz file, without their ends.

    Raises:
        TrainingDataError: the file is missing or not xz.
    """
    try:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield line.rstrip("\n")
    except (OSError, lzma.LZMAError) as error:
        raise TrainingDataError(f"cannot read {path} ({error}); point --data at the training data") from error


def read_recordings(data: Path) -> list[Recording]:
    """Every transcribed recording of `data`/speech."""
    recordings = []
    for path in sorted((data / "speech").glob("*.tsv")):
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            file, speaker, lang, seconds, text = line.split("\t")
            recordings.append(Recording(path.stem, file, speaker, _ISO3[lang], float(seconds), text))
    return recordings


def split_recordings(recordings: Iterable[Recording]) -> dict[Split, list[Recording]]:
    """Split by speaker; then sentences of held-out speakers leave the others' sets (by sentence where one speaks)."""
    splits: dict[Split, list[Recording]] = {s: [] for s in SPLITS}
    for recording in recordings:
        if recording.corpus in TEST_ONLY_SPEECH:
            splits["test"].append(recording)
            continue
        unit = key(recording.text) if recording.corpus == "kerstin_de" else recording.speaker
        dev, test = SPEECH_SHARES[recording.corpus]
        splits[split_of(unit, recording.corpus, dev, test)].append(recording)
    tested = {key(r.text) for r in splits["test"]}
    splits["dev"] = [r for r in splits["dev"] if key(r.text) not in tested]
    tested |= {key(r.text) for r in splits["dev"]}
    splits["train"] = [r for r in splits["train"] if key(r.text) not in tested]
    return splits


def read_parallel(data: Path) -> list[Pair]:
    """Tatoeba's pairs, components not yet known."""
    pairs = []
    for language in LANGUAGES[1:]:
        for line in read_lines(data / "text/parallel" / f"tatoeba.eng-{language}.tsv.xz"):
            english, other = line.split("\t")[:2]
            if key(english) and key(other) and max(len(english), len(other)) <= MAX_CHARS:
                pairs.append(Pair(-1, ("eng", language), (english.strip(), other.strip())))
    return pairs


def with_components(pairs: list[Pair]) -> list[Pair]:
    """Number the connected components of the graph whose nodes are (language, normalised text)."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for pair in pairs:
        a, b = ((lang, key(text)) for lang, text in zip(pair.languages, pair.texts, strict=True))
        roots = sorted((root(a), root(b)))
        parent[roots[1]] = roots[0]  # the smaller stays root: numbering is independent of the order of pairs
    numbers = {node: number for number, node in enumerate(sorted({root(node) for node in parent}))}
    return [Pair(numbers[root((p.languages[0], key(p.texts[0])))], p.languages, p.texts) for p in pairs]


def split_parallel(pairs: list[Pair], banned: set[str]) -> dict[Split, list[Pair]]:
    """Split by component; components that hold a `banned` sentence (a transcript) are dropped."""
    by_component: dict[int, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_component[pair.component].append(pair)
    splits: dict[Split, list[Pair]] = {s: [] for s in SPLITS}
    for members in by_component.values():
        keys = {key(text) for pair in members for text in pair.texts}
        if keys & banned:
            continue
        split = split_of(min(keys), "tatoeba") if len(members) <= LARGEST_HELD_OUT_COMPONENT else "train"
        splits[split].extend(members)
    # The same letters in two languages («Nein.» / «nein») are two nodes: what is held out in one leaves the other.
    held_out = {key(t) for s in ("dev", "test") for p in splits[s] for t in p.texts}
    splits["train"] = [p for p in splits["train"] if not any(key(t) in held_out for t in p.texts)]
    tested = {key(t) for p in splits["test"] for t in p.texts}
    splits["dev"] = [p for p in splits["dev"] if not any(key(t) in tested for t in p.texts)]
    return splits


def triangulated(pairs: list[Pair]) -> list[Pair]:
    """fra-deu, fra-spa and deu-spa pairs through an English sentence they share, at most two for each English."""
    by_english: dict[str, dict[str, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for pair in pairs:
        by_english[pair.texts[0]][pair.languages[1]].append(pair)
    made = []
    for translations in by_english.values():
        for a, b in itertools.combinations(sorted(translations), 2):
            for x, y in itertools.islice(zip(translations[a], translations[b], strict=False), 2):
                made.append(Pair(x.component, (a, b), (x.texts[1], y.texts[1])))
    return made


def read_dialogues(data: Path) -> dict[Split, list[dict[str, Any]]]:
    """Dialogues as {id, corpus, language, turns}, split by dialogue; X-Persona's two languages by their number."""
    splits: dict[Split, list[dict[str, Any]]] = {s: [] for s in SPLITS}
    seen: set[tuple[str, ...]] = set()
    for path in sorted((data / "text/dialogue").glob("*.tsv.xz")):
        name = path.name.removesuffix(".tsv.xz")
        corpus = name.split(".")[0]
        language = next((_ISO3[part] for part in name.split(".") if part in _ISO3), "eng")
        for line in read_lines(path):
            identity, *turns = line.split("\t")
            turns = [t.strip() for t in turns if key(t)]
            opening = (language, *(key(t) for t in turns[:4]))
            if len(turns) < 2 or opening in seen:
                continue
            seen.add(opening)
            unit = identity.rsplit("-", 1)[-1] if corpus == "xpersona" else identity
            split = TEST_DIALOGUE_FILES.get(name) or split_of(unit, corpus, 0.02, 0.04)
            row = {"id": identity, "corpus": corpus, "language": language, "turns": turns}
            splits[split].append(row)
    return splits


def read_stories(data: Path) -> dict[Split, list[dict[str, Any]]]:
    """Stories as {id, corpus, language, paragraphs}: a book or one short story each, split by book or story id."""
    splits: dict[Split, list[dict[str, Any]]] = {s: [] for s in SPLITS}
    folder = data / "text/stories"
    for path in sorted([*folder.glob("*.tsv.xz"), *folder.glob("*.txt.xz")]):
        book = path.name.split(".")[0]
        paragraphs = [line.split("\t")[-1].strip() for line in read_lines(path)]
        split: Split = "test" if book in TEST_BOOKS else "dev" if book in DEV_BOOKS else "train"
        splits[split].append(
            {"id": book, "corpus": "book", "language": "eng", "paragraphs": [p for p in paragraphs if key(p)]}
        )
    for line in read_lines(folder / "african_storybook.jsonl.xz"):
        story = json.loads(line)
        if story["lang"] in _ISO3 and len(story["pages"]) > 1:
            row = {"id": story["id"], "corpus": "african_storybook", "language": _ISO3[story["lang"]]}
            pages = [p for p in story["pages"] if key(p)]
            splits[split_of(story["id"], "african_storybook", 0.03, 0.06)].append(row | {"paragraphs": pages})
    return splits


def training_sentences(
    data: Path,
    dialogues: list[dict[str, Any]],
    stories: list[dict[str, Any]],
    speech: list[Recording],
    banned: set[str],
) -> Iterator[dict[str, str]]:
    """Sentences of the training splits and of the sentence lists, each once, none `banned`."""
    seen = set(banned)

    def fresh(text: str) -> bool:
        k = key(text)
        if not k or k in seen or not 2 <= len(text) <= MAX_CHARS:
            return False
        seen.add(k)
        return True

    for code in ("en", "fr", "es", "de"):
        for line in read_lines(data / "text/sentences" / f"commonvoice.{code}.txt.xz"):
            if fresh(line.strip()):
                yield {"language": _ISO3[code], "source": "commonvoice", "text": line.strip()}
    units = itertools.chain(
        ((d["language"], d["corpus"], turn) for d in dialogues for turn in d["turns"]),
        ((s["language"], "stories", paragraph) for s in stories for paragraph in s["paragraphs"]),
        ((r.language, "transcripts", r.text.capitalize() if r.text.isupper() else r.text) for r in speech),
    )
    for language, source, text in units:
        for sentence in split_sentences(text, language, max_chars=MAX_CHARS):
            if fresh(sentence):
                yield {"language": language, "source": source, "text": sentence}


def prepare(data: Path, out: Path, report: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Write every split under `out` and return the manifest: file → {sha256, rows}.

    Raises:
        TrainingDataError: a corpus is missing or unreadable.
    """
    if not data.is_dir():
        raise TrainingDataError(
            f"no folder {data}: what mini has learnt from is not part of the repository. docs/MODEL_CARD.md lists it; "
            "name the folder that holds it by --data or NOEMA_DATA. Text of your own needs none of it: docs/TRAINING.md"
        )
    out.mkdir(parents=True, exist_ok=True)
    recordings = read_recordings(data)
    if not recordings:
        raise TrainingDataError(f"no speech/*.tsv under {data}; point --data at the training data")
    speech = split_recordings(recordings)
    transcripts = {key(r.text) for r in recordings}
    report(f"speech: { ({s: len(speech[s]) for s in SPLITS}) }")
    parallel = split_parallel(with_components(read_parallel(data)), transcripts)
    report(f"parallel: { ({s: len(parallel[s]) for s in SPLITS}) }")
    for split in SPLITS:
        parallel[split] = parallel[split] + triangulated(parallel[split])
    dialogues, stories = read_dialogues(data), read_stories(data)
    report(
        f"dialogues: { ({s: len(dialogues[s]) for s in SPLITS}) }, stories: { ({s: len(stories[s]) for s in SPLITS}) }"
    )
    held_out = {key(t) for s in ("dev", "test") for p in parallel[s] for t in p.texts}
    held_out |= {key(r.text) for s in ("dev", "test") for r in speech[s]}
    rows = list(training_sentences(data, dialogues["train"], stories["train"], speech["train"], held_out))
    report(f"sentences: {dict(Counter(r['source'] for r in rows))}")
    files: dict[str, Iterable[Any]] = {"sentences.train": rows}
    for split in SPLITS:
        files[f"parallel.{split}"] = map(asdict, parallel[split])
        files[f"dialogues.{split}"] = dialogues[split]
        files[f"stories.{split}"] = stories[split]
        files[f"speech.{split}"] = map(asdict, speech[split])
    manifest = {name: _write_jsonl(out / f"{name}.jsonl", content) for name, content in files.items()}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def splits_differ(manifest: dict[str, Any]) -> list[str]:
    """Names of the prepared files that are not the ones the mini bundle was trained and measured on."""
    frozen = json.loads(SPLITS_FILE.read_text(encoding="utf-8"))
    return sorted(name for name in frozen.keys() | manifest.keys() if frozen.get(name) != manifest.get(name))


def check_splits(folder: Path) -> None:
    """Nothing is trained or measured on other splits than those of `SPLITS_FILE`.

    Raises:
        TrainingDataError: nothing is prepared in `folder`, or something else.
    """
    if different := splits_differ(json.loads(_manifest(folder))):
        raise TrainingDataError(f"{folder} holds other splits than the bundle's ({', '.join(different)}); remove it")


def splits_id(folder: Path) -> str:
    """Names the splits in `folder`: what is derived from them is kept under it."""
    return hashlib.sha256(_manifest(folder)).hexdigest()[:16]


def _manifest(folder: Path) -> bytes:
    try:
        content = (folder / "manifest.json").read_bytes()
        json.loads(content)
    except (OSError, ValueError) as error:
        raise TrainingDataError(
            f"no splits at {folder} ({getattr(error, 'strerror', None) or error}); make them by: python -m "
            "scripts.prepare_data; a concept model learns from text of your own with --concepts (docs/TRAINING.md)"
        ) from error
    return content


def made_of(folder: Path, prepared: Path) -> None:
    """Tie `folder`, which holds what is derived from the splits `prepared`, to them: a stale one would leak.

    Raises:
        TrainingDataError: it was made of others.
    """
    note, wanted = folder / SPLITS_NOTE, splits_id(prepared)
    if not note.exists():
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(wanted + "\n", encoding="utf-8")
    elif note.read_text(encoding="utf-8").strip() != wanted:
        raise TrainingDataError(f"{folder} was made of other splits than those in {prepared}; remove it")


def _write_jsonl(path: Path, rows: Iterable[Any]) -> dict[str, Any]:
    digest, count = hashlib.sha256(), 0
    with path.open("wb") as file:
        for row in rows:
            line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
            digest.update(line)
            file.write(line)
            count += 1
    return {"sha256": digest.hexdigest(), "rows": count}


def split_path(folder: Path, name: str) -> Path:
    """One prepared file, for example `dialogues.train`.

    Raises:
        TrainingDataError: it has not been prepared.
    """
    path = folder / f"{name}.jsonl"
    if not path.exists():
        raise TrainingDataError(f"{path} is missing; run: python -m scripts.prepare_data --data DIR --out {folder}")
    return path


def read_split(folder: Path, name: str) -> Iterator[Any]:
    """Rows of one prepared file; raises as `split_path` does."""
    with split_path(folder, name).open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
