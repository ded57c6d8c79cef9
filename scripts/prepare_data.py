"""Prepare what training reads: the splits that mini is made of, or any corpus of yours as concepts.

python -m scripts.prepare_data --data DIR --out runs/data          # raw corpora in, mini's frozen splits out
python -m scripts.prepare_data corpus books/ --bundle mini --out runs/my_concepts
python -m scripts.prepare_data corpus --help                       # JSONL, Parquet, text; dialogues; languages
"""

import argparse
import contextlib
import json
import re
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # torch takes seconds to import: until then Ctrl-C ends the process, and nothing is printed
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import torch
from tqdm import tqdm

from agent.errors import INTERRUPTED
from lcm.errors import LcmError
from lcm.space import ConceptSpace
from lcm.space.languages import Languages
from lcm.training.corpus import CorpusForm, FileCorpus
from lcm.training.corpus_files import corpus_files
from lcm.training.data import DEFAULT_DATA, DEFAULT_PREPARED, prepare, splits_differ
from lcm.training.shard_writer import SHARD_ROWS, Progress, write_shards

CORPUS = """Any text as shards of concepts, which scripts.train streams from the disk.

    python -m scripts.prepare_data corpus books/ --language fra --out runs/my_concepts
    python -m scripts.prepare_data corpus 'news/*.jsonl.gz' --text body --id url --out runs/my_concepts
    python -m scripts.prepare_data corpus chats.parquet --turns messages --language lang --out runs/my_concepts
    python -m scripts.prepare_data corpus wrapped.txt --paragraphs blank-line --out runs/my_concepts

Files may be packed (.gz, .xz, .zst). Killed at any point, the same command goes on where it was; the result is the
same to the bit. Exit code 0, also when records had to be left out: they are counted; 2 for what cannot be used; 130
after Ctrl-C. The last line on stdout is one JSON object."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 2 when the data is missing; 1 when the splits differ from the ones the bundle was trained on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with text/ and speech/ (%(default)s)")
    parser.add_argument("--out", type=Path, default=DEFAULT_PREPARED, help="where the splits go (%(default)s)")
    commands = parser.add_subparsers(dest="command", metavar="corpus", title="your own text")
    _add_corpus(commands)
    parsed = parser.parse_args(arguments)
    try:
        return prepare_corpus(parsed) if parsed.command else prepare_splits(parsed)
    except LcmError as error:
        print(f"prepare_data: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on = "; the same command goes on where it was" if parsed.command else ""
        print(f"prepare_data: stopped{goes_on}", file=sys.stderr)
        return INTERRUPTED


def _add_corpus(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "corpus",
        help="any JSONL, Parquet or text → shards of concepts",
        description=CORPUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILES", help="files, folders, or patterns in quotes")
    parser.add_argument("--out", type=Path, required=True, help="folder for the concepts")
    parser.add_argument("--bundle", default="mini", help="whose space: mini, sonar, or a folder (%(default)s)")
    parser.add_argument("--language", default="eng", metavar="CODE|FIELD", help="of all, or the field (%(default)s)")
    rows = parser.add_argument_group("rows of JSONL and Parquet")
    rows.add_argument("--text", default="text", metavar="FIELD", help="its text, or list of paragraphs (%(default)s)")
    rows.add_argument("--turns", metavar="FIELD", help="its dialogue instead: strings, or objects {role, text}")
    rows.add_argument("--id", metavar="FIELD", help="what names it (left out: the hash of its text)")
    texts = parser.add_argument_group("text")
    documents = ("file", "blank-line", "line")
    texts.add_argument("--documents", choices=documents, default="file", help="what a document is (%(default)s)")
    ends = ("line", "blank-line")
    texts.add_argument("--paragraphs", choices=ends, default="line", help="what ends a paragraph (%(default)s)")
    parser.add_argument("--format", choices=("text", "jsonl", "parquet"), help="where the files' endings do not tell")
    parser.add_argument("--name", help="of the corpus (left out: that of the --out folder)")
    parser.add_argument("--dev-share", type=_share, default=0.01, metavar="SHARE", help="of documents (%(default)s)")
    parser.add_argument("--test-share", type=_share, default=0.01, metavar="SHARE", help="of documents (%(default)s)")
    parser.add_argument("--strict", action="store_true", help="stop at the first record that cannot be used")
    parser.add_argument("--shard-rows", type=_count, default=SHARD_ROWS, metavar="N", help="sentences (%(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, … (%(default)s)")
    parser.add_argument("--threads", type=_count, help="CPU threads")


def prepare_splits(arguments: argparse.Namespace) -> int:
    """The splits that mini was made of."""
    manifest = prepare(arguments.data, arguments.out, report=lambda line: print(line, file=sys.stderr))
    print(json.dumps({name: entry["rows"] for name, entry in manifest.items()}))
    if different := splits_differ(manifest):
        print(f"prepare_data: not the splits the mini bundle was trained on: {', '.join(different)}", file=sys.stderr)
        return 1
    return 0


def prepare_corpus(arguments: argparse.Namespace) -> int:
    """Encode a corpus."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    files = corpus_files(arguments.files, arguments.format)
    form = CorpusForm(
        name=re.sub(r"[^\w-]+", "_", arguments.name or arguments.out.resolve().name),
        text=arguments.text,
        turns=arguments.turns,
        language=arguments.language,
        identifier=arguments.id,
        documents=arguments.documents,
        paragraphs=arguments.paragraphs,
        dev_share=arguments.dev_share,
        test_share=arguments.test_share,
    )
    space = ConceptSpace.load(arguments.bundle, arguments.device, parts=["text_encoder"])
    corpus = FileCorpus(files, form, Languages(space.languages["text"], f"text of {space.bundle.name!r}"))
    started = time.monotonic()
    writing = write_shards(corpus, arguments.out, space, shard_rows=arguments.shard_rows, strict=arguments.strict)
    with contextlib.closing(writing):
        encoded = _shown(writing)
    seconds = time.monotonic() - started
    manifest = json.loads((arguments.out / "manifest.json").read_text(encoding="utf-8"))
    for split, count in manifest["documents"].items():
        if not count:
            advice = f"; make it again with a larger --{split}-share" if split != "train" else ""
            print(f"prepare_data: no document fell into {split}{advice}", file=sys.stderr)
    figures = {"sentences_per_second": round(encoded / seconds, 1), "encoded": encoded, "out": str(arguments.out)}
    print(json.dumps(_counted(manifest) | figures))
    return 0


