"""`noema fetch`: SONAR's published weights, listed, agreed to, downloaded, and described as a bundle."""

import argparse
import os
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from agent.commands.options import add_json_option, print_json, subparser, warn
from agent.errors import OK, FetchError, UsageError
from agent.wording import started_as

if TYPE_CHECKING:
    from agent.fetching.partial_file import Fetched
    from agent.fetching.sonar_folder import SonarFolder
    from lcm.space.sonar import Card

_EXAMPLES = """
noema fetch --list
noema fetch sonar --text
noema fetch sonar --text --speech eng,fra
noema fetch sonar --text --finetuned --accept-licence --folder /data/sonar
noema fetch sonar --text --from https://mirror.example/SONAR/
"""
_MIRROR = "NOEMA_SONAR_URL"
_FLOAT32_BYTES = 8 * 10**9
"""Of memory, for both text models in float32 and what else is needed"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describes the subcommand."""
    parser = subparser(commands, "fetch", "download the weights of SONAR, Meta's concept space", _EXAMPLES)
    parser.add_argument("bundle", nargs="?", choices=("sonar",), help="what to fetch (default: list what there is)")
    parser.add_argument("--text", action="store_true", help="tokenizer, text encoder and text decoder")
    parser.add_argument(
        "--finetuned", action="store_true", help="the text decoder that copes better with inexact concepts"
    )
    parser.add_argument("--speech", default="", metavar="L,L", help="speech encoders by language, ISO 639-3, or all")
    parser.add_argument(
        "--accept-licence", "--accept-license", action="store_true", help="agree to the licences without being asked"
    )
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where to (default: where `--bundle sonar` looks)")
    parser.add_argument("--from", dest="mirror", metavar="URL", help=f"a mirror (default: ${_MIRROR}, or Meta)")
    parser.add_argument("--list", action="store_true", help="every published file, and which are here; offline")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Lists what there is, or fetches what is missing."""
    from agent.fetching.partial_file import locked
    from agent.fetching.sonar_folder import SonarFolder, wanted_cards

    mirror = _mirror(args.mirror)
    if args.list or args.bundle is None:
        if args.text or args.finetuned or args.speech:
            raise UsageError("to fetch these, write `noema fetch sonar` and leave out --list")
        return _list(SonarFolder(args.folder), mirror, as_json=args.json)
    started = time.monotonic()
    wanted = wanted_cards(text=args.text, finetuned=args.finetuned, speech=args.speech)
    folder = SonarFolder(args.folder)
    if not (folder.has_text or args.text):
        raise UsageError(f"speech needs a space to belong to, and {folder.path} holds none yet; add --text")
    with locked(folder.path):
        folder = SonarFolder(args.folder)  # only now nobody else changes it
        errand = _Errand(folder, folder.with_gone(wanted), mirror, sys.stderr if args.json else sys.stdout)
        errand.prepare(accepted=args.accept_licence)
        errand.fetch()
    _report(errand, time.monotonic() - started, as_json=args.json)
    return OK


def _mirror(given: str | None) -> str:
    """The address that stands before every file's name; empty for where Meta publishes them."""
    from agent.fetching.addresses import checked_address

    mirror = given or os.environ.get(_MIRROR, "")
    try:
        if mirror and checked_address(mirror).query:
            raise UsageError("a mirror's address ends with a folder, not with a query (?...)")
    except UsageError as error:
        raise UsageError(f"{'--from' if given else _MIRROR}: {error}") from error
    return mirror


def _address(card: "Card", mirror: str) -> str:
    """Where a file is fetched from."""
    return f"{mirror.rstrip('/')}/{card.file}" if mirror else card.url


