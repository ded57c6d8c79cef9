"""Base-LCM: the concepts so far in, the next concept out, in one pass and always the same [LCM §2.3.1].

Beyond the paper, where `turns` is set: a head that is told who speaks next, so that a reply is not blurred with the
speaker's going on. And where `key_dim` is: queries and keys, to choose among sentences that exist; what would follow is
not always what lies nearest to the mean of all that could. Knows nothing of text, turns' ends or sampling.
"""

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from lcm.models.fast_linear import Maps
from lcm.models.sampler import Sampling
from lcm.models.state import LcmState
from lcm.models.tower import Tower, TowerConfig
from lcm.models.transformer import NORM_EPS, SwiGlu
from lcm.models.turns import Turns


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseLcmConfig(TowerConfig):
    """Sizes of a Base-LCM; without `turns` it is Meta's, whose PostNet reads the tower directly."""

    key_dim: int = field(default=0, metadata={"least": 0})
    """of queries and keys; 0: none"""


class Keys(nn.Module):
    """Normalised concepts in, keys out: where a sentence stands among replies, not what it means."""

    def __init__(self, concept_dim: int, key_dim: int, dropout: float) -> None:
        super().__init__()
        self.inner_proj = nn.Linear(concept_dim, 2 * key_dim)
        self.output_proj = nn.Linear(2 * key_dim, key_dim)
        self.straight = nn.Linear(concept_dim, key_dim, bias=False)
        self.before, self.inside = nn.Dropout(dropout), nn.Dropout(2 * dropout)

    def forward(self, normalised: Tensor) -> Tensor:
        """[..., C] → unit vectors [..., K]."""
        heard = self.before(normalised)
        inner = self.inside(F.gelu(self.inner_proj(heard)))
        return F.normalize(self.output_proj(inner) + self.straight(heard), dim=-1)


class BaseLcm(Tower):
    """Predicts the mean of what comes next."""

    config: BaseLcmConfig

    def __init__(self, config: BaseLcmConfig) -> None:
        super().__init__(config)
        if config.turns:
            self.head = SwiGlu(config.dim, config.ffn_dim)
            self.head_norm = nn.RMSNorm(config.dim, eps=NORM_EPS)
        self.postnet = nn.Linear(config.dim, config.concept_dim)
        # Predict the centre at first: the normalised target's mean.
        nn.init.normal_(self.postnet.weight, std=0.02)
        nn.init.zeros_(self.postnet.bias)
        if config.key_dim:
            self.query = nn.Linear(config.dim, config.key_dim)
            self.keys = Keys(config.concept_dim, config.key_dim, config.dropout)

    def hidden(self, x: Tensor, asked: Turns) -> Tensor:
        """The tower's output [..., D] → what predictions are read off [..., D], if `asked` [...] speak next."""
        hidden: Tensor = self.norm(x)
        if self.config.turns:
            hidden = self.head_norm(x + self.dropout(self.head(hidden + self.asked(asked))))
        return hidden

    def predicted(self, x: Tensor, asked: Turns) -> Tensor:
        """The tower's output [..., D] → normalised predictions [..., C], float32, if `asked` [...] speak next."""
        concept: Tensor = self.postnet(self.hidden(x, asked)).float()
        return concept

    def queries(self, x: Tensor, asked: Turns) -> Tensor:
        """The tower's output [..., D] → unit vectors [..., K]: the likelier a sentence, the nearer its key."""
        return F.normalize(self.query(self.hidden(x, asked)).float(), dim=-1)

    def drawer(self, sampling: Sampling, maps: Maps | None = None) -> "BaseDrawer":
        """The mean; with a temperature, plus Gaussian noise of so many of the space's standard deviations."""
        return BaseDrawer(self, sampling.temperature)


@dataclass(frozen=True, slots=True)
class BaseDrawer:
    """One pass."""

    model: BaseLcm
    temperature: float

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """None without a temperature."""
        return (self.model.config.concept_dim,) if self.temperature > 0 else (0,)

    def __call__(self, asked: Turns, state: LcmState, noise: Tensor) -> Tensor:
        """[B, C]."""
        assert state.hidden is not None  # something was read
        concept = self.model.predicted(state.hidden, asked)
        if self.temperature > 0:
            concept = concept + self.temperature * noise
        return self.model.normalizer.inverse(concept)