def _counted(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a folder holds, and what did not come into it."""
    counts = manifest["counts"]
    left_out = {name.removeprefix("unusable: "): n for name, n in counts.items() if name.startswith("unusable: ")}
    return {
        "rows": manifest["rows"],
        "shards": len(manifest["shards"]),
        "documents": manifest["documents"],
        "sentences": counts["sentences"],
        "skipped": {
            "records": left_out,
            "documents of one sentence": counts.get("too_short", 0),
            "sentences without a letter": counts.get("wordless", 0),
        },
        "space_id": manifest["space_id"],
    }


def _shown(progress: Iterable[Progress]) -> int:
    """A bar; gives how many sentences this run has encoded."""
    new = 0
    with tqdm(unit="sentence", unit_scale=True, dynamic_ncols=True, mininterval=0.5) as bar:
        for at in progress:
            for unusable in at.unusable:
                bar.write(f"left out: {unusable}", file=sys.stderr)
            bar.set_postfix(documents=at.counts["documents"], read=f"{at.share:.0%}", rows=at.rows, refresh=False)
            bar.update(at.new - new)
            new = at.new
    return new


def _share(written: str) -> float:
    share = float(written)
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"{written} is no share; give 0 … 1")
    return share


def _count(written: str) -> int:
    count = int(written)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{written} is too few; give 1 or more")
    return count


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
