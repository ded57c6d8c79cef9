"""Text encoder: token ids in, concepts out. Knows nothing of tokenisation or languages.

SONAR's encoder [SONAR §4]: pre-norm layers, a final LayerNorm, sinusoidal positions, then pooling: `mean` over
the tokens as the official one does, or `attention` (learned queries) which the mini bundle uses.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lcm.space.layers import EncoderLayer, key_bias, sinusoidal_positions
from lcm.space.tokenizer import PAD


@dataclass(frozen=True, slots=True)
class TextEncoderConfig:
    """Sizes of a text encoder."""

    vocab_size: int
    dim: int = 1024
    layers: int = 24
    heads: int = 16
    ffn_dim: int = 8192
    max_tokens: int = 512
    concept_dim: int = 1024
    pooling: Literal["mean", "attention"] = "mean"
    pooling_queries: int = 2
    dropout: float = 0.1
    first_position: int = 0
    """2 in SONAR, as fairseq counts: after the numbers of padding and the one before"""


class AttentionPooling(nn.Module):
    """Learned queries attend to the tokens; their outputs, side by side, map to the concept, LayerNorm without affine.

    The fixed norm keeps an MSE between two sentences' concepts from shrinking the whole space.
    """

    def __init__(self, dim: int, queries: int, concept_dim: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(nn.init.normal_(torch.empty(queries, dim), std=dim**-0.5))
        self.k_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(queries * dim, concept_dim)
        self.norm = nn.LayerNorm(concept_dim, elementwise_affine=False)

    def forward(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """[B, T, D], padding [B, T] True where there is none → [B, C] float32."""
        scores = (self.k_proj(x) @ self.queries.to(x.dtype).T).float()  # [B, T, Q]
        if padding is not None:
            scores = scores.masked_fill(padding[..., None], float("-inf"))
        weights = scores.softmax(dim=1).to(x.dtype)
        pooled = torch.einsum("btq,btd->bqd", weights, x)
        return self.norm(self.output_proj(pooled.flatten(1)).float())


class TextEncoder(nn.Module):
    """Token ids [B, T] → concepts [B, C]."""

    positions: Tensor

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.dim, padding_idx=PAD)
        nn.init.normal_(self.embed.weight, std=config.dim**-0.5)
        self.register_buffer(
            "positions", sinusoidal_positions(config.max_tokens, config.dim, config.first_position), persistent=False
        )
        self.layers = nn.ModuleList(
            EncoderLayer(config.dim, config.heads, config.ffn_dim, config.dropout) for _ in range(config.layers)
        )
        self.layer_norm = nn.LayerNorm(config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.pooler = (
            AttentionPooling(config.dim, config.pooling_queries, config.concept_dim)
            if config.pooling == "attention"
            else None
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T] int64, padded with `PAD` → [B, C] float32."""
        padding = tokens == PAD
        has_padding = bool(padding.any())
        embedded: Tensor = self.embed(tokens)
        placed = embedded * math.sqrt(self.config.dim) + self.positions[: tokens.shape[1]]  # float32
        x = self.dropout(placed.to(embedded.dtype))
        bias = key_bias(padding) if has_padding else None
        for layer in self.layers:
            x = layer(x, bias)
        x = self.layer_norm(x)
        if self.pooler is not None:
            return self.pooler(x, padding if has_padding else None)
        kept = (~padding)[..., None].to(x.dtype)
        return ((x * kept).sum(dim=1) / kept.sum(dim=1)).float()
