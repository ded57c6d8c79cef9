"""Base-LCM: the concepts so far in, the next concept out [LCM §2.3.1], whole sequences or step by step (KV cache).

Beyond the paper: embeddings of who speaks and of the place in the turn; a stop head (is this the last sentence of its
turn?); and a head that is told who speaks next, so that a reply is not blurred with the speaker's going on. The trunk
must not be told, the stop head would read the answer off it. Knows nothing of text, turns' ends or sampling.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcm.models.normalizer import Normalizer
from lcm.models.state import LcmState
from lcm.models.transformer import Block, SwiGlu, rotations

ROLE_USER, ROLE_AGENT, ROLE_NARRATOR = 0, 1, 2
ROLES = 3


@dataclass(frozen=True, slots=True)
class BaseLcmConfig:
    """Sizes of a Base-LCM; the defaults are the mini bundle's."""

    concept_dim: int = 512
    dim: int = 256
    layers: int = 5
    heads: int = 4
    ffn_dim: int = 512
    dropout: float = 0.1
    places: int = 8
    """sentences of a turn told apart; later ones count as the last of these"""
    context: int = 40
    """concepts of the past that are read; `Engine` drops older ones"""


def places_in_turn(roles: Tensor) -> Tensor:
    """How many sentences of the same speaker stand directly before each one: [..., T] → [..., T]."""
    index = torch.arange(roles.shape[-1], device=roles.device).expand_as(roles)
    starts = torch.ones_like(roles, dtype=torch.bool)
    starts[..., 1:] = roles[..., 1:] != roles[..., :-1]
    return index - torch.where(starts, index, 0).cummax(dim=-1).values


@dataclass(frozen=True, slots=True)
class Turns:
    """Who says each concept, who says the next one, and where in their turn each stands."""

    roles: Tensor  # [B, T]
    places: Tensor  # [B, T]
    next_roles: Tensor  # [B, T]

    @classmethod
    def of(cls, roles: Tensor, last_next: Tensor) -> "Turns":
        """From the roles [B, T] and the role [B] of the concept after the last one (rows without padding)."""
        return cls(roles, places_in_turn(roles), torch.cat([roles[:, 1:], last_next[:, None]], dim=1))


class BaseLcm(nn.Module):
    """Decoder-only transformer over concepts."""

    def __init__(self, config: BaseLcmConfig) -> None:
        super().__init__()
        self.config = config
        self.normalizer = Normalizer(config.concept_dim)
        self.prenet = nn.Linear(config.concept_dim, config.dim)
        self.role_embed = nn.Embedding(ROLES, config.dim)
        self.place_embed = nn.Embedding(config.places, config.dim)
        self.layers = nn.ModuleList(
            Block(config.dim, config.heads, config.ffn_dim, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.RMSNorm(config.dim, eps=1e-5)
        self.stop_head = nn.Linear(config.dim, 1)
        self.next_role_embed = nn.Embedding(ROLES, config.dim)
        self.next_place_embed = nn.Embedding(config.places, config.dim)
        self.head = SwiGlu(config.dim, config.ffn_dim)
        self.head_norm = nn.RMSNorm(config.dim, eps=1e-5)
        self.postnet = nn.Linear(config.dim, config.concept_dim)
        self.dropout = nn.Dropout(config.dropout)
        for embed in (self.role_embed, self.place_embed, self.next_role_embed, self.next_place_embed):
            nn.init.normal_(embed.weight, std=0.1)
        # Predict the centre at first: the normalised target's mean.
        nn.init.normal_(self.postnet.weight, std=0.02)
        nn.init.zeros_(self.postnet.bias)

    def forward(self, concepts: Tensor, turns: Turns) -> tuple[Tensor, Tensor]:
        """Concepts [B, T, C] → the prediction of each one's successor [B, T, C], and stop logits [B, T]."""
        x = self._embedded(concepts, turns)
        rotation = self._rotation(torch.arange(x.shape[1], device=x.device))
        for layer in self.layers:
            x = layer(x, rotation)
        return self._predicted(x, turns)

    def start(self, batch: int, capacity: int) -> LcmState:
        """An empty state for `batch` conversations of at most `capacity` concepts."""
        config = self.config
        shape = (batch, config.heads, capacity, config.dim // config.heads)
        return LcmState.empty(config.layers, shape, self.prenet.weight.device)

    def extend(self, concepts: Tensor, turns: Turns, counts: Tensor, state: LcmState) -> tuple[Tensor, Tensor]:
        """As `forward`, for concepts [B, T, C] that follow those in `state`; `counts` [B] of them are no padding."""
        x = self._embedded(concepts, turns)
        positions = state.lengths[:, None] + torch.arange(x.shape[1], device=x.device)
        cos, sin = self._rotation(positions)
        for number, layer in enumerate(self.layers):
            x = layer.extend(x, (cos[:, None], sin[:, None]), number, state)  # type: ignore[operator]
        # What padding wrote is overwritten by the concepts that come next, before anything may look at it.
        state.lengths = state.lengths + counts
        return self._predicted(x, turns)

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return rotations(positions, self.config.dim // self.config.heads)

    def _embedded(self, concepts: Tensor, turns: Turns) -> Tensor:
        places = turns.places.clamp_max(self.config.places - 1)
        x = self.prenet(self.normalizer(concepts)) + self.role_embed(turns.roles) + self.place_embed(places)
        return self.dropout(x)

    def _predicted(self, x: Tensor, turns: Turns) -> tuple[Tensor, Tensor]:
        goes_on = turns.next_roles == turns.roles
        next_places = torch.where(goes_on, turns.places + 1, 0).clamp_max(self.config.places - 1)
        hidden = self.norm(x)
        stop = self.stop_head(hidden)[..., 0].float()
        asked = hidden + self.next_role_embed(turns.next_roles) + self.next_place_embed(next_places)
        head = self.head_norm(x + self.dropout(self.head(asked)))
        concept = self.normalizer.inverse(self.postnet(head).float())
        return concept, stop
