"""Bundles: a folder of weights in, verified parts out. Knows nothing of what the parts compute.

A bundle holds `bundle.json`, `tokenizer.model` and safetensors shards of at most 16 MB. Its **space** is the text
encoder and the tokenizer; their hash is the `space_id`. Every other part (decoder, speech encoder, LCM, reply bank)
names the space it was made for, and one made for another space is refused: its concepts would mean nothing here.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lcm.errors import BundleError
from lcm.fetched import SONAR, fetch_command, fetched_bundles, is_fetched

FORMAT = 1
SHARD_BYTES = 16 * 1024 * 1024
SPACE_PART = "text_encoder"
TOKENIZER = "tokenizer.model"
SCALES = ".scales"
"""Ends the name of what the rows of an int8 matrix are multiplied by; both lie in one shard"""
LONGEST_SECONDS = 8.0
"""Of speech in one concept, where a bundle does not say"""
BUNDLES = Path(__file__).parent / "bundles"
COMPANION = "-lcms"
"""Ends the name of the optional bundle with the models that a bundle has no room for"""

FileName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
"""A file of the bundle's own folder: a bundle from elsewhere shall not name others"""


class _PartEntry(BaseModel):
    space_id: str
    config: dict[str, Any]
    shards: list[FileName]
    sidecars: list[FileName]
    checkpoint: FileName | None = None


