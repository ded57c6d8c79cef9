"""One measurement of `bench context`, in a process of its own, so that its memory is its own too.

    python -m scripts.context_process '{"side": "tokens", "mode": "read", "tokens": 1000, …}'

The last line on stdout is a JSON object. Both sides read a text, then write on; what is written is known beforehand:
each side computes what it would say next (greedily), puts that aside and takes the text's own next sentence or token,
so that random weights and trained ones write equally much.
"""

import json
import math
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from typing import Any, Protocol

import torch
from torch import Tensor

from agent.metrics import peak_rss_mb
from lcm.engine import ROLE_NARRATOR, Engine
from lcm.models.base_lcm import BaseLcm, BaseLcmConfig
from lcm.models.sampler import Sampling
from lcm.models.state import LcmState
from lcm.models.tower import Tower
from lcm.models.turns import Turns
from lcm.models.two_tower import TwoTower, TwoTowerConfig
from lcm.reply_bank import ReplyBank
from lcm.space import ConceptSpace, DecodingOptions
from lcm.space.text_decoder import TextDecoder, TextDecoderConfig
from lcm.space.text_encoder import TextEncoder, TextEncoderConfig
from scripts.context_costs import ConceptSizes, TokenSizes
from scripts.context_text import LANGUAGE, Sentence, of_length, sentences

LARGE = BaseLcmConfig(dim=512, layers=8, heads=8, ffn_dim=1408, dropout=0.0)
"""A concept model three times as large as mini's encoder and decoder together"""
TWO_TOWER = TwoTowerConfig(dim=512, layers=3, denoiser_layers=4, heads=8, ffn_dim=1408, dropout=0.0)
"""About as large, with the paper's chain of denoising steps for each concept"""
ENOUGH_S = 2.0
MOST_ROUNDS = 5
_AT_ONCE = 64
_WARM_TOKENS = 100


@dataclass(frozen=True, slots=True)
class Spec:
    """What to measure."""

    side: str
    """concepts, together (the same, all sentences decoded at the end and at once), or tokens"""
    bundle: str
    size: str
    """mini: the bundle's own model; large, two_tower: those above, with random weights, seeing the whole document"""
    mode: str
    """read: read `tokens`, then write `ahead`; write: read one sentence, then write `tokens`"""
    tokens: int
    ahead: int
    sentence: int
    """tokens a concept, at least"""
    llama: dict[str, int] | None = None
    steps: int = 40
    """of denoising a concept"""
    chunk: int = 0
    """tokens that the token side reads at once; 0: all"""


class Side(Protocol):
    """Reads a document, then writes on."""

    def begin(self, document: Sequence[Sentence]) -> None:
        """Reads, from nothing."""
        ...

    def write(self, following: Sequence[Sentence], tokens: int) -> int:
        """Writes `tokens` tokens, or as many as the last sentence has more; says how many."""
        ...

    def about(self) -> dict[str, Any]:
        """Its sizes."""
        ...


class ConceptSide:
    """Encode, think, decode."""

    def __init__(self, spec: Spec, following: Sequence[Sentence], concepts: int) -> None:
        self._space = ConceptSpace.load(spec.bundle, "cpu", parts=["text_encoder", "text_decoder"])
        torch.manual_seed(0)
        self._model: Tower
        if spec.size == "large":
            self._model = BaseLcm(replace(LARGE, concept_dim=self._space.dim, context=concepts))
        elif spec.size == "two_tower":
            self._model = TwoTower(replace(TWO_TOWER, concept_dim=self._space.dim, context=concepts))
        else:
            self._model = Engine.load(spec.bundle, device="cpu", space=self._space).model
        self._model.eval()
        self._sampling = Sampling(steps=spec.steps)
        self._drawer = self._model.drawer(self._sampling)
        self._together = spec.side == "together"
        self._slots = concepts
        self._true = torch.cat([self._encoded(part) for part in _parts(following)])  # what is said in place of a draw
        self._state: LcmState
        self._read = 0

    def begin(self, document: Sequence[Sentence]) -> None:
        """A batch of sentences after the other: encoded, and read by the concept model."""
        self._state, self._read = self._model.start(1, self._slots), 0
        for part in _parts(document):
            self._hear(self._encoded(part))

    def write(self, following: Sequence[Sentence], tokens: int) -> int:
        """Sentence by sentence: the next concept, its words, and on from there."""
        written, waiting, longest = 0, [], 0
        for concept, own in cycle(zip(self._true, following, strict=True)):
            self._think()
            if self._together:
                waiting.append(concept)
                longest = max(longest, len(own.tokens))
                written += len(own.tokens)
            else:
                written += self._said(concept[None], len(own.tokens))
            if written >= tokens:
                break
            self._hear(concept[None])
        return self._said(torch.stack(waiting), longest) if waiting else written

    def about(self) -> dict[str, Any]:
        """Parameters, each counted once, and what the derived cost takes."""
        bundle, config = self._space.bundle, self._model.config
        with torch.device("meta"):  # what is loaded is packed, and has no parameters any more
            encoder = TextEncoder(TextEncoderConfig(**bundle.part("text_encoder").config))
            decoder = TextDecoder(TextDecoderConfig(**bundle.part("text_decoder").config), embed=encoder.embed)
        of_encoder, of_decoder, of_lcm = (
            sum(p.numel() for p in module.parameters()) for module in (encoder, decoder, self._model)
        )
        embed = encoder.embed.weight.numel()
        window = min(config.context, self._slots)
        denoising: dict[str, int] = {}
        if isinstance(self._model, TwoTower):
            denoiser = sum(p.numel() for p in self._model.denoiser.parameters())
            passes = self._sampling.steps * (2 if self._sampling.guidance != 1 else 1)
            layers = self._model.config.denoiser_layers
            denoising = {"denoiser": denoiser, "denoiser_layers": layers, "passes": passes}
        reading = of_lcm - denoising.get("denoiser", 0)
        sizes = ConceptSizes(of_encoder - embed, reading, of_decoder, config.layers, config.dim, window, **denoising)
        return {
            "parameters": of_encoder + of_decoder - embed + of_lcm,
            "vocab": encoder.embed.num_embeddings,
            "sizes": asdict(sizes),
        }

    def _encoded(self, part: Sequence[Sentence]) -> Tensor:
        return self._space.encode_text([sentence.text for sentence in part], LANGUAGE)

    def _hear(self, concepts: Tensor) -> None:
        roles = torch.full((1, len(concepts)), ROLE_NARRATOR)
        turns = Turns(roles, self._read + torch.arange(len(concepts))[None])
        self._model.read(concepts[None], turns, torch.tensor([len(concepts)]), self._state)
        self._read += len(concepts)

    def _think(self) -> Tensor:
        asked = Turns(torch.tensor([ROLE_NARRATOR]), torch.tensor([self._read]))
        noise = torch.randn(1, *self._drawer.noise_shape)
        drawn: Tensor = self._drawer(asked, self._state, noise)
        return drawn

    def _said(self, concepts: Tensor, longest: int) -> int:
        """Words of no more tokens than the text has there: the small decoder gets lost in long sentences."""
        decoded = self._space.decode(concepts, LANGUAGE, DecodingOptions(max_tokens=longest))
        return sum(max(1, len(sentence.tokens)) for sentence in decoded)


