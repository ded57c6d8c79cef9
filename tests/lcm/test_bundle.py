"""Bundles: what was written comes back; what is damaged, missing or foreign is refused with a way out."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from lcm import bundle_writer
from lcm.bundle import COMPANION, SHARD_BYTES, Bundle
from lcm.bundle_writer import BundleWriter
from lcm.errors import BundleError


@pytest.fixture
def bundle(tmp_path: Path, small_bundle: Path) -> Path:
    return Path(shutil.copytree(small_bundle, tmp_path / "bundle"))


def shard(bundle: Path, part: str = "text_encoder") -> Path:
    [name] = Bundle.open(bundle).part(part).shards
    return bundle / name


def test_parts_come_back_as_written_in_half_precision(bundle: Path) -> None:
    weights = {"a": torch.randn(3, 5), "codes": torch.arange(7, dtype=torch.int8)}
    space_id = Bundle.open(bundle).space_id
    BundleWriter(bundle).write_part("bank", {"size": 3}, weights, space_id, sidecars={"texts.json": b"[]"})
    part = Bundle.open(bundle).part("bank")
    tensors = part.tensors()
    assert part.config == {"size": 3}
    assert part.sidecar("texts.json") == b"[]"
    assert tensors["a"].dtype == torch.float32
    assert torch.equal(tensors["a"], weights["a"].half().float())
    assert torch.equal(tensors["codes"], weights["codes"])


def test_large_parts_become_shards_below_the_limit(bundle: Path) -> None:
    weights = {f"w{i}": torch.zeros(1_500, 1_000) for i in range(12)}  # 3 MB each in float16
    BundleWriter(bundle).write_part("base", {}, weights, Bundle.open(bundle).space_id)
    shards = sorted(bundle.glob("base-*.safetensors"))
    assert len(shards) > 1
    assert max(path.stat().st_size for path in shards) <= SHARD_BYTES
    assert set(Bundle.open(bundle).part("base").tensors()) == set(weights)


def test_a_replaced_part_leaves_no_old_shard_behind(bundle: Path) -> None:
    space_id = Bundle.open(bundle).space_id
    for count in (12, 1):
        weights = {f"w{i}": torch.zeros(1_500, 1_000) for i in range(count)}
        BundleWriter(bundle).write_part("base", {}, weights, space_id)
    assert [path.name for path in bundle.glob("base-*")] == list(Bundle.open(bundle).part("base").shards)
    assert Bundle.open(bundle, verify=True).part("base").tensors().keys() == {"w0"}


def contents(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


@pytest.mark.parametrize("room", range(5))
@pytest.mark.parametrize("part", ["base", "bank"])
def test_a_part_for_which_there_is_no_room_leaves_the_bundle_as_it_was(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, part: str, room: int
) -> None:
    space_id, before = Bundle.open(bundle).space_id, contents(bundle)
    weights = {f"w{i}": torch.ones(1_500, 1_000) for i in range(10)}
    files = itertools.count()

    def filled(write: Callable[..., Any], error: Exception) -> Callable[..., Any]:
        def until_full(*given: Any) -> None:
            written = next(files)
            if written == room:
                raise error
            write(*given)

        return until_full

    monkeypatch.setattr(bundle_writer, "save_file", filled(save_file, SafetensorError("No space left on device")))
    monkeypatch.setattr(Path, "write_bytes", filled(Path.write_bytes, OSError(28, "No space left on device")))
    writer = BundleWriter(bundle)
    sidecars = {"texts.json.xz": b"new", "more": b"new"} if part == "bank" else {}
    if room < 3 + len(sidecars):  # two shards, what lies beside them, and the description
        with pytest.raises(BundleError, match=r"No space left.*; the bundle is as it was: make room and run it again"):
            writer.write_part(part, {}, weights, space_id, sidecars)
        assert contents(bundle) == before
    writer.write_part(part, {}, weights, space_id, sidecars)
    assert Bundle.open(bundle, verify=True).part(part).tensors().keys() == weights.keys()
    assert set(contents(bundle)) == {"bundle.json", *Bundle.open(bundle).description["files"]}


def test_a_bundle_whose_shards_have_plain_names_is_read_and_gets_new_ones(bundle: Path) -> None:
    old = shard(bundle, "base")
    plain = old.rename(bundle / "base-1.safetensors")
    description = (bundle / "bundle.json").read_text(encoding="utf-8")
    (bundle / "bundle.json").write_text(description.replace(old.name, plain.name), encoding="utf-8")
    part = Bundle.open(bundle, verify=True).part("base")
    assert part.shards == ("base-1.safetensors",)
    BundleWriter(bundle).write_part("base", part.config, part.tensors(), Bundle.open(bundle).space_id)
    assert shard(bundle, "base") == old
    assert not plain.exists()


def test_other_weights_make_another_space(bundle: Path) -> None:
    before = Bundle.open(bundle)
    part = before.part("text_encoder")
    tensors = part.tensors()
    tensors["layer_norm.weight"] = tensors["layer_norm.weight"] + 0.01
    tokenizer = before.tokenizer_path().read_bytes()
    BundleWriter(bundle).write_space(tokenizer, before.languages["text"], part.config, tensors)
    after = Bundle.open(bundle)
    assert after.space_id != before.space_id
    with pytest.raises(BundleError, match="was made for space"):
        after.part("text_decoder")


def test_a_bundle_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="choose one of") as caught:
        Bundle.open(tmp_path / "nowhere")
    assert COMPANION not in str(caught.value), "it holds models only"


def test_sonar_says_how_to_fetch_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="noema fetch sonar --text"):
        Bundle.open("sonar")


def test_a_missing_shard_is_named(bundle: Path) -> None:
    shard(bundle).unlink()
    with pytest.raises(BundleError, match=r"text_encoder-1-\w{8}\.safetensors is missing; restore"):
        Bundle.open(bundle)


def test_a_cut_shard_is_refused(bundle: Path) -> None:
    path = shard(bundle)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(BundleError, match="damaged"):
        Bundle.open(bundle)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def test_a_changed_byte_is_found_by_verification_and_when_it_is_read(bundle: Path) -> None:
    flip_a_bit(shard(bundle))
    opened = Bundle.open(bundle)
    with pytest.raises(BundleError, match=r"text_encoder-1-\w{8}\.safetensors is damaged \(its hash differs\)"):
        opened.part("text_encoder").tensors()
    with pytest.raises(BundleError, match="damaged"):
        Bundle.open(bundle, verify=True)


def test_a_changed_tokenizer_is_found_at_once(bundle: Path) -> None:
    flip_a_bit(bundle / "tokenizer.model")
    with pytest.raises(BundleError, match=r"tokenizer\.model is damaged"):
        Bundle.open(bundle)


def test_a_shard_that_is_no_safetensors_file_is_an_error_not_a_crash(bundle: Path) -> None:
    path = shard(bundle)
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(BundleError, match="damaged"):
        Bundle.open(bundle).part("text_encoder").tensors()


NO_NAME = '{"format": 1, "space_id": "", "parts": {}, "files": {}, "languages": {}}'


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', NO_NAME, '{"format": 99, "parts": {}}'])
def test_a_bad_description_is_refused(bundle: Path, content: str) -> None:
    (bundle / "bundle.json").write_text(content, encoding="utf-8")
    with pytest.raises(BundleError):
        Bundle.open(bundle)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", ".hidden", ""])
def test_a_file_outside_the_folder_is_refused(bundle: Path, name: str) -> None:
    path = bundle / "bundle.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    for place in (description["files"], description["parts"]):
        place[name] = next(iter(place.values()))
        path.write_text(json.dumps(description), encoding="utf-8")
        with pytest.raises(BundleError, match="cannot be used"):
            Bundle.open(bundle)
        del place[name]


def test_a_shard_without_a_hash_is_refused(bundle: Path) -> None:
    path = bundle / "bundle.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    del description["files"][shard(bundle).name]
    path.write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(BundleError, match=r"does not list text_encoder-1-\w{8}\.safetensors"):
        Bundle.open(bundle)


def test_a_part_the_bundle_lacks_is_named_beside_those_it_has(bundle: Path) -> None:
    with pytest.raises(BundleError, match="it has: text_encoder"):
        Bundle.open(bundle).part("two_tower")