class _Errand:
    """What is to be fetched where to, and how far that has come."""

    def __init__(self, folder: "SonarFolder", cards: "list[Card]", mirror: str, talk: TextIO) -> None:
        """`talk` is where to write what a person shall read."""
        self.folder, self.cards = folder, cards
        self.files: dict[Card, Fetched] = {}
        self.fetched: set[Card] = set()
        self._mirror, self._talk = mirror, talk

    def prepare(self, *, accepted: bool) -> None:
        """Finds out what is missing, shows it, and makes sure that it has room and is agreed to.

        Raises:
            UsageError: nobody is there to agree.
            FetchError: somebody did not agree, or the disk is too full.
        """
        if any(self.folder.state(card) == "here" for card in self.cards):
            self._say("Checking the files that are here.")
        self.files = {card: whole for card in self.cards if (whole := self._whole(card))}
        if pending := self._pending():
            self._show(pending)
            self._make_sure_of_room(pending)
            self._agree(accepted=accepted)

    def fetch(self) -> None:
        """Fetches file after file; the bundle can be used as soon as its text encoder is here."""
        try:
            for card in self._pending():
                self.files[card] = self._fetch(card)
                self.fetched.add(card)
                self.folder.describe(self.files)
        except KeyboardInterrupt:
            warn("interrupted; what has come is kept, and the same command goes on from there")
            raise
        if not self.fetched:
            self.folder.describe(self.files)

    def _whole(self, card: "Card") -> "Fetched | None":
        from lcm.space.sonar import misfit

        whole = self.folder.whole(card)
        if whole and (fault := misfit(self.folder.path / card.saved_as, card)):
            self._say(f"{card.saved_as} is not what it should be ({fault}).")
            return None
        return whole

    def _pending(self) -> "list[Card]":
        return [card for card in self.cards if card not in self.files]

    def _fetch(self, card: "Card") -> "Fetched":
        from agent.fetching.fetch import CHECKPOINT, SENTENCEPIECE, Download
        from agent.fetching.fetch_progress import FetchProgress
        from lcm.space.sonar import misfit

        kind = SENTENCEPIECE if card.part == "tokenizer" else CHECKPOINT
        content = replace(kind, misfit=lambda path: misfit(path, card))
        with FetchProgress(card.saved_as, sys.stderr) as progress:
            return Download(_address(card, self._mirror), self.folder.path / card.saved_as, content, progress).run()

    def _show(self, pending: "list[Card]") -> None:
        from agent.fetching.addresses import checked_address, shown
        from agent.fetching.fetch import sized
        from lcm.space.sonar import ADDRESS, LICENCE_PAGES, NON_COMMERCIAL

        source = shown(checked_address(self._mirror or ADDRESS))
        self._say(f"To fetch from {source} to {self.folder.path}:\n")
        for card in pending:
            begun = self.folder.begun_bytes(card)
            note = f"   {sized(begun)} of it are here" if begun else ""
            self._say(f"  {card.saved_as:24} about {sized(card.about_bytes):>8}   {card.licence}{note}")
        self._say(f"  {'together':24} about {sized(sum(card.about_bytes for card in pending)):>8}\n")
        for old in self.folder.replaced_by(pending):
            self._say(f"  {old} is deleted then: a bundle has one text decoder\n")
        for licence in dict.fromkeys(card.licence for card in pending):
            use = "not for commercial use" if licence == NON_COMMERCIAL else "any use that keeps its notice"
            self._say(f"{licence}: {use}. {LICENCE_PAGES[licence]}")

    def _agree(self, *, accepted: bool) -> None:
        if accepted:
            return
        if not (sys.stdin.isatty() and self._talk.isatty()):
            raise UsageError("nobody is here to be asked; add --accept-licence to agree to the licences above")
        print("Do you accept? [y/N] ", end="", file=self._talk, flush=True)
        if sys.stdin.readline().strip().casefold() not in {"y", "yes"}:
            raise FetchError("nothing was fetched, since the licence was not accepted")

    def _make_sure_of_room(self, pending: "list[Card]") -> None:
        """Before the first of many gigabytes."""
        from agent.fetching.fetch import FetchOptions, free_bytes, sized

        free, spare = free_bytes(self.folder.path), FetchOptions().spare_bytes
        missing = self._missing_bytes({card: card.about_bytes for card in pending})
        if self._mirror and missing + spare > free:  # its files may be others than Meta's: it is worth asking
            missing = self._missing_bytes({card: self._announced_bytes(card) for card in pending})
        if missing + spare > free:
            needed = f"{sized(missing)} are to come and {sized(spare)} shall stay free"
            told = f"the disk of {self.folder.path} has {sized(free)} left, but {needed}"
            raise FetchError(f"{told}; make room, choose another place (--folder) or fetch less at once")

    def _missing_bytes(self, sizes: "dict[Card, int]") -> int:
        return sum(max(0, size - self.folder.begun_bytes(card)) for card, size in sizes.items())

    def _announced_bytes(self, card: "Card") -> int:
        from agent.fetching.addresses import checked_address
        from agent.fetching.answers import announced_bytes

        return announced_bytes(checked_address(_address(card, self._mirror))) or card.about_bytes

    def _say(self, line: str) -> None:
        print(line, file=self._talk, flush=True)


