"""Joint tower: one transformer reads the concepts so far and refines the next one, step by step [LCM §2.3.3, §2.4].

Each input is a concept with the number of a step beside it: how noisy it is, or how many codebooks it is made of; those
read are finished. Unfinished concepts see the finished ones before them, and nobody sees them. Knows nothing of what
the steps are, or of what a variant draws.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcm.models.fast_linear import Maps
from lcm.models.graphs import Graphed
from lcm.models.peek import Peek
from lcm.models.refining import ReadRows
from lcm.models.seen import Seen
from lcm.models.state import LcmState
from lcm.models.tower import Tower, TowerConfig
from lcm.models.turns import Turns

_STEP_DIM = 64


class JointTower(Tower):
    """Base of the variants of one tower: what draws, and an embedding of the steps, are theirs."""

    def __init__(self, config: TowerConfig, outputs: int) -> None:
        """`outputs`: how many numbers it says of an unfinished concept."""
        super().__init__(config)
        self.postnet = nn.Linear(config.dim, outputs)
        nn.init.normal_(self.postnet.weight, std=0.02)
        nn.init.zeros_(self.postnet.bias)

    def _prenet(self, config: TowerConfig) -> nn.Module:
        return nn.Linear(config.concept_dim + _STEP_DIM, config.dim)

    @property
    def steps(self) -> nn.Embedding:
        """Of every step's number, in their order; the last one: finished."""
        raise NotImplementedError

    def embedded(self, normalised: Tensor, turns: Turns) -> Tensor:
        """Finished concepts [..., C] → [..., D]."""
        finished = torch.full(normalised.shape[:-1], self.steps.num_embeddings - 1, device=normalised.device)
        return self.told(self._with_step(normalised, finished), turns)

    def token(self, unfinished: Tensor, steps: Tensor, told: Tensor) -> Tensor:
        """An unfinished concept [..., C] as the first layer gets it: [..., D]; `told` who says it, as `asked` gives."""
        return self.dropout(self._with_step(unfinished, steps) + told)

    def predicted(self, x: Tensor) -> Tensor:
        """What it says of the unfinished concept, float32 [..., O], from the tower's output [..., D]."""
        said: Tensor = self.postnet(self.norm(x)).float()
        return said

    def refined(self, read: ReadRows, unfinished: Tensor, steps: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
        """As `Refines` has it."""
        length = unfinished.shape[1]
        x = torch.cat(
            [self.embedded(read.normalised, read.turns), self.token(unfinished, steps, self.asked(read.asked))], dim=1
        )
        rotation = self.rotation(joint_positions(length, x.device))
        mask = joint_mask(read, free, self.config.context)
        for layer in self.layers:
            x = layer(x, rotation, mask)
        return x[:, :length], self.predicted(x[:, length:])

    def _with_step(self, concepts: Tensor, steps: Tensor) -> Tensor:
        weight_type = self.norm.weight.dtype
        both = torch.cat([concepts.to(weight_type), self.steps(steps).to(weight_type)], dim=-1)
        x: Tensor = self.prenet(both)
        return x.to(weight_type)


def steps_embedding(count: int) -> nn.Embedding:
    """Of `count` steps, and of having finished."""
    embedding = nn.Embedding(count + 1, _STEP_DIM)
    nn.init.normal_(embedding.weight, std=0.5)
    return embedding


def joint_mask(read: ReadRows, free: Tensor, window: int) -> Tensor:
    """[B, 1, 2 T, 2 T]: what concepts, and behind them unfinished ones, see if one tower reads both.

    An unfinished concept stands one place behind the concept it follows: it sees what the next one would, which is
    finished, and itself; nobody sees it.
    """
    length = read.seen.shape[-1]
    index = torch.arange(length, device=read.seen.device)
    near = index[None] > index[:, None] + 1 - window
    seen_next = read.seen & near & ~free[:, None, :, None]
    itself = torch.eye(length, dtype=torch.bool, device=read.seen.device).expand_as(read.seen)
    finished = torch.cat([read.seen, torch.zeros_like(read.seen)], dim=-1)
    return torch.cat([finished, torch.cat([seen_next, itself], dim=-1)], dim=-2)


def joint_positions(length: int, device: torch.device) -> Tensor:
    """[2 T] positions of concepts and of the unfinished ones behind them."""
    index = torch.arange(length, device=device)
    return torch.cat([index, index + 1])


Look = Callable[[Tensor], Tensor]
"""Tokens as the first layer gets them → the tower's output, as `Peek` does it"""
Chain = Callable[[Tensor, Tensor, Look], Tensor]
"""Noise [B, …], who says it [B, D] and what looks at the context → a normalised concept [B, C]"""


@dataclass(frozen=True, slots=True)
class JointDrawer:
    """Draws what comes next by a chain of steps: one CUDA graph, where there is CUDA."""

    model: JointTower
    peek: Peek
    noise_shape: tuple[int, ...]
    graphed: Graphed

    @classmethod
    def of(cls, model: JointTower, maps: Maps, noise_shape: tuple[int, ...], chain: Chain) -> "JointDrawer":
        """By `chain`, from noise [B, *noise_shape]."""
        peek = Peek(model, maps)

        def function(noise: Tensor, told: Tensor, cos: Tensor, sin: Tensor, *seen: Tensor) -> Tensor:
            context = Seen.of(seen, model.config.layers)
            return chain(noise, told, lambda x: peek(x, context, (cos, sin)))

        return cls(model, peek, noise_shape, Graphed(function, rows=True))

    def __call__(self, asked: Turns, state: LcmState, noise: Tensor) -> Tensor:
        """[B, C]."""
        rotation = self.model.rotation(state.lengths)
        drawn = self.graphed(noise, self.model.asked(asked), *rotation, *self.peek.seen(state).tensors())
        return self.model.normalizer.inverse(drawn)
