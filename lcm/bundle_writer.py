"""Bundle writer: what training and fetching made in, a bundle's folder out, file by file. Knows no part's meaning."""

import copy
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from lcm.bundle import FORMAT, SCALES, SHARD_BYTES, SPACE_PART, TOKENIZER, Bundle, sha256
from lcm.errors import BundleError

_WORTH_BYTES = 4_096
"""Smaller matrices stay as they are"""


class BundleWriter:
    """Adds or replaces parts of a bundle folder, each as a whole.

    Shards are named after their content, so that new ones lie beside those that `bundle.json` still names; it is
    replaced when all else is written, and only then what it no longer names is deleted. Whatever writes raises
    `BundleError` where there is no room, and the bundle is as it was.
    """

    def __init__(self, folder: Path, name: str | None = None, *, hashes: Mapping[str, str] | None = None) -> None:
        """`hashes` are of files that need not be read for theirs again."""
        self.folder = folder
        self._hashes = dict(hashes or {})
        self._fresh: list[Path] = []
        """What the change that is being made has written so far"""
        self._aside: dict[Path, Path] = {}
        """Of these, what takes another's place with `bundle.json`"""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "bundle.json"
        self.description: dict[str, Any] = (
            json.loads(path.read_text(encoding="utf-8"))
            if path.exists()
            else {
                "format": FORMAT, "name": name or folder.name, "space_id": "", "concept_dim": 0,
                "languages": {"text": [], "speech": []}, "parts": {}, "files": {},
            }
        )  # fmt: skip

    def write_space(
        self, tokenizer: bytes, languages: list[str], config: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> str:
        """Write tokenizer and text encoder; returns the new `space_id`. Parts of other spaces stay, and are refused."""
        with self._changed():
            self._put(TOKENIZER, tokenizer)
            self.description["languages"]["text"] = list(languages)
            self.description["concept_dim"] = config["concept_dim"]
            shards = self._write_shards(SPACE_PART, tensors)
            self._describe(SPACE_PART, config, self._name_space(config, shards), shards, {})
        return str(self.description["space_id"])

    def accompany(self, bundle: Bundle) -> None:
        """Be the companion of `bundle`: models of its space."""
        self.description |= {"space_id": bundle.space_id, "concept_dim": bundle.concept_dim}
        self.description["languages"] = {"text": list(bundle.languages["text"]), "speech": []}

    def adopt_space(self, languages: list[str], config: Mapping[str, Any], checkpoint: str) -> None:
        """Take `tokenizer.model` and a published checkpoint of a text encoder, both in the folder, as they are."""
        with self._changed():
            self._record(TOKENIZER, self.folder / TOKENIZER)
            self._record(checkpoint, self.folder / checkpoint)
            self.description["languages"]["text"] = list(languages)
            self.description["concept_dim"] = config["concept_dim"]
            self._describe(SPACE_PART, config, self._name_space(config, [checkpoint]), [], {}, checkpoint)

    def adopt_part(self, name: str, config: Mapping[str, Any], checkpoint: str) -> None:
        """Take a published checkpoint in the folder as a part of this space."""
        with self._changed():
            self._record(checkpoint, self.folder / checkpoint)
            self._describe(name, config, self.description["space_id"], [], {}, checkpoint)

    def _name_space(self, config: Mapping[str, Any], files: Sequence[str]) -> str:
        hashes = [self.description["files"][name][1] for name in (TOKENIZER, *files)]
        sized = json.dumps([dict(config), self.description["languages"]["text"], hashes], sort_keys=True)
        self.description["space_id"] = hashlib.sha256(sized.encode()).hexdigest()[:16]
        return str(self.description["space_id"])

    def write_part(
        self,
        name: str,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        space_id: str,
        sidecars: Mapping[str, bytes] | None = None,
        *,
        figures: Sequence[str] = (),
        int8: bool = False,
    ) -> None:
        """Write or replace one part, in float16 shards (integers keep their type); with `int8` matrices as bytes.

        The metrics were measured with what was there before, and are forgotten. Where the part bears on some of them
        only, `figures` is the way to those, such as `["speech", "spoken_language"]`, and the others stay.
        """
        with self._changed():
            for sidecar, content in (sidecars or {}).items():
                self._put(f"{name}.{sidecar}", content)
            shards = self._write_shards(name, _as_bytes(tensors) if int8 else tensors)
            self._describe(name, config, space_id, shards, sidecars or {}, figures=figures)

    def forget(self, *figures: str) -> None:
        """Forget the metrics that `figures` is the way to: what was measured is no longer there."""
        with self._changed():
            self._forget(figures)

    def describe(self, **entries: Any) -> None:
        """Set entries of `bundle.json` itself: training data, metrics, the command and commit that made it."""
        with self._changed():
            self.description |= entries

    def _describe(
        self,
        name: str,
        config: Mapping[str, Any],
        space_id: str,
        shards: list[str],
        sidecars: Mapping[str, bytes],
        checkpoint: str | None = None,
        figures: Sequence[str] = (),
    ) -> None:
        old = self.description["parts"].get(name, {"shards": [], "sidecars": []})
        kept = {*shards, *(f"{name}.{s}" for s in sidecars), checkpoint}
        had = [*old["shards"], *(f"{name}.{s}" for s in old["sidecars"]), old.get("checkpoint")]
        for file in had:
            if file and file not in kept:
                del self.description["files"][file]
        self._forget(figures)
        self.description["parts"][name] = {
            "space_id": space_id, "config": dict(config), "shards": shards, "sidecars": sorted(sidecars),
        }  # fmt: skip
        if checkpoint:
            self.description["parts"][name]["checkpoint"] = checkpoint

    def _forget(self, figures: Sequence[str]) -> None:
        *way, last = ("metrics", *figures)
        functools.reduce(lambda of, step: of.get(step, {}), way, self.description).pop(last, None)

    @contextmanager
    def _changed(self) -> Iterator[None]:
        """What is written inside becomes the bundle's when all of it is; where something fails, none of it."""
        before, self._fresh, self._aside = copy.deepcopy(self.description), [], {}
        try:
            yield
            self._save()
        except BaseException as error:
            self.description = before
            for path in self._fresh:
                if path.name not in before["files"]:
                    path.unlink(missing_ok=True)
            if isinstance(error, OSError | SafetensorError):
                raise BundleError(
                    f"{self.folder} could not be written ({error}); the bundle is as it was: make room and run it again"
                ) from error
            raise
        for file in before["files"].keys() - self.description["files"].keys():
            (self.folder / file).unlink(missing_ok=True)

    def _write_shards(self, name: str, tensors: Mapping[str, Tensor]) -> list[str]:
        names = []
        for number, shard in enumerate(_shards(tensors), start=1):
            aside = self._new(f".{name}-{number}.new")
            save_file(shard, aside)
            aside.chmod(0o644)  # as every other file of a bundle
            file = f"{name}-{number}-{sha256(aside)[:8]}.safetensors"
            self._record(file, aside.replace(self._new(file)))
            names.append(file)
        return names

    def _put(self, file: str, content: bytes) -> None:
        """Have a file of that name, from when `bundle.json` says so."""
        aside = self._new(f".{file}.new")
        self._aside[aside] = self.folder / file
        aside.write_bytes(content)
        self._record(file, aside)

    def _new(self, file: str) -> Path:
        self._fresh.append(self.folder / file)
        return self._fresh[-1]

    def _record(self, file: str, path: Path) -> None:
        self.description["files"][file] = [path.stat().st_size, self._hashes.get(file) or sha256(path)]

    def _save(self) -> None:
        self.description["files"] = dict(sorted(self.description["files"].items()))
        text = json.dumps(self.description, indent=1, ensure_ascii=False) + "\n"
        aside = self._new(".bundle.json.new")
        aside.write_bytes(text.encode())
        for path, place in self._aside.items():
            path.replace(place)
        aside.replace(self.folder / "bundle.json")


def _as_bytes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as int8, each row with a scale of its own; everything else as it is."""
    stored: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if tensor.ndim != 2 or not tensor.is_floating_point() or tensor.numel() < _WORTH_BYTES:
            stored[key] = tensor
            continue
        scales = (tensor.float().abs().amax(dim=1) / 127).clamp_min(1e-7).to(torch.float16)
        stored[key] = (tensor.float() / scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        stored[key + SCALES] = scales
    return stored


def _shards(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for key, tensor in tensors.items():
        stored = tensor.detach().cpu().contiguous()
        stored = stored.to(torch.float16) if stored.is_floating_point() else stored
        if shard and size + stored.nbytes > SHARD_BYTES - 64 * 1024 and not key.endswith(SCALES):
            yield shard
            shard, size = {}, 0
        shard[key] = stored
        size += stored.nbytes
    yield shard