class TokenSide:
    """A causal transformer of Hugging Face's, with its cache."""

    def __init__(self, spec: Spec, longest: int) -> None:
        assert spec.llama is not None  # whoever asks for this side says how large
        self._sizes = TokenSizes(**spec.llama)
        self._model = _llama(self._sizes, longest)
        self._chunk = spec.chunk
        self._cache: Any = None

    def begin(self, document: Sequence[Sentence]) -> None:
        """Prefill; only the last token's logits are computed."""
        tokens = torch.tensor([[token for sentence in document for token in sentence.tokens]])
        self._cache = None
        for part in tokens.split(self._chunk or tokens.shape[1], dim=1):
            self._step(part)

    def write(self, following: Sequence[Sentence], tokens: int) -> int:
        """Token by token."""
        own = cycle(token for sentence in following for token in sentence.tokens)
        for _ in range(tokens):
            self._step(torch.tensor([[next(own)]]))
        return tokens

    def about(self) -> dict[str, Any]:
        """Parameters, each counted once, and the sizes."""
        return {"parameters": sum(p.numel() for p in self._model.parameters()), "sizes": asdict(self._sizes)}

    def _step(self, tokens: Tensor) -> int:
        out = self._model(tokens, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._cache = out.past_key_values
        return int(out.logits[0, -1].argmax())


def _llama(sizes: TokenSizes, longest: int) -> Any:
    """Random weights; positions up to `longest`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    heads = max(1, sizes.dim // 64)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=sizes.vocab,
        hidden_size=sizes.dim,
        intermediate_size=sizes.ffn_dim,
        num_hidden_layers=sizes.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=longest,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    model: Any = LlamaForCausalLM
    return model(config).eval()


def measured(spec: Spec) -> dict[str, Any]:
    """Loads, warms up, and takes the median of a few rounds; of a long one, one."""
    bank, space = ReplyBank.load(spec.bundle), ConceptSpace.load(spec.bundle, "cpu", parts=[])
    endless = sentences(bank, space.tokenizer, spec.sentence)
    reads, writes = (spec.tokens, spec.ahead) if spec.mode == "read" else (1, spec.tokens)
    document, following = of_length(endless, reads), of_length(endless, writes)
    longest = sum(len(sentence.tokens) for sentence in (*document, *following)) + _WARM_TOKENS
    # A decoder may write less than it was given, and then goes on: twice the concepts are room enough.
    concepts = math.ceil(len(document) + 2 * len(following) + _WARM_TOKENS)
    side: Side = TokenSide(spec, longest) if spec.side == "tokens" else ConceptSide(spec, following, concepts)
    side.begin(document[: max(1, _WARM_TOKENS // spec.sentence)])
    side.write(following, min(writes, spec.sentence))
    loaded_mb = peak_rss_mb()
    rounds: list[tuple[float, float]] = []
    written = 0
    while not rounds or (len(rounds) < MOST_ROUNDS and sum(map(sum, rounds)) < ENOUGH_S):
        start = time.perf_counter()
        side.begin(document)
        read = time.perf_counter()
        written = side.write(following, writes)
        rounds.append((read - start, time.perf_counter() - read))
    read_s, write_s = sorted(rounds, key=sum)[len(rounds) // 2]
    return {
        "read_s": round(read_s, 4),
        "write_s": round(write_s, 4),
        "tokens_read": sum(len(sentence.tokens) for sentence in document),
        "tokens_written": written,
        "sentences_read": len(document),
        "rounds": len(rounds),
        "loaded_mb": loaded_mb,
        "peak_mb": peak_rss_mb(),
        **side.about(),
    }


def _parts(given: Sequence[Sentence]) -> list[Sequence[Sentence]]:
    return [given[start : start + _AT_ONCE] for start in range(0, len(given), _AT_ONCE)]


def main() -> int:
    """Measures what is asked for."""
    warnings.simplefilter("ignore")  # of other people's packages; ours have tests
    with torch.inference_mode():
        print(json.dumps(measured(Spec(**json.loads(sys.argv[1])))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
