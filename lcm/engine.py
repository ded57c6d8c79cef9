"""Engine: conversations as concepts in, the concepts that continue them out. Knows nothing of text, sound or sessions.

The reply ends where the stop head says so, where it would end the text (a model without turns) or repeat itself (cosine
≥ 0.9 to the concept before) [LCM §2.4.2], or at `max_concepts`. A concept is predicted from a sliding window of those
before it. Same input, seed, bundle, machine and torch: bit-identical when alone; in a batch within 1e-4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.bundle import Bundle, fitting
from lcm.errors import BundleError, ContextError
from lcm.models.base_lcm import BaseLcm
from lcm.models.fast_linear import Maps, make_fast, settle
from lcm.models.sampler import Sampling
from lcm.models.state import LcmState
from lcm.models.tower import Drawer, Tower
from lcm.models.turns import ROLE_AGENT, ROLE_NARRATOR, ROLE_USER, Turns
from lcm.models.variants import VARIANTS, built
from lcm.space.backend import Precision
from lcm.space.memory import return_memory

if TYPE_CHECKING:
    from lcm.space import ConceptSpace

__all__ = ["ROLE_AGENT", "ROLE_NARRATOR", "ROLE_USER", "Engine", "NextConcept", "Sampling", "step_seed", "variants_of"]

MAX_CONCEPTS = 32
MAX_CONTEXT = 4_096
"""Concepts of a context that are read, the latest; more where the model's layers look back further together"""
STOP_PROBABILITY = 0.5
REPEAT_COSINE = 0.9
_DRAWERS = 4
_CHUNK = 4_096
_ROLES = ("user", "agent", "narrator", "plan", "break")
"""the last two of planning models"""
_SEED_BITS = 2**64 - 1
"""of any integer, what the generator takes"""
_SEED_STEP = 1_000_003
"""prime, and more than callers have seeds in a row"""


def variants_of(bundle: str | Path) -> list[str]:
    """The models of a bundle and of the optional one beside it, in the order of the registry.

    Raises:
        BundleError: a bundle is missing or damaged.
    """
    return _models_of(Bundle.open(bundle))


def _models_of(bundle: Bundle) -> list[str]:
    companion = bundle.companion()
    beside = companion.parts if companion and companion.space_id == bundle.space_id else ()  # another space's: refused
    return [name for name in VARIANTS if name in {*bundle.parts, *beside}]


def step_seed(seed: int, number: int) -> int:
    """The seed of a reply's concept `number`, 0 being the first: whoever draws a reply step by step has its noise."""
    return seed + number * _SEED_STEP


@dataclass(frozen=True, slots=True)
class NextConcept:
    """One step ahead."""

    concept: Tensor  # [C] what comes next
    ended: float
    """probability that the last concept of the context ended its speaker's turn; 1 where it ended the text"""
    query: Tensor | None = None  # [K]
    """what sentences are chosen by from their keys, where the model has any"""
    ends: bool = False
    """whether the concept is what ends a text, which nobody says"""

    @property
    def choosing(self) -> Tensor:
        """What sentences that could be said are chosen by, as `Engine.keys` has theirs: the query, or the concept."""
        return self.concept if self.query is None else self.query