class _Description(BaseModel):
    """What `bundle.json` must hold; more is allowed."""

    name: str
    space_id: str
    concept_dim: int
    languages: dict[str, list[str]]
    parts: dict[FileName, _PartEntry]
    files: dict[FileName, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a bundle: its configuration, and its tensors when asked for."""

    name: str
    config: dict[str, Any]
    folder: Path
    shards: tuple[str, ...]
    hashes: tuple[str, ...]
    """SHA-256 of each shard"""
    sidecars: tuple[str, ...]
    checkpoint: Path | None = None
    """A file in a layout of its publisher's, instead of shards"""

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor, float32 on the CPU (integers keep their type).

        Raises:
            BundleError: as `each_tensor`.
        """
        return dict(self.each_tensor())

    def each_tensor(self) -> Iterator[tuple[str, Tensor]]:
        """The same, one at a time.

        Raises:
            BundleError: a shard is missing or damaged: what it holds is compared with its hash.
        """
        for shard, digest in zip(self.shards, self.hashes, strict=True):
            path = self.folder / shard
            try:
                if sha256(path) != digest:
                    raise BundleError(f"{path} is damaged (its hash differs); {_repair(self.folder)}")
                with safe_open(path, framework="pt") as file:
                    keys = set(file.keys())
                    for key in sorted(keys):
                        if key.removesuffix(SCALES) in keys - {key}:
                            continue
                        tensor = file.get_tensor(key)
                        if key + SCALES in keys:
                            tensor = tensor.float() * file.get_tensor(key + SCALES).float()[:, None]
                        yield key, tensor.float() if tensor.is_floating_point() else tensor
            except (OSError, SafetensorError) as error:
                raise BundleError(f"{path} is missing or damaged ({error}); {_repair(self.folder)}") from error

    def sidecar(self, name: str) -> bytes:
        """A file that belongs to the part, for example the sentences of a reply bank."""
        path = self.folder / f"{self.name}.{name}"
        try:
            return path.read_bytes()
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror}); {_repair(self.folder)}") from error


def _repair(folder: Path) -> str:
    if is_fetched(folder):
        return f"run this again: {fetch_command(folder)}"
    return "restore the bundle (git checkout -- lcm/bundles) or name another with --bundle"


@contextmanager
def fitting(part: Part) -> Iterator[None]:
    """Turn what torch says where a part's settings or weights do not fit this code's modules into a `BundleError`."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError) as error:
        what = " ".join(str(error).split())[:200]
        advice = _repair(part.folder) if is_fetched(part.folder) else "update Noema (git pull), or restore the bundle"
        raise BundleError(f"{part.name!r} of {part.folder} does not fit this Noema ({what}); {advice}") from error


class Bundle:
    """A bundle folder, its description read and checked."""

    def __init__(self, folder: Path, description: dict[str, Any]) -> None:
        self.folder = folder
        self.description = description
        self.name: str = description["name"]
        self.space_id: str = description["space_id"]
        self.concept_dim: int = description["concept_dim"]
        self.languages: dict[str, list[str]] = description["languages"]

    @classmethod
    def open(cls, bundle: str | Path, *, verify: bool = False) -> "Bundle":
        """Open a bundle by name (`mini`) or folder.

        Args:
            bundle: a name under `lcm/bundles`, or a folder with `bundle.json`.
            verify: compare every file's hash now (`noema doctor` does); else a shard's is compared when it is read.

        Raises:
            BundleError: missing, not a bundle, made by a newer Noema, or damaged.
        """
        folder = _folder(bundle)
        try:
            description = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
            format_ = description["format"]
        except FileNotFoundError as error:
            raise BundleError(_absent(bundle, folder)) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{folder / 'bundle.json'} cannot be read ({error!r}); {_repair(folder)}") from error
        if format_ != FORMAT:
            raise BundleError(
                f"{folder} has bundle format {format_}, this Noema reads {FORMAT}; update Noema (git pull)"
            )
        try:
            _Description.model_validate(description)
        except ValidationError as error:
            first = error.errors()[0]
            what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise BundleError(f"{folder / 'bundle.json'} cannot be used ({what}); {_repair(folder)}") from error
        opened = cls(folder, description)
        opened._check_files(verify=verify)
        return opened

    def lcm_part(self, variant: str) -> Part:
        """A Large Concept Model of this bundle, or of the optional bundle beside it, NAME-lcms.

        Raises:
            BundleError: neither has it, or it belongs to another space.
        """
        companion = None if variant in self.parts else self.companion()
        if companion is None:
            return self.part(variant)
        if companion.space_id != self.space_id:
            raise BundleError(
                f"the models of {companion.folder} are of space {companion.space_id}, {self.folder} holds "
                f"{self.space_id}; train them again on this space, or restore both bundles"
            )
        return companion.part(variant)

    def companion(self) -> "Bundle | None":
        """The optional bundle beside it, if it is there.

        Raises:
            BundleError: it is damaged.
        """
        beside = self.folder.with_name(self.folder.name + COMPANION)
        return Bundle.open(beside) if (beside / "bundle.json").is_file() else None

    def check_has_space(self) -> None:
        """Whether concepts can be made and said with it.

        Raises:
            BundleError: it is a companion.
        """
        whole = self.folder.name.removesuffix(COMPANION)
        if SPACE_PART not in self.parts and whole != self.folder.name:
            raise BundleError(
                f"{self.folder} only holds more models for {self.folder.with_name(whole)}; name that as the bundle: "
                "it finds them by --variant"
            )

    @property
    def longest_seconds(self) -> float:
        """How much speech its encoders were trained to hear at once."""
        return float(self.description.get("longest_seconds", LONGEST_SECONDS))

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts."""
        return tuple(self.description["parts"])

    def part(self, name: str) -> Part:
        """One part, made for this bundle's space.

        Raises:
            BundleError: the bundle lacks it, or it belongs to another space.
        """
        try:
            entry = self.description["parts"][name]
        except KeyError:
            raise BundleError(f"bundle {self.name!r} has no {name!r}; it has: {', '.join(self.parts)}") from None
        if entry["space_id"] != self.space_id:
            raise BundleError(
                f"{name!r} of {self.folder} was made for space {entry['space_id']}, the bundle holds {self.space_id}; "
                "train it again on this space, or restore the bundle"
            )
        shards = tuple(entry["shards"])
        hashes = tuple(self.description["files"][shard][1] for shard in shards)
        checkpoint = self.folder / entry["checkpoint"] if entry.get("checkpoint") else None
        return Part(name, entry["config"], self.folder, shards, hashes, tuple(entry["sidecars"]), checkpoint)

    def tokenizer_path(self) -> Path:
        """Where the SentencePiece model lies."""
        return self.folder / TOKENIZER

    def _check_files(self, *, verify: bool) -> None:
        files = self.description["files"]
        parts = self.description["parts"].values()
        named = {shard for part in parts for shard in part["shards"]}
        named |= {TOKENIZER} if SPACE_PART in self.parts else set()  # a companion has the space of another bundle
        named |= {part["checkpoint"] for part in parts if part.get("checkpoint")}
        if unlisted := sorted(named - files.keys()):
            raise BundleError(
                f"{self.folder / 'bundle.json'} does not list {', '.join(unlisted)}; {_repair(self.folder)}"
            )
        for name, (size, digest) in files.items():
            path = self.folder / name
            actual = path.stat().st_size if path.is_file() else None
            if actual is None:
                raise BundleError(f"{path} is missing; {_repair(self.folder)}")
            if actual != size:
                raise BundleError(f"{path} is damaged ({actual} bytes, expected {size}); {_repair(self.folder)}")
            if (verify or name == TOKENIZER) and sha256(path) != digest:
                raise BundleError(f"{path} is damaged (its hash differs); {_repair(self.folder)}")


def _folder(bundle: str | Path) -> Path:
    if str(bundle).removesuffix(COMPANION).isidentifier():
        for home in (BUNDLES, fetched_bundles()):
            if (home / str(bundle) / "bundle.json").is_file():
                return home / str(bundle)
    return Path(bundle)


def _absent(bundle: str | Path, folder: Path) -> str:
    for begun in (folder, fetched_bundles() / bundle):
        if is_fetched(begun):
            return f"the fetch into {begun} is not finished; {_repair(begun)}"
    advice = "fetch it: noema fetch sonar --text" if str(bundle) == SONAR else f"choose one of: {_known()}"
    return f"no bundle at {folder} (no bundle.json); {advice}"


def _known() -> str:
    found = {path.parent.name for home in (BUNDLES, fetched_bundles()) for path in home.glob("*/bundle.json")}
    names = sorted(name for name in found if not name.endswith(COMPANION))
    return f"{', '.join(names) or '(none ship with this checkout)'}, or a folder that holds one"


def sha256(path: Path) -> str:
    """Of a file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
