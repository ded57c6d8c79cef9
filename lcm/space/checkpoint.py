"""Checkpoints of SONAR: a file as Meta published it in, tensors under the names of our modules out, one at a time.

Two layouts are in the wild. fairseq2's holds `{"model": {name: tensor}}`; fairseq's older one has other names, its
text models pickle the embedding as a module and count their first rows in another order. What our modules leave out,
because it cannot change the result, is dropped: queries and keys of attention to a single key, the tied copy of the
embedding, rows of an embedding that nobody looks up. Knows nothing of sizes: `fill` finds what does not fit.
"""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from pickle import PickleError
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lcm.errors import BundleError
from lcm.space.memory import give_back

Kind = Literal["text_encoder", "text_decoder", "speech_encoder"]

_POOLING_TOKEN = 2
"""The row of the pooling decoder's embedding that it starts from"""
_FAIRSEQ_ROWS = (1, 3, 0, 2)
"""Where fairseq keeps `<pad>`, `<unk>`, `<s>` and `</s>`, which the tokenizer counts from 0 to 3"""

_DROPPED = {
    "text_encoder": r"version$|embed_positions\.",
    "text_decoder": r"version$|embed_positions\.|final_proj\.|output_projection\."
    r"|.*\.(encoder_decoder_attn|encoder_attn)\.[qk]_proj\.|.*\.(encoder_decoder_attn|encoder_attn)_layer_norm\.",
    "speech_encoder": r"encoder\.w2v_model\.(mask_emb|encoder\.pos_conv\.)"
    r"|(encoder_pooler\.)?decoder\..*\.self_attn\.[qk]_proj\.",
}
_TEXT = (
    (r"^(encoder|decoder)_frontend\.", ""),
    (r"^(encoder|decoder)\.", ""),
    (r"^embed_tokens(\.weight)?$", "embed.weight"),
    (r"\.encoder_attn\.", ".encoder_decoder_attn."),
    (r"\.out_proj\.", ".output_proj."),
    (r"\.fc1\.", ".ffn.inner_proj."),
    (r"\.fc2\.", ".ffn.output_proj."),
    (r"\.final_layer_norm\.", ".ffn_layer_norm."),
)
_POOLER = (
    (r"^(encoder_pooler\.decoder_frontend\.embed|decoder\.embed_tokens)\.weight$", "pooler.token"),
    (r"^decoder\.embed_out$", "pooler.projection_out.weight"),
    (r"^(encoder_pooler\.)?decoder\.", "pooler."),
    (r"^encoder_pooler\.", "pooler."),
    (r"^(pooler\..*)\.encoder_attn(\.|_)", r"\1.encoder_decoder_attn\2"),
    (r"^(pooler\..*)\.out_proj\.", r"\1.output_proj."),
    (r"^(pooler\..*)\.fc1\.", r"\1.ffn.inner_proj."),
    (r"^(pooler\..*)\.fc2\.", r"\1.ffn.output_proj."),
    (r"^(pooler\..*)\.final_layer_norm\.", r"\1.ffn_layer_norm."),
)
_CONFORMERS = (
    (r"^encoder\.w2v_model\.layer_norm\.", "post_extract_layer_norm."),
    (r"^encoder\.w2v_model\.post_extract_proj\.", "model_dim_proj."),
    (r"^encoder\.w2v_model\.encoder\.", ""),
    (r"^encoder_frontend\.", ""),
    (r"^encoder\.", ""),
    (r"^(layers\.\d+)\.final_layer_norm\.", r"\1.layer_norm."),
    (r"\.conv_module\.layer_norm\.", ".conv_layer_norm."),
    (r"\.conv_module\.", ".conv."),
    (r"\.ffn([12])\.layer_norm\.", r".ffn\1_layer_norm."),
    (r"\.w_1\.", ".inner_proj."),
    (r"\.w_2\.", ".output_proj."),
    (r"\.linear_([qkv])\.", r".\1_proj."),
    (r"\.linear_out\.", ".output_proj."),
    (r"\.linear_pos\.", ".r_proj."),
    (r"\.pos_bias_([uv])$", r".\1_bias"),
    (r"\.self_attn\.sdpa\.", ".self_attn."),
)
_RENAMED = {"text_encoder": _TEXT, "text_decoder": _TEXT, "speech_encoder": (*_POOLER, *_CONFORMERS)}


def checkpoint_tensors(path: Path, kind: Kind, *, shapes_only: bool = False) -> Iterator[tuple[str, Tensor]]:
    """The tensors that our module of this `kind` holds, as they lie in the file: neither type nor place has changed.

    The file is mapped, not read: a tensor that the caller has copied takes no memory once the next is asked for. With
    `shapes_only` they lie on the meta device, and next to nothing of the file is read.

    Raises:
        BundleError: not a checkpoint of SONAR, or one that cannot be read without running code from it.
    """
    content, mapped = _unpickled(path)
    state, older = _state(path, content)
    del content  # or every tensor that was given stays alive
    for key in list(state):
        value = state.pop(key)
        tensor = value._parameters.get("weight") if isinstance(value, nn.Embedding) else value
        if re.match(_DROPPED[kind], key):
            continue
        if not isinstance(tensor, Tensor):
            raise BundleError(f"{path}: {key!r} is no tensor; this is no checkpoint of SONAR, fetch it again")
        name = our_name(key, kind)
        given = tensor.detach().to("meta") if shapes_only else tensor.detach()
        yield name, _our_value(given, name, older=older and kind != "speech_encoder")
        if mapped:
            give_back(tensor)


def our_name(key: str, kind: Kind) -> str:
    """What our module calls a checkpoint's tensor."""
    for pattern, replacement in _RENAMED[kind]:
        key = re.sub(pattern, replacement, key)
    return key


def _our_value(tensor: Tensor, name: str, *, older: bool) -> Tensor:
    if name == "pooler.token":
        return tensor[_POOLING_TOKEN]
    if name.endswith(("pointwise_conv1.weight", "pointwise_conv2.weight")):
        return tensor.squeeze(-1)  # a convolution of width 1 is a linear map
    if name == "embed.weight" and older:
        return torch.cat([tensor[list(_FAIRSEQ_ROWS)], tensor[len(_FAIRSEQ_ROWS) :]])
    return tensor


def _state(path: Path, content: Any) -> tuple[dict[str, Any], bool]:
    """The mapping of names, and whether it is in fairseq's older layout."""
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    nested = isinstance(content, dict) and isinstance(content.get("state_dict"), dict)
    state = content["state_dict"] if nested else content
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise BundleError(f"{path} holds no model; it is no checkpoint of SONAR, fetch it again")
    return dict(state), nested


def _unpickled(path: Path) -> tuple[Any, bool]:
    """What the file holds, and whether its tensors are the mapped file itself (torch's format since 1.6 allows it)."""
    try:
        mapped = zipfile.is_zipfile(path)
        with torch.serialization.safe_globals([nn.Embedding]):  # the one class that fairseq's checkpoints need
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped), mapped
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, AttributeError, TypeError, PickleError) as error:
        what = " ".join(str(error).split())[:200]
        raise BundleError(f"{path} cannot be read as a checkpoint ({what}); fetch it again") from error
