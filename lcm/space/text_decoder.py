"""Text decoder: a concept in, token logits out, whole sequences (training) or step by step (KV cache).

Knows nothing of tokenisation. SONAR's decoder [SONAR §4]: pre-norm, output projection tied to the embedding.
"""

import math
from dataclasses import dataclass

from torch import Tensor, nn

from lcm.space.layers import DecoderLayer, LayerCache, TiedProjection, sinusoidal_positions
from lcm.space.tokenizer import PAD


@dataclass(frozen=True, slots=True)
class TextDecoderConfig:
    """Sizes of a text decoder."""

    vocab_size: int
    dim: int = 1024
    layers: int = 24
    heads: int = 16
    ffn_dim: int = 8192
    max_tokens: int = 512
    concept_dim: int = 1024
    dropout: float = 0.1
    first_position: int = 0
    """2 in SONAR, as fairseq counts: after the numbers of padding and the one before"""
    usual_tokens: int = 96
    """No sentence is longer: where decoding stops that does not end by itself"""


@dataclass(slots=True)
class DecoderState:
    """Everything one decoding carries from step to step; passed in, never hidden."""

    from_concept: list[Tensor]  # per layer [B, 1, D]
    caches: list[LayerCache]
    position: int = 0

    def select(self, rows: Tensor) -> "DecoderState":
        """The state of `rows` [B'] alone, in that order: beams are re-ordered, finished ones leave."""
        return DecoderState(
            [c[rows] for c in self.from_concept],
            [LayerCache(c.keys[rows], c.values[rows]) for c in self.caches],
            self.position,
        )


class TextDecoder(nn.Module):
    """Concepts [B, C] and previous tokens → logits over the next."""

    positions: Tensor

    def __init__(self, config: TextDecoderConfig, embed: nn.Embedding | None = None) -> None:
        super().__init__()
        self.config = config
        self.embed = embed or nn.Embedding(config.vocab_size, config.dim, padding_idx=PAD)
        self.register_buffer(
            "positions", sinusoidal_positions(config.max_tokens, config.dim, config.first_position), persistent=False
        )
        self.layers = nn.ModuleList(
            DecoderLayer(config.dim, config.heads, config.ffn_dim, config.concept_dim, config.dropout)
            for _ in range(config.layers)
        )
        self.layer_norm = nn.LayerNorm(config.dim)
        self.output_proj = TiedProjection(self.embed)
        self.dropout = nn.Dropout(config.dropout)

    def hidden(self, concepts: Tensor, tokens: Tensor) -> Tensor:
        """Teacher forcing: [B, C] and [B, T] → [B, T, D], before the output projection."""
        x = self.dropout(self._embedded(tokens, self.positions[: tokens.shape[1]]))
        for layer in self.layers:
            x = layer(x, self._constant(layer, concepts))
        return self.layer_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] → [..., V]."""
        logits: Tensor = self.output_proj(hidden)
        return logits

    def start(self, concepts: Tensor) -> DecoderState:
        """Per-sentence constants and empty caches, which grow with the tokens."""
        config, concepts = self.config, concepts.to(self.embed.weight.dtype)
        shape = (len(concepts), config.heads, 0, config.dim // config.heads)
        empty = [LayerCache(concepts.new_empty(shape), concepts.new_empty(shape)) for _ in self.layers]
        return DecoderState([self._constant(layer, concepts) for layer in self.layers], empty)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Feed one token a row, [B] → logits [B, V]; `state` moves on by one position."""
        x = self._embedded(tokens[:, None], self.positions[state.position])
        for layer, constant, cache in zip(self.layers, state.from_concept, state.caches, strict=True):
            assert isinstance(layer, DecoderLayer)
            x = layer.step(x, constant, cache, state.position)
        state.position += 1
        return self.logits(self.layer_norm(x)[:, 0])

    @staticmethod
    def _constant(layer: nn.Module, concepts: Tensor) -> Tensor:
        assert isinstance(layer, DecoderLayer)  # `ModuleList` forgets it
        return layer.encoder_decoder_attn(concepts)

    def _embedded(self, tokens: Tensor, positions: Tensor) -> Tensor:
        embedded: Tensor = self.embed(tokens)
        return (embedded * math.sqrt(self.config.dim) + positions).to(embedded.dtype)
