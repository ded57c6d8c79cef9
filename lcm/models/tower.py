"""Tower: a conversation's concepts in, what a model makes of them out, whole sequences or piece by piece.

What every Large Concept Model reads with: a linear map of the normalised concept (PreNet) and a causal transformer
[LCM §2.3.1]. Beyond the paper, where `turns` is set: embeddings of who speaks and of the place in the turn, and a stop
head (is this the last sentence of its turn?); without, a text ends where its `ending` is predicted. What comes next is
not told to the tower: the stop head would read the answer off it. Knows nothing of how the next concept is drawn.
"""

from dataclasses import dataclass, field, fields
from typing import Protocol

import torch
from torch import Tensor, nn

from lcm.models.ending import Ending
from lcm.models.fast_linear import Maps
from lcm.models.normalizer import Normalizer
from lcm.models.sampler import Sampling
from lcm.models.state import LcmState, Placed
from lcm.models.transformer import NORM_EPS, Block, Rotation, rotations
from lcm.models.turns import ROLES, Turns


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerConfig:
    """Sizes of what reads; the defaults are the mini bundle's."""

    concept_dim: int = 512
    """C: numbers of a concept"""
    dim: int = 256
    """D: numbers that the layers hand on for each concept"""
    layers: int = 5
    """blocks of attention and feed-forward"""
    heads: int = 4
    """H: of attention, D / H numbers each"""
    ffn_dim: int = 512
    """numbers inside the gated feed-forward"""
    dropout: float = 0.1
    """probability, in training"""
    bias: bool = False
    """of the linear maps inside the layers; Meta's have one"""
    turns: bool = True
    """whether speakers are told apart, and ends of turns are predicted"""
    roles: int = field(default=ROLES, metadata={"least": ROLES})
    """told apart"""
    places: int = 8
    """sentences of a turn told apart; later ones count as the last of these"""
    context: int = 40
    """concepts that one concept sees, itself included"""

    def __post_init__(self) -> None:
        for each in fields(self):
            size = getattr(self, each.name)
            if each.type is int and size < (least := each.metadata.get("least", 1)):
                raise ValueError(f"{each.name} is {size}; give {least} or more")
        if self.dim % (2 * self.heads):
            raise ValueError(
                f"dim {self.dim} is no multiple of twice the heads, {2 * self.heads}; each gets an even part"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; give 0 or more, less than 1")

    def state(self, rows: int, like: Tensor, slots: int | None, more_layers: int = 0) -> LcmState:
        """An empty state for `rows` conversations."""
        shape = (rows, self.heads, self.dim // self.heads)
        return LcmState.empty(self.layers + more_layers, shape, self.context, like, slots)


class Drawer(Protocol):
    """Draws what comes next."""

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """How much Gaussian noise one concept is drawn from."""
        ...

    def __call__(self, asked: Turns, state: LcmState, noise: Tensor) -> Tensor:
        """What the speakers `asked` [B] say next, at that place of their turn: concepts [B, C], float32.

        `state` holds what was read so far and stays as it is; `noise` is [B, *noise_shape].
        """
        ...


class Tower(nn.Module):
    """Base of every variant: reads. A variant adds what draws the next concept, and what its training needs."""

    config: TowerConfig

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        self.normalizer = Normalizer(config.concept_dim)
        self.ending = Ending(config.concept_dim)
        self.prenet: nn.Module = self._prenet(config)
        self.layers = nn.ModuleList(
            Block(config.dim, config.heads, config.ffn_dim, config.dropout, bias=config.bias)
            for _ in range(config.layers)
        )
        self.norm = nn.RMSNorm(config.dim, eps=NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        if config.turns:
            self.role_embed = nn.Embedding(config.roles, config.dim)
            self.place_embed = nn.Embedding(config.places, config.dim)
            self.next_role_embed = nn.Embedding(config.roles, config.dim)
            self.next_place_embed = nn.Embedding(config.places, config.dim)
            for embed in (self.role_embed, self.place_embed, self.next_role_embed, self.next_place_embed):
                nn.init.normal_(embed.weight, std=0.1)
            self.stop_head = nn.Linear(config.dim, 1)

    def _prenet(self, config: TowerConfig) -> nn.Module:
        return nn.Linear(config.concept_dim, config.dim)

    @property
    def exact(self) -> tuple[nn.Module, ...]:
        """What is float32 whatever type the weights are of."""
        return (self.normalizer,)

    def forward(self, normalised: Tensor, turns: Turns, mask: Tensor | None = None) -> Tensor:
        """Normalised concepts [B, T, C] → [B, T, D], before the last norm; `mask` [B, 1, T, T] as of `Attention`."""
        x = self.embedded(normalised, turns)
        rotation = self.rotation(torch.arange(x.shape[1], device=x.device))
        for layer in self.layers:
            x = layer(x, rotation, mask)
        return x

    def stops(self, x: Tensor) -> Tensor:
        """Logits [...] of each concept ending its turn, from the tower's output [..., D]."""
        if not self.config.turns:
            return torch.full(x.shape[:-1], float("-inf"), device=x.device)
        logits: Tensor = self.stop_head(self.norm(x))[..., 0].float()
        return logits

    def start(self, rows: int, slots: int | None = None) -> LcmState:
        """An empty state for `rows` conversations, of at most `slots` concepts where that is known beforehand."""
        return self.config.state(rows, self.norm.weight, slots)

    def read(self, concepts: Tensor, turns: Turns, counts: Tensor, state: LcmState) -> Tensor:
        """Read concepts [B, T, C] that follow those in `state`; `counts` [B] of them are no padding, 1 at least.

        Gives the stop logits [B] after the last; what comes next can be drawn from the state.
        """
        start = 0
        while start < concepts.shape[1]:
            stop = start + min(state.room(), concepts.shape[1] - start)
            here = (counts - start).clamp(min=0, max=stop - start)
            piece = Turns(turns.roles[:, start:stop], turns.places[:, start:stop])
            self._read_piece(concepts[:, start:stop], piece, here, state)
            start = stop
        assert state.hidden is not None  # there was one concept at least
        return self.stops(state.hidden)

    def drawer(self, sampling: Sampling, maps: Maps | None = None) -> "Drawer":
        """What draws the next concept from a state: whatever it uses again and again is made here, once.

        `maps` makes its linear maps.
        """
        raise NotImplementedError

    def rotation(self, positions: Tensor) -> Rotation:
        """Of positions [...]: two of [..., D / 2H]."""
        return rotations(positions, self.config.dim // self.config.heads)

    def embedded(self, normalised: Tensor, turns: Turns) -> Tensor:
        """What the first layer gets: [..., C] → [..., D]."""
        return self.told(self.prenet(normalised.to(self.norm.weight.dtype)), turns)

    def told(self, x: Tensor, turns: Turns) -> Tensor:
        """Concepts after the PreNet [..., D], and who said them."""
        x = x.to(self.norm.weight.dtype)  # under autocast too: what is added up keeps its digits
        if self.config.turns:
            x = x + self.role_embed(turns.roles) + self.place_embed(self._told(turns.places))
        return self.dropout(x)

    def asked(self, turns: Turns) -> Tensor:
        """Who speaks next and at which place of their turn: [...] → [..., D]."""
        if not self.config.turns:
            return torch.zeros((), device=self.norm.weight.device, dtype=self.norm.weight.dtype)
        asked: Tensor = self.next_role_embed(turns.roles) + self.next_place_embed(self._told(turns.places))
        return asked

    def _told(self, places: Tensor) -> Tensor:
        return places.clamp_max(self.config.places - 1)

    def _read_piece(self, concepts: Tensor, turns: Turns, counts: Tensor, state: LcmState) -> None:
        x = self.embedded(self.normalizer(concepts), turns)
        placed = state.place(concepts.shape[1], counts)
        cos, sin = self.rotation(placed.positions)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, Block)
            x = layer.extend(x, (cos[:, None], sin[:, None]), number, state, placed)
        self._remember(x, state, placed)
        latest = x[torch.arange(len(x), device=x.device), (counts - 1).clamp_min(0)]
        state.hidden = latest if state.hidden is None else torch.where(counts[:, None] > 0, latest, state.hidden)

    def _remember(self, x: Tensor, state: LcmState, placed: Placed) -> None:
        """Keep what drawing needs of more than the last concept."""
