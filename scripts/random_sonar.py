"""SONAR's models with random weights, float32 checkpoints in the published layout, as a bundle: to measure, not to use.

Speed and memory do not depend on what the weights are. Names and shapes are those of the published files, so both
our modules and sonar-space load them. Knows nothing of what is measured.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lcm.bundle import TOKENIZER, Bundle
from lcm.bundle_writer import BundleWriter
from lcm.space.checkpoint import Kind
from lcm.space.memory import shapes_only
from lcm.space.sonar import SPEECH_ENCODERS, TEXT_DECODERS, TEXT_ENCODERS, TEXT_LANGUAGES
from lcm.space.text_decoder import TextDecoder
from lcm.space.text_encoder import TextEncoder
from lcm.space.tokenizer import Tokenizer
from lcm.space.w2v_bert import W2vBertEncoder

Size = Literal["small", "official"]
SPOKEN = "eng"
SMALL_CONFORMERS = 6
_SPREAD = 0.02
_SPECIAL = 4
"""Rows of an embedding before the first piece: padding, unknown, begin, end"""
_PUBLISHED = {
    "text_encoder": ((r"^embed\.", "encoder_frontend.embed."), (r"^layers\.", "encoder.layers.")),
    "text_decoder": (
        (r"^embed\.", "decoder_frontend.embed."),
        (r"^layers\.", "decoder.layers."),
        (r"^layer_norm\.", "decoder.layer_norm."),
    ),
    "speech_encoder": (
        (r"^pooler\.token$", "encoder_pooler.decoder_frontend.embed.weight"),
        (r"^pooler\.layers\.", "encoder_pooler.decoder.layers."),
        (r"^pooler\.", "encoder_pooler."),
        (r"^(post_extract_layer_norm|model_dim_proj)\.", r"encoder_frontend.\1."),
        (r"^layers\.", "encoder.layers."),
        (r"\.self_attn\.(r_proj\.|u_bias|v_bias)", r".self_attn.sdpa.\1"),
    ),
}
_TO_ONE_KEY = (
    r"(decoder\.layers\.\d+\.encoder_decoder_attn|encoder_pooler\.decoder\.layers\.\d+\.self_attn)\.v_proj\.(\w+)"
)
"""Attention whose queries and keys our modules leave out"""


def write_random_sonar(folder: Path, size: Size) -> Path:
    """Write a bundle `random_<size>` into `folder`, unless it is there; returns where.

    Args:
        folder: of all of them.
        size: `small` is sonar-space's small text architecture and six conformers, `official` what Meta published.
    """
    text = "basic" if size == "official" else size
    encoder, decoder = TEXT_ENCODERS[text], TEXT_DECODERS[text]
    speech = SPEECH_ENCODERS["english"]
    if size == "small":
        speech = replace(speech, layers=SMALL_CONFORMERS)
    made = folder / f"random_{size}"
    if (made / "bundle.json").exists() and _sizes(made) == [asdict(config) for config in (encoder, decoder, speech)]:
        return made
    shutil.rmtree(made, ignore_errors=True)
    aside = made.with_name(made.name + ".new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    shutil.copyfile(Bundle.open("mini").tokenizer_path(), aside / TOKENIZER)
    pieces = Tokenizer.from_file(aside / TOKENIZER, TEXT_LANGUAGES).language_id(TEXT_LANGUAGES[0])
    with shapes_only():
        modules: dict[Kind, nn.Module] = {
            "text_encoder": TextEncoder(encoder),
            "text_decoder": TextDecoder(decoder),
            "speech_encoder": W2vBertEncoder(speech),
        }
    for kind, module in modules.items():
        torch.save({"model": dict(published_tensors(module, kind, pieces))}, aside / f"{kind}.pt")
    writer = BundleWriter(aside, made.name)
    writer.adopt_space(list(TEXT_LANGUAGES), asdict(encoder), "text_encoder.pt")
    writer.adopt_part("text_decoder", asdict(decoder), "text_decoder.pt")
    writer.adopt_part(f"speech_encoder_{SPOKEN}", asdict(speech), "speech_encoder.pt")
    writer.describe(languages={"text": list(TEXT_LANGUAGES), "speech": [SPOKEN]}, longest_seconds=30.0)
    return aside.rename(made)


def _sizes(folder: Path) -> list[Any]:
    bundle = Bundle.open(folder)
    return [bundle.part(name).config for name in ("text_encoder", "text_decoder", f"speech_encoder_{SPOKEN}")]


def published_tensors(module: nn.Module, kind: Kind, pieces: int | None = None) -> Iterator[tuple[str, Tensor]]:
    """Random tensors of a module of ours, named and shaped as sonar-space saves them.

    Args:
        module: may be on the meta device.
        kind: which it is.
        pieces: rows of the embedding past these, and special ones, are 0: no decoding ends or says what is no piece.
    """
    generator = torch.Generator().manual_seed(0)
    for ours, tensor in module.state_dict().items():
        name = ours
        for pattern, replacement in _PUBLISHED[kind]:
            name = re.sub(pattern, replacement, name)
        value = _random(ours, tensor, generator)
        if ours.endswith(("pointwise_conv1.weight", "pointwise_conv2.weight")):
            value = value[..., None]
        if ours == "pooler.token":
            value = value.expand(len(value), -1).contiguous()
        if ours == "embed.weight" and pieces is not None:
            value[:_SPECIAL], value[pieces:] = 0.0, 0.0
        yield name, value
        if ours == "embed.weight" and kind == "text_decoder":
            yield "final_proj.weight", value
        if match := re.match(_TO_ONE_KEY, name):
            attention, weight_or_bias = match.groups()
            for projection in ("q_proj", "k_proj"):
                yield f"{attention}.{projection}.{weight_or_bias}", value
            if kind == "text_decoder":
                yield f"{attention}_layer_norm.{weight_or_bias}", torch.ones(len(value))


def _random(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    if not like.is_floating_point():
        return torch.zeros(like.shape, dtype=like.dtype)
    if name.endswith(("norm.weight", "running_var")):
        return torch.ones(like.shape)
    return torch.randn(like.shape, generator=generator) * _SPREAD
