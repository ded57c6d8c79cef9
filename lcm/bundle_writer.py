"""Bundle writer: what training and fetching made in, a bundle's folder out, file by file. Knows no part's meaning."""

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lcm.bundle import FORMAT, SCALES, SHARD_BYTES, SPACE_PART, TOKENIZER, Bundle, sha256

_WORTH_BYTES = 4_096
"""Smaller matrices stay as they are"""


class BundleWriter:
    """Adds or replaces parts of a bundle folder, file by file, `bundle.json` last.

    A crash half-way leaves files that `bundle.json` does not describe: `Bundle.open` with `verify` finds them.
    """

    def __init__(self, folder: Path, name: str | None = None, *, hashes: Mapping[str, str] | None = None) -> None:
        """`hashes` are of files that need not be read for theirs again."""
        self.folder = folder
        self._hashes = dict(hashes or {})
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
        _replace(self.folder / TOKENIZER, tokenizer)
        self._record(TOKENIZER)
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
        self._record(TOKENIZER)
        self._record(checkpoint)
        self.description["languages"]["text"] = list(languages)
        self.description["concept_dim"] = config["concept_dim"]
        self._describe(SPACE_PART, config, self._name_space(config, [checkpoint]), [], {}, checkpoint)

    def adopt_part(self, name: str, config: Mapping[str, Any], checkpoint: str) -> None:
        """Take a published checkpoint in the folder as a part of this space."""
        self._record(checkpoint)
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
        for sidecar, content in (sidecars or {}).items():
            _replace(self.folder / f"{name}.{sidecar}", content)
            self._record(f"{name}.{sidecar}")
        shards = self._write_shards(name, _as_bytes(tensors) if int8 else tensors)
        self._describe(name, config, space_id, shards, sidecars or {}, figures=figures)

    def describe(self, **entries: Any) -> None:
        """Set entries of `bundle.json` itself: training data, metrics, the command and commit that made it."""
        self.description |= entries
        self._save()

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
        stale = [file for file in had if file and file not in kept]
        for file in stale:
            del self.description["files"][file]
        *way, last = ("metrics", *figures)
        functools.reduce(lambda of, step: of.get(step, {}), way, self.description).pop(last, None)
        self.description["parts"][name] = {
            "space_id": space_id, "config": dict(config), "shards": shards, "sidecars": sorted(sidecars),
        }  # fmt: skip
        if checkpoint:
            self.description["parts"][name]["checkpoint"] = checkpoint
        self._save()
        for file in stale:
            (self.folder / file).unlink(missing_ok=True)

    def _write_shards(self, name: str, tensors: Mapping[str, Tensor]) -> list[str]:
        names = []
        for number, shard in enumerate(_shards(tensors), start=1):
            file = f"{name}-{number}.safetensors"
            aside = self.folder / f".{file}.new"
            save_file(shard, aside)
            aside.chmod(0o644)  # as every other file of a bundle
            os.replace(aside, self.folder / file)
            self._record(file)
            names.append(file)
        return names

    def _record(self, file: str) -> None:
        path = self.folder / file
        self.description["files"][file] = [path.stat().st_size, self._hashes.get(file) or sha256(path)]

    def _save(self) -> None:
        self.description["files"] = dict(sorted(self.description["files"].items()))
        text = json.dumps(self.description, indent=1, ensure_ascii=False) + "\n"
        _replace(self.folder / "bundle.json", text.encode())


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


def _replace(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.new")
    aside.write_bytes(content)
    os.replace(aside, path)
