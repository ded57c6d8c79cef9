"""Turns: who says each concept, and where in their turn it stands. Knows nothing of models."""

from dataclasses import dataclass

import torch
from torch import Tensor

ROLE_USER, ROLE_AGENT, ROLE_NARRATOR = 0, 1, 2
ROLES = 3


def places_in_turn(roles: Tensor, starts: Tensor | None = None) -> Tensor:
    """How many sentences of the same speaker stand directly before each one: [..., T] → [..., T].

    `starts` [..., T] are first sentences of documents, where nothing stands before.
    """
    index = torch.arange(roles.shape[-1], device=roles.device).expand_as(roles)
    fresh = torch.ones_like(roles, dtype=torch.bool)
    fresh[..., 1:] = roles[..., 1:] != roles[..., :-1]
    if starts is not None:
        fresh |= starts
    return index - torch.where(fresh, index, 0).cummax(dim=-1).values


@dataclass(frozen=True, slots=True)
class Turns:
    """Speakers of concepts, and how many sentences of the same turn stand before each."""

    roles: Tensor  # [..., T]
    places: Tensor  # [..., T]

    @classmethod
    def of(cls, roles: Tensor, starts: Tensor | None = None) -> "Turns":
        """From the roles [..., T]; `starts` as of `places_in_turn`."""
        return cls(roles, places_in_turn(roles, starts))

    def followed_by(self, roles: Tensor) -> "Turns":
        """Where the concept after each one stands, if `roles` [..., T] say it."""
        return Turns(roles, torch.where(roles == self.roles, self.places + 1, 0))

    def row(self, index: int) -> "Turns":
        """One of a batch's, still a batch: [B, T] → [1, T]."""
        return Turns(self.roles[index : index + 1], self.places[index : index + 1])

    def to(self, device: torch.device) -> "Turns":
        """The same on `device`."""
        return Turns(self.roles.to(device), self.places.to(device))
