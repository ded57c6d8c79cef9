"""Fast denoiser: the same numbers as `Denoiser`, for one concept a row, with nothing computed twice.

What depends on the noise level alone is tabulated; value and output map of the attention to one's own position are one
map; keys and values of the context come from the state; what a row without context gets from cross-attention is a
constant. Knows nothing of chains of steps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.models.denoiser import Denoiser, DenoiserLayer
from lcm.models.fast_linear import Maps
from lcm.models.seen import Seen, mask_of
from lcm.models.state import LcmState
from lcm.models.transformer import NORM_EPS, attend, split_heads


class FastDenoiser:
    """A denoiser made ready for the diffusion times of one chain."""

    @torch.no_grad()
    def __init__(self, denoiser: Denoiser, times: tuple[int, ...], maps: Maps) -> None:
        level = denoiser.levels(torch.tensor(times, device=denoiser.norm.weight.device))
        self.layers = [_FastLayer(layer, level, maps) for layer in denoiser.layers if isinstance(layer, DenoiserLayer)]
        self._type = denoiser.norm.weight.dtype
        self._prenet = maps.of(denoiser.prenet)
        self._postnet = maps.of(denoiser.postnet)
        self._norm = denoiser.norm.weight

    def context(self, state: LcmState, first: int) -> Seen:
        """The zero vector, then what is held of the context; `first` is the first layer's number in the state."""
        visible = state.visible()
        used = visible.shape[1]
        keys, values = [], []
        for number, layer in enumerate(self.layers, start=first):
            held = state.keys[number][:, :, :used], state.values[number][:, :, :used]
            nothing = (part.expand(len(visible), -1, -1, -1) for part in layer.nothing)
            k, v = (torch.cat([none, part], dim=2) for none, part in zip(nothing, held, strict=True))
            keys.append(k)
            values.append(v)
        return Seen(keys, values, mask_of(visible, before=1))

    def step(
        self, number: int, noisy: Tensor, asked: Tensor, context: Seen, *, guided: bool
    ) -> tuple[Tensor, Tensor | None]:
        """x_0 of noisy [B, C] at the chain's step `number`; with `guided`, also without the context."""
        x = self._prenet(noisy.to(self._type)) + asked
        if guided:
            x = x.repeat(2, 1)
        for index, layer in enumerate(self.layers):
            x = layer.step(number, x, context.keys[index], context.values[index], context.mask)
        predicted = self._postnet(F.rms_norm(x, x.shape[-1:], self._norm, NORM_EPS)).float()
        if not guided:
            return predicted, None
        given, free = predicted.chunk(2)
        return given, free


class _FastLayer:
    def __init__(self, layer: DenoiserLayer, level: Tensor, maps: Maps) -> None:
        own, cross, ffn = layer.own, layer.cross, layer.ffn
        norms = (layer.own_norm, layer.cross_norm, layer.ffn_norm)
        self._tables: list[tuple[Tensor, Tensor, Tensor]] = []
        for norm, part in zip(norms, layer.modulator(level).chunk(3, dim=-1), strict=True):
            shift, scale, gate = part.chunk(3, dim=-1)
            self._tables.append((shift, norm.weight * (1 + scale), gate))
        self._heads = cross.heads
        self._own = maps.chained(own.v_proj, own.output_proj)
        self._q = maps.of(cross.q_proj)
        self._output = maps.of(cross.output_proj)
        self.nothing = cross.keys_and_values(torch.zeros_like(layer.own_norm.weight)[None, None])
        self._nothing_seen = cross.output_proj(self.nothing[1].transpose(1, 2).flatten(2))[0, 0]
        self._inner = maps.of(ffn.gate_proj, ffn.inner_proj)
        self._ffn_output = maps.of(ffn.output_proj)

    def step(self, number: int, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """[B, D], or [2 B, D] of which the second half sees no context."""
        own, to, inside = ([part[number] for part in table] for table in self._tables)
        x = torch.addcmul(x, own[2], self._own(_modulated(x, own)))
        seeing = len(keys)
        asked = _modulated(x[:seeing], to)
        q = split_heads(self._q(asked)[:, None], self._heads)
        seen = self._output(attend(q, keys, values, mask)[:, 0])
        if len(x) > seeing:
            seen = torch.cat([seen, self._nothing_seen.expand(len(x) - seeing, -1)])
        x = torch.addcmul(x, to[2], seen)
        gate, inner = self._inner(_modulated(x, inside)).chunk(2, dim=-1)
        return torch.addcmul(x, inside[2], self._ffn_output(F.silu(gate) * inner))


def _modulated(x: Tensor, table: list[Tensor]) -> Tensor:
    return torch.addcmul(table[0], F.rms_norm(x, x.shape[-1:], eps=NORM_EPS), table[1])