class Engine:
    """One model, in evaluation mode, on one device. Use from one thread at a time."""

    def __init__(
        self,
        model: Tower,
        device: str | torch.device = "cpu",
        sampling: Sampling | None = None,
        variant: str = "base",
        precision: Precision = "float32",
    ) -> None:
        """Takes `model` over: its linear maps become what is fastest on the device, which cannot be trained."""
        self.device = torch.device(device)
        self.model = as_precise(model.to(self.device).eval(), precision)
        self._maps = Maps(int8=precision == "int8")
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        """that were trained: the model does not keep them in that form"""
        make_fast(self.model, int8=self._maps.int8)
        self.dim = model.config.concept_dim
        self.context = model.config.context
        self.sampling = sampling or VARIANTS[variant].sampling
        self.variant = variant
        self._drawers: dict[Sampling, Drawer] = {}
        self._drawer(None)  # makes the maps of several, which takes the weights
        settle(self.model)
        return_memory()

    @classmethod
    def load(
        cls,
        name: str | Path = "mini",
        variant: str = "base",
        device: str = "auto",
        space: "ConceptSpace | None" = None,
        precision: Precision = "float32",
    ) -> "Engine":
        """Load a bundle's model.

        Args:
            name: `mini`, or a bundle folder.
            variant: which of its models; one that it lacks is looked for in the bundle NAME-lcms beside it.
            device: `auto` (CUDA, else MPS, else CPU) or any torch device.
            precision: of the weights; concepts are float32 always.
            space: the space whose concepts it will be given, if it is loaded already; checked, not kept.

        Raises:
            BundleError: missing or damaged, no such variant, or made for another space.
        """
        from lcm.space.checks import chosen_device

        bundle = Bundle.open(name)
        holder = bundle if variant in bundle.parts else bundle.companion() or bundle
        if variant not in VARIANTS.keys() & holder.parts:
            found = _models_of(bundle)
            has = f"it has: {', '.join(found)}" if found else "nor any other"
            raise BundleError(f"{bundle.folder} has no model {variant!r}; {has}")
        if space is not None and space.space_id != bundle.space_id:
            raise BundleError(
                f"the models of {bundle.folder} think in space {bundle.space_id}, the loaded space is "
                f"{space.space_id}; load both from one bundle"
            )
        part = bundle.lcm_part(variant)
        with fitting(part):
            model, sampling = built(variant, part.config)
            model.load_state_dict(part.tensors())
        return cls(model, chosen_device(device), sampling, variant, precision)

    @torch.inference_mode()
    def predict(
        self,
        contexts: Sequence[Tensor],
        roles: Sequence[Tensor],
        max_concepts: int = 4,
        seeds: Sequence[int] | None = None,
        *,
        sampling: Sampling | None = None,
    ) -> list[Tensor]:
        """Continue each context by the agent's turn (by the narrator's, where a narrator spoke last).

        Args:
            contexts: [T, C] each, any length ≥ 1; each concept sees `self.context` of them, itself included.
            roles: [T] each: 0 user, 1 agent, 2 narrator.
            max_concepts: of a reply; 1 … 32.
            seeds: one each, of the noise, see `step_seed`; a batch's other items do not change it.
            sampling: how concepts are drawn, if not as the variant does by itself.

        Returns:
            [n, C] float32 on the CPU each, n ≤ `max_concepts`; 0 only of a model without turns, whose text has ended.

        Raises:
            ContextError: empty, not finite, or shapes or counts that do not belong together.
        """
        if not contexts:
            return []
        if not 1 <= max_concepts <= MAX_CONCEPTS:
            raise ContextError(f"ask for 1 to {MAX_CONCEPTS} concepts, not {max_concepts}")
        drawer = self._drawer(sampling)
        seeds = self._seeds(contexts, seeds)
        replies: list[list[Tensor]] = [[] for _ in contexts]
        going = self._read(contexts, roles, max_concepts)
        while len(going.rows):
            rows = going.rows.tolist()
            number = len(replies[rows[0]])
            noise = self._noise(drawer, [step_seed(seeds[row], number) for row in rows])
            drawn = drawer(going.asked, going.state, noise)
            fresh = ~self.model.ending(drawn)
            if number:
                previous = torch.stack([replies[r][-1] for r in rows]).to(self.device)
                fresh &= F.cosine_similarity(drawn, previous, dim=1) < REPEAT_COSINE
            drawn, going = drawn[fresh], going.only(fresh)
            for row, concept in zip(going.rows.tolist(), drawn.cpu(), strict=True):
                replies[row].append(concept)
            if not len(going.rows) or len(replies[int(going.rows[0])]) == max_concepts:
                break
            stops = self._follow(going, drawn)
            going = going.only(stops.sigmoid() < STOP_PROBABILITY)
        return [torch.stack(reply) if reply else torch.empty(0, self.dim) for reply in replies]

    @torch.inference_mode()
    def predict_next(
        self,
        contexts: Sequence[Tensor],
        roles: Sequence[Tensor],
        seeds: Sequence[int] | None = None,
        *,
        sampling: Sampling | None = None,
    ) -> list[NextConcept]:
        """One step: what the agent says next, and whether the turn so far was complete.

        For a caller that says something else than the prediction (a sentence of a bank): it appends what it said and
        asks again.

        Raises:
            ContextError: as `predict`.
        """
        if not contexts:
            return []
        read = self._read(contexts, roles, 1)
        return self.drawn(read.state, read.asked, seeds, sampling)

    @torch.inference_mode()
    def drawn(
        self, state: LcmState, asked: Turns, seeds: Sequence[int] | None = None, sampling: Sampling | None = None
    ) -> list[NextConcept]:
        """What the speakers `asked` [B] say next in conversations that were read into `state`.

        Raises:
            ContextError: not one seed each, or a sampling that means nothing to the model.
        """
        assert state.hidden is not None  # something was read
        drawer = self._drawer(sampling)
        asked = asked.to(self.device)
        drawn = drawer(asked, state, self._noise(drawer, self._seeds(asked.roles, seeds)))
        queries = self._queries(state.hidden, asked) if self.keyed else [None] * len(drawn)
        ends = self.model.ending(drawn)
        ended = self.model.stops(state.hidden).sigmoid().masked_fill(ends, 1.0).tolist()
        return [NextConcept(*said) for said in zip(drawn.cpu(), ended, queries, ends.tolist(), strict=True)]

    @property
    def keyed(self) -> bool:
        """Whether the model has queries and keys to choose among sentences by."""
        return isinstance(self.model, BaseLcm) and self.model.config.key_dim > 0

    @torch.inference_mode()
    def keys(self, concepts: Tensor) -> Tensor:
        """Concepts [N, C] of sentences that could be said → unit vectors [N, K] on the CPU.

        The keys of a model that is `keyed`, to be compared with its queries; else the concepts' directions, with its
        concepts'.
        """
        if not (isinstance(self.model, BaseLcm) and self.keyed):
            return F.normalize(concepts.float(), dim=1)
        parts = concepts.to(self.device, torch.float32).split(_CHUNK)
        model = self.model
        rows = (model.keys(model.normalizer(part).to(model.norm.weight.dtype)) for part in parts)
        return torch.cat([keys.float().cpu() for keys in rows])

    def _queries(self, hidden: Tensor, asked: Turns) -> Sequence[Tensor | None]:
        assert isinstance(self.model, BaseLcm)  # it is keyed
        return list(self.model.queries(hidden, asked).cpu())

    def _drawer(self, sampling: Sampling | None) -> Drawer:
        wanted = sampling or self.sampling
        if wanted not in self._drawers:
            if len(self._drawers) >= _DRAWERS:
                del self._drawers[next(iter(self._drawers))]
            try:
                self._drawers[wanted] = self.model.drawer(wanted, self._maps)
            except ValueError as error:
                raise ContextError(str(error)) from error
        return self._drawers[wanted]

    def _seeds(self, contexts: Sequence[Tensor] | Tensor, seeds: Sequence[int] | None) -> Sequence[int]:
        seeds = [0] * len(contexts) if seeds is None else seeds
        if len(seeds) != len(contexts):
            raise ContextError(f"{len(contexts)} contexts but {len(seeds)} seeds; give one each")
        return seeds

    def _noise(self, drawer: Drawer, seeds: Sequence[int]) -> Tensor:
        generators = [torch.Generator().manual_seed(seed & _SEED_BITS) for seed in seeds]
        return torch.stack([torch.randn(drawer.noise_shape, generator=g) for g in generators]).to(self.device)

    def _read(self, contexts: Sequence[Tensor], roles: Sequence[Tensor], ahead: int) -> "_Going":
        """The model after the contexts, with room for `ahead` concepts more."""
        self.check(contexts, roles)
        most = max(MAX_CONTEXT, self.model.config.layers * self.context)
        latest = [c[-most:].to(torch.float32) for c in contexts]
        told = [torch.as_tensor(r)[-most:].to(torch.int64) for r in roles]
        counts = torch.tensor([len(c) for c in latest])
        width = int(counts.max())
        concepts = torch.zeros(len(latest), width, self.dim)
        spoken = torch.zeros(len(latest), width, dtype=torch.int64)
        for row, (concept, role) in enumerate(zip(latest, told, strict=True)):
            concepts[row, : len(concept)], spoken[row, : len(role)] = concept, role
        turns = Turns.of(spoken)
        rows = torch.arange(len(latest))
        last = Turns(turns.roles[rows, counts - 1], turns.places[rows, counts - 1])
        speakers = torch.where(last.roles == ROLE_NARRATOR, ROLE_NARRATOR, ROLE_AGENT)
        # Where graphs are captured states of one size are worth more than small ones.
        state = self.model.start(len(latest), None if self.device.type == "cuda" else width + ahead)
        stops = self.model.read(concepts.to(self.device), turns.to(self.device), counts.to(self.device), state)
        return _Going(rows.to(self.device), stops, last.followed_by(speakers).to(self.device), state)

    def _follow(self, going: "_Going", drawn: Tensor) -> Tensor:
        """Read what was drawn; returns the logits [B] of each ending its turn."""
        turns = Turns(going.asked.roles[:, None], going.asked.places[:, None])
        stops = self.model.read(drawn[:, None], turns, torch.ones_like(going.rows), going.state)
        going.asked = Turns(going.asked.roles, going.asked.places + 1)
        return stops

    def check(self, contexts: Sequence[Tensor], roles: Sequence[Tensor]) -> None:
        """Whether these can be read.

        Raises:
            ContextError: empty, not finite, or shapes or counts that do not belong together.
        """
        if len(contexts) != len(roles):
            raise ContextError(f"{len(contexts)} contexts but {len(roles)} lists of roles; give one each")
        for context, told in zip(contexts, roles, strict=True):
            if context.ndim != 2 or context.shape[1] != self.dim or not len(context):
                raise ContextError(f"a context has shape {tuple(context.shape)}; give [T, {self.dim}] with T ≥ 1")
            if len(told) != len(context):
                raise ContextError(f"a context of {len(context)} concepts has {len(told)} roles; give one each")
            if not bool(torch.isfinite(context).all()):
                raise ContextError("a context holds numbers that are not finite; encode the sentences again")
            least, most = torch.as_tensor(told).aminmax()
            if not 0 <= int(least) <= int(most) < self.model.config.roles:
                known = ", ".join(f"{role} ({name})" for role, name in enumerate(_ROLES[: self.model.config.roles]))
                raise ContextError(f"a role is none of {known}")


def as_precise(model: Tower, precision: Precision) -> Tower:
    """Weights of another type; what is `exact` keeps its own. Of `int8`, what is not a linear map is bfloat16."""
    if precision != "float32":
        kept = [{k: v.clone() for k, v in part.state_dict().items()} for part in model.exact]
        model = model.to(torch.bfloat16 if precision == "int8" else getattr(torch, precision))
        for part, state in zip(model.exact, kept, strict=True):
            part.float().load_state_dict(state)
    return model


@dataclass(slots=True)
class _Going:
    """The conversations of a batch whose reply goes on."""

    rows: Tensor  # [B] place in the batch
    stops: Tensor  # [B]
    asked: Turns  # [B] who says what comes next, and where in their turn
    state: LcmState

    def only(self, wanted: Tensor) -> "_Going":
        """Let the others leave."""
        if bool(wanted.all()):
            return self
        at = wanted.nonzero()[:, 0]
        asked = Turns(self.asked.roles[at], self.asked.places[at])
        return _Going(self.rows[at], self.stops[at], asked, self.state.select(at))