def _report(errand: _Errand, seconds: float, *, as_json: bool) -> None:
    folder = errand.folder
    if as_json:
        files = [
            {"name": card.saved_as, "bytes": file.bytes, "sha256": file.sha256, "licence": card.licence}
            | {"fetched": card in errand.fetched}
            for card, file in errand.files.items()
        ]
        print_json({"bundle": folder.bundle, "folder": str(folder.path), "files": files, "seconds": round(seconds, 3)})
        return
    print(f"All of it is in {folder.path}." if errand.fetched else f"Nothing to fetch: all of it is in {folder.path}.")
    print(f"Try: {_example(folder.bundle, _memory_bytes())}")


def _example(bundle: str, memory_bytes: int | None) -> str:
    """A command that works here, as one can type it."""
    words = f'translate "Habari za asubuhi." --bundle {shlex.quote(bundle)} --language swh --to fin'
    short = memory_bytes is not None and memory_bytes < _FLOAT32_BYTES
    return f"{started_as()} {words}" + " --precision bfloat16" * short


def _memory_bytes() -> int | None:
    """Of this machine; None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _list(folder: "SonarFolder", mirror: str, *, as_json: bool) -> int:
    from agent.fetching.addresses import checked_address, shown
    from agent.fetching.fetch import sized
    from agent.fetching.sonar_folder import CARDS

    addresses = {card: shown(checked_address(_address(card, mirror))) for card in CARDS}
    if as_json:
        files = [_facts(card, folder) | {"url": address} for card, address in addresses.items()]
        print_json({"bundle": folder.bundle, "folder": str(folder.path), "files": files})
        return OK
    rows = [("name", "languages", "size", "licence", "here", "address")]
    for card, url in addresses.items():
        size = f"about {sized(card.about_bytes)}"
        rows.append((card.name, _languages(card), size, card.licence, folder.state(card) or "-", url))
    for name, languages, size, licence, here, address in rows:
        print(f"{name:30}{languages:28}{size:>12}  {licence:14}{here:7}{address}")
    print(f"\n`{started_as()} fetch sonar --text --speech eng,fra` fetches some of them to {folder.path}")
    return OK


def _facts(card: "Card", folder: "SonarFolder") -> dict[str, object]:
    return {
        "name": card.name,
        "file": card.saved_as,
        "languages": list(card.languages),
        "about_bytes": card.about_bytes,
        "licence": card.licence,
        "fetched": folder.state(card) == "here",
    }


def _languages(card: "Card") -> str:
    """How many, or which one."""
    from lcm.space.languages import language_name

    [first, *more] = card.languages
    return f"{len(card.languages)} languages" if more else f"{first} {language_name(first)}"
