"""Quant-LCM: the next concept codebook by codebook, each from the context and the sum of the entries before [LCM §2.4].

The body is One-Tower's, the codebook's number in the place of the noise level. Quant-d gives the probabilities of a
codebook's entries: one softmax for all codebooks, which learns from that number whose entries are meant. Quant-c gives
a concept, and entries near what it leaves over are the likely ones.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lcm.models.fast_linear import Maps
from lcm.models.graphs import Graphed
from lcm.models.peek import Held, Peek
from lcm.models.quantizer import Quantizer
from lcm.models.refining import ReadRows, beside, places
from lcm.models.sampler import Sampling
from lcm.models.state import LcmState
from lcm.models.tower import Tower, TowerConfig
from lcm.models.turns import Turns

_STEP_DIM = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedConfig(TowerConfig):
    """Sizes of the tower and the codebooks."""

    codebooks: int = 12
    entries: int = 256
    """of each codebook"""
    discrete: bool = True
    """Quant-d; otherwise Quant-c"""


class Quantized(Tower):
    """Reads, and chooses entries."""

    config: QuantizedConfig

    def __init__(self, config: QuantizedConfig) -> None:
        super().__init__(config)
        self.quantizer = Quantizer(config.codebooks, config.entries, config.concept_dim)
        self.step_embed = nn.Embedding(config.codebooks + 1, _STEP_DIM)  # the last one: the whole concept
        outputs = config.entries if config.discrete else config.concept_dim
        self.postnet = nn.Linear(config.dim, outputs)
        nn.init.normal_(self.step_embed.weight, std=0.5)
        nn.init.normal_(self.postnet.weight, std=0.02)
        nn.init.zeros_(self.postnet.bias)

    def _prenet(self, config: TowerConfig) -> nn.Module:
        return nn.Linear(config.concept_dim + _STEP_DIM, config.dim)

    def embedded(self, normalised: Tensor, turns: Turns) -> Tensor:
        """Whole concepts [..., C] → [..., D]."""
        whole = torch.full(normalised.shape[:-1], self.config.codebooks, device=normalised.device)
        x = self._projected(normalised, whole)
        return self.told(x, turns)

    def token(self, so_far: Tensor, steps: Tensor, told: Tensor) -> Tensor:
        """The sum of the entries so far [..., C] as the first layer gets it: [..., D]; `told` as `asked` gives it."""
        return self.dropout(self._projected(so_far, steps) + told)

    def scores(self, x: Tensor, so_far: Tensor, number: int, temperature: float) -> Tensor:
        """Logits [..., K] of the entries of codebook `number`, from the tower's output [..., D] and the sum so far."""
        out = self.postnet(self.norm(x)).float()
        if self.config.discrete:
            logits: Tensor = out / temperature if temperature > 0 else out
            return logits
        book = self.quantizer.codebook(number)
        distances = torch.cdist(out - so_far, book).square()  # softmax(−β ‖c − r̂‖²) [LCM §2.4.2], β = 1 / temperature
        return -distances / temperature if temperature > 0 else -distances

    def refined(self, read: ReadRows, unfinished: Tensor, steps: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
        """As `Refines` has it: logits [B, T, K] of the entries of the step's codebook, or x̂."""
        length = unfinished.shape[1]
        x = torch.cat(
            [self.embedded(read.normalised, read.turns), self.token(unfinished, steps, self.asked(read.asked))], dim=1
        )
        rotation = self.rotation(places(length, x.device))
        mask = beside(read, free, self.config.context)
        for layer in self.layers:
            x = layer(x, rotation, mask)
        return x[:, :length], self.postnet(self.norm(x[:, length:])).float()

    def drawer(self, sampling: Sampling, maps: Maps | None = None) -> "QuantizedDrawer":
        """Codebook after codebook."""
        return QuantizedDrawer(self, Peek(self, maps or Maps()), sampling)

    def _projected(self, concepts: Tensor, steps: Tensor) -> Tensor:
        weight_type = self.norm.weight.dtype
        with_step = torch.cat([concepts.to(weight_type), self.step_embed(steps).to(weight_type)], dim=-1)
        x: Tensor = self.prenet(with_step)
        return x.to(weight_type)


@dataclass(frozen=True, slots=True)
class QuantizedDrawer:
    """Chooses an entry of each codebook."""

    model: Quantized
    peek: Peek
    sampling: Sampling
    graphed: Graphed = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "graphed", Graphed(self.chain))  # one CUDA graph, where there is CUDA

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """One number for each entry; none where the likeliest is taken."""
        config = self.model.config
        return (config.codebooks, config.entries) if self.sampling.temperature > 0 else (0,)

    def __call__(self, asked: Turns, state: LcmState, noise: Tensor) -> Tensor:
        """[B, C]."""
        drawn = self.graphed(noise, self.model.asked(asked), *self.peek.held(state).tensors())
        return self.model.normalizer.inverse(drawn)

    def chain(self, noise: Tensor, told: Tensor, *tensors: Tensor) -> Tensor:
        """Entries of all codebooks, added up: normalised concepts [B, C]."""
        model, held = self.model, Held.of(tensors, self.model.config.layers)
        so_far = torch.zeros(len(noise), model.config.concept_dim, device=noise.device)
        for number in range(model.config.codebooks):
            logits = self._logits(number, so_far, told, held)
            so_far = so_far + model.quantizer.codebook(number)[self._chosen(logits, noise, number)]
        return so_far

    def _logits(self, number: int, so_far: Tensor, told: Tensor, held: Held) -> Tensor:
        steps = torch.full((len(so_far),), number, device=so_far.device)
        token = self.model.token(so_far, steps, told)
        if self.sampling.guidance == 1.0:
            return self.model.scores(self.peek(token, held), so_far, number, self.sampling.temperature)
        x = self.peek(token.repeat(2, 1), held)
        scores = self.model.scores(x, so_far.repeat(2, 1), number, self.sampling.temperature)
        given, free = scores.log_softmax(dim=-1).chunk(2)
        return free + self.sampling.guidance * (given - free)

    def _chosen(self, logits: Tensor, noise: Tensor, number: int) -> Tensor:
        if self.sampling.temperature == 0:
            return logits.argmax(dim=-1)
        if self.sampling.top_k:
            least = logits.topk(min(self.sampling.top_k, logits.shape[-1]), dim=-1).values[..., -1:]
            logits = logits.masked_fill(logits < least, float("-inf"))
        uniform = torch.special.ndtr(noise[:, number]).clamp(1e-7, 1 - 1e-7)
        return (logits - (-uniform.log()).log()).argmax(dim=-1)  # the Gumbel trick: a draw from the softmax
