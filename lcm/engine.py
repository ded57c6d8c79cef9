"""Engine: conversations as concepts in, the concepts that continue them out. Knows nothing of text, sound or sessions.

The reply ends where the stop head says so, where it would repeat itself (cosine ≥ 0.9 to the concept before
[LCM §2.4.2]), or at `max_concepts`. Same input, seed, bundle, machine and torch: bit-identical when alone; in a batch
within 1e-4.
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
from lcm.models.base_lcm import ROLE_AGENT, ROLE_NARRATOR, ROLE_USER, ROLES, BaseLcm, BaseLcmConfig, Turns
from lcm.models.state import LcmState

if TYPE_CHECKING:
    from lcm.space import ConceptSpace

__all__ = ["ROLE_AGENT", "ROLE_NARRATOR", "ROLE_USER", "Engine", "NextConcept"]

VARIANTS = {"base": (BaseLcm, BaseLcmConfig)}
MAX_CONCEPTS = 32
STOP_PROBABILITY = 0.5
REPEAT_COSINE = 0.9


@dataclass(frozen=True, slots=True)
class NextConcept:
    """One step ahead."""

    concept: Tensor  # [C] what comes next
    ended: float
    """probability that the last concept of the context ended its speaker's turn"""


class Engine:
    """One model, in evaluation mode, on one device. Use from one thread at a time."""

    def __init__(self, model: BaseLcm, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.dim = model.config.concept_dim
        self.context = model.config.context

    @classmethod
    def load(
        cls,
        name: str | Path = "mini",
        variant: str = "base",
        device: str = "auto",
        space: "ConceptSpace | None" = None,
    ) -> "Engine":
        """Load a bundle's model.

        Args:
            name: `mini`, or a bundle folder.
            variant: which of its models.
            device: `auto` (CUDA, else MPS, else CPU) or any torch device.
            space: the space whose concepts it will be given, if it is loaded already; checked, not kept.

        Raises:
            BundleError: missing or damaged, no such variant, or made for another space.
        """
        from lcm.space.checks import chosen_device

        bundle = Bundle.open(name)
        if variant not in VARIANTS:
            raise BundleError(f"unknown model {variant!r}; choose one of: {', '.join(VARIANTS)}")
        if space is not None and space.space_id != bundle.space_id:
            raise BundleError(
                f"the models of {bundle.folder} think in space {bundle.space_id}, the loaded space is "
                f"{space.space_id}; load both from one bundle"
            )
        part = bundle.part(variant)
        kind, config = VARIANTS[variant]
        with fitting(part):
            model = kind(config(**part.config))
            model.load_state_dict(part.tensors())
        return cls(model, chosen_device(device))

    @torch.inference_mode()
    def predict(
        self,
        contexts: Sequence[Tensor],
        roles: Sequence[Tensor],
        max_concepts: int = 4,
        seeds: Sequence[int] | None = None,
        *,
        temperature: float = 0.0,
    ) -> list[Tensor]:
        """Continue each context by the agent's turn (by the narrator's, where a narrator spoke last).

        Args:
            contexts: [T, C] each, any length ≥ 1; the latest `self.context` concepts are read.
            roles: [T] each: 0 user, 1 agent, 2 narrator.
            max_concepts: of a reply; 1 … 32.
            seeds: one each, of the noise; a batch's other items do not change it.
            temperature: how much Gaussian noise a prediction gets, in the space's own standard deviations.

        Returns:
            [n, C] float32 on the CPU each, 1 ≤ n ≤ `max_concepts`.

        Raises:
            ContextError: empty, not finite, or shapes or counts that do not belong together.
        """
        if not contexts:
            return []
        seeds = [0] * len(contexts) if seeds is None else seeds
        if len(seeds) != len(contexts) or not 1 <= max_concepts <= MAX_CONCEPTS:
            raise ContextError(f"give one seed for each context, and 1 to {MAX_CONCEPTS} concepts to predict")
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        replies: list[list[Tensor]] = [[] for _ in contexts]
        going = self._read(contexts, roles, max_concepts)
        while len(going.rows):
            going.predicted = self._noised(going.predicted, [generators[r] for r in going.rows.tolist()], temperature)
            if replies[int(going.rows[0])]:
                previous = torch.stack([replies[r][-1] for r in going.rows.tolist()]).to(self.device)
                going.keep(F.cosine_similarity(going.predicted, previous, dim=1) < REPEAT_COSINE)
            for row, concept in zip(going.rows.tolist(), going.predicted.cpu(), strict=True):
                replies[row].append(concept)
            if not len(going.rows) or len(replies[int(going.rows[0])]) == max_concepts:
                break
            stop = self._follow(going)
            going.keep(stop.sigmoid() < STOP_PROBABILITY)
        return [torch.stack(reply) for reply in replies]

    @torch.inference_mode()
    def predict_next(self, contexts: Sequence[Tensor], roles: Sequence[Tensor]) -> list[NextConcept]:
        """One step: what the agent says next, and whether the turn so far was complete.

        For a caller that says something else than the prediction (a sentence of a bank): it appends what it said and
        asks again.

        Raises:
            ContextError: as `predict`.
        """
        if not contexts:
            return []
        read = self._read(contexts, roles, 1)
        return [NextConcept(c, p) for c, p in zip(read.predicted.cpu(), read.stop.sigmoid().tolist(), strict=True)]

    def _read(self, contexts: Sequence[Tensor], roles: Sequence[Tensor], ahead: int) -> "_Going":
        """The model after the contexts, with room for `ahead` concepts more."""
        self._check(contexts, roles)
        latest = [c[-self.context :].to(torch.float32) for c in contexts]
        told = [torch.as_tensor(r)[-self.context :].to(torch.int64) for r in roles]
        counts = torch.tensor([len(c) for c in latest], device=self.device)
        speakers = torch.tensor([ROLE_NARRATOR if int(r[-1]) == ROLE_NARRATOR else ROLE_AGENT for r in told])
        width = max(len(c) for c in latest)
        concepts = torch.zeros(len(latest), width, self.dim)
        padded = speakers[:, None].repeat(1, width)  # after the last concept stands who speaks next
        for row, (concept, role) in enumerate(zip(latest, told, strict=True)):
            concepts[row, : len(concept)], padded[row, : len(role)] = concept, role
        speakers = speakers.to(self.device)
        turns = Turns.of(padded.to(self.device), speakers)
        state = self.model.start(len(latest), width + ahead)
        predicted, stop = self.model.extend(concepts.to(self.device), turns, counts, state)
        rows = torch.arange(len(latest), device=self.device)
        at = (rows, counts - 1)
        places = torch.where(turns.roles[at] == speakers, turns.places[at] + 1, 0)
        return _Going(rows, predicted[at], stop[at], speakers, places, state)

    def _follow(self, going: "_Going") -> Tensor:
        """Read the predictions themselves; returns the logits [B] of each ending its turn."""
        turns = Turns(going.speakers[:, None], going.places[:, None], going.speakers[:, None])
        followed, stop = self.model.extend(going.predicted[:, None], turns, torch.ones_like(going.rows), going.state)
        going.predicted, going.places = followed[:, 0], going.places + 1
        return stop[:, 0]

    def _noised(self, predicted: Tensor, generators: list[torch.Generator], temperature: float) -> Tensor:
        if temperature <= 0:
            return predicted
        noise = torch.stack([torch.randn(self.dim, generator=g) for g in generators]).to(self.device)
        return predicted + temperature * self.model.normalizer.scale * noise

    def _check(self, contexts: Sequence[Tensor], roles: Sequence[Tensor]) -> None:
        if len(contexts) != len(roles):
            raise ContextError(f"{len(contexts)} contexts but {len(roles)} lists of roles; give one each")
        for context, told in zip(contexts, roles, strict=True):
            if context.ndim != 2 or context.shape[1] != self.dim or not len(context):
                raise ContextError(f"a context has shape {tuple(context.shape)}; give [T, {self.dim}] with T ≥ 1")
            if len(told) != len(context):
                raise ContextError(f"a context of {len(context)} concepts has {len(told)} roles; give one each")
            if not bool(torch.isfinite(context).all()):
                raise ContextError("a context holds numbers that are not finite; encode the sentences again")
            if not all(0 <= int(role) < ROLES for role in told):
                raise ContextError("a role is none of 0 (user), 1 (agent), 2 (narrator)")


@dataclass(slots=True)
class _Going:
    """The conversations of a batch whose reply goes on."""

    rows: Tensor  # [B] place in the batch
    predicted: Tensor  # [B, C]
    stop: Tensor  # [B]
    speakers: Tensor  # [B] who says what is predicted
    places: Tensor  # [B] where in their turn
    state: LcmState

    def keep(self, wanted: Tensor) -> None:
        """Let the others leave."""
        if bool(wanted.all()):
            return
        at = wanted.nonzero()[:, 0]
        self.rows, self.predicted, self.stop = self.rows[at], self.predicted[at], self.stop[at]
        self.speakers, self.places, self.state = self.speakers[at], self.places[at], self.state.select(at)
