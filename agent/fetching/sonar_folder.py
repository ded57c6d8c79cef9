"""The folder that SONAR is fetched into: which published files lie in it, whole, begun or gone, and which are wanted.

Knows nothing of how files are fetched or shown.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from agent.errors import UsageError
from agent.fetching.partial_file import Fetched, begun_bytes, finished, finished_bytes, forget, is_whole
from lcm.fetched import SONAR, fetched_bundles
from lcm.space.languages import Languages
from lcm.space.sonar import SPEECH_CARDS, TEXT_CARDS, TOKENIZER, Card, write_sonar_bundle

CARDS = (TOKENIZER, *TEXT_CARDS.values(), *SPEECH_CARDS.values())


def wanted_cards(*, text: bool, finetuned: bool, speech: str) -> list[Card]:
    """The files for what was asked for.

    Args:
        text: tokenizer, encoder and a decoder.
        finetuned: the decoder is the one that was trained on noisy concepts.
        speech: languages between commas, or `all`.

    Raises:
        UsageError: nothing, or what does not go together.
        LanguageError: nobody published an encoder for it; says which come nearest.
    """
    if finetuned and not text:
        raise UsageError("--finetuned chooses among the text decoders; add --text")
    tags = [tag.strip() for tag in speech.split(",") if tag.strip()]
    if not text and not tags:
        raise UsageError("fetch what? Give --text, --speech eng,fra or both; `noema fetch --list` shows what there is")
    known = Languages(list(SPEECH_CARDS), "speech of SONAR")
    tags = list(SPEECH_CARDS) if tags == ["all"] else [known.resolve(tag) for tag in tags]
    of_text = [TOKENIZER, TEXT_CARDS["encoder"], TEXT_CARDS["finetuned" if finetuned else "decoder"]] if text else []
    return [*of_text, *(SPEECH_CARDS[tag] for tag in dict.fromkeys(tags))]


class SonarFolder:
    """A bundle of SONAR's files, or what is to become one."""

    def __init__(self, path: Path | None = None) -> None:
        """Reads its `bundle.json`, if there is one.

        Raises:
            UsageError: another bundle lies there, or a damaged one.
        """
        self.path = path or fetched_bundles() / SONAR
        self.bundle = str(self.path.absolute()) if path else SONAR
        """What `--bundle` calls it"""
        self._description = _description(self.path)

    @property
    def has_text(self) -> bool:
        """Whether it has a space that speech encoders can belong to."""
        return "text_encoder" in self._description["parts"]

    def state(self, card: Card) -> Literal["here", "begun", ""]:
        """At a glance: by the sizes of files, not by their content."""
        path, described = self.path / card.saved_as, self._described(card)
        size = described.bytes if described else finished_bytes(path)
        if path.is_file() and path.stat().st_size == size:
            return "here"
        return "begun" if begun_bytes(path) else ""

    def with_gone(self, wanted: Sequence[Card]) -> list[Card]:
        """Also those that the bundle needs and lacks; they come first: without them it stays unusable."""
        gone = [card for card in CARDS if self._described(card) and self.state(card) != "here"]
        in_place = {card.part for card in wanted if card.part == "text_decoder"}
        repaired = [card for card in gone if card not in wanted and card.part not in in_place]
        return [*repaired, *wanted]

    def whole(self, card: Card) -> Fetched | None:
        """A file that is as it was when it was fetched; reads all of it."""
        path, described = self.path / card.saved_as, self._described(card)
        if described and is_whole(path, described):
            return described
        return finished(path)

    def begun_bytes(self, card: Card) -> int:
        """How much of a file an interrupted run has left."""
        return begun_bytes(self.path / card.saved_as)

    def replaced_by(self, wanted: Sequence[Card]) -> list[str]:
        """Files that go once these have come: a bundle has one text decoder."""
        parts, coming = self._description["parts"], {card.part: card.saved_as for card in wanted}
        had = {part: parts[part].get("checkpoint") for part in coming if part in parts}
        return [file for part, file in had.items() if file and file != coming[part]]

    def describe(self, files: Mapping[Card, Fetched]) -> None:
        """Writes `bundle.json`, as soon as a space has come and nothing of an older description is missing."""
        coming = {card.part for card in files}
        older = {card: entry for card in CARDS if card.part not in coming and (entry := self._described(card))}
        known = {**older, **files}
        if any(self.state(card) != "here" for card in older) or not {"tokenizer", "text_encoder"} <= {
            card.part for card in known
        }:
            return
        write_sonar_bundle(self.path, list(known), hashes={card.saved_as: file.sha256 for card, file in known.items()})
        self._description = _description(self.path)
        for card in files:
            forget(self.path / card.saved_as)

    def _described(self, card: Card) -> Fetched | None:
        entry = self._description["files"].get(card.saved_as)
        return Fetched(*entry) if entry else None


def _description(folder: Path) -> dict[str, Any]:
    path = folder / "bundle.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        name, parts, files = content["name"], dict(content["parts"]), dict(content["files"])
    except FileNotFoundError:
        return {"parts": {}, "files": {}}
    except NotADirectoryError as error:
        raise UsageError(f"{folder} is not a folder; choose another --folder") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is damaged; delete the folder and fetch again") from error
    if name != SONAR:
        raise UsageError(f"{folder} holds the bundle {name!r}; choose another --folder for SONAR")
    return {"parts": parts, "files": files}
