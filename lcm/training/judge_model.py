"""Judge: a small causal language model over the space's own pieces; sentences in, what each piece costs out.

It says whether a sentence follows from what came before [LCM §3.1, mutual information], and is no part of any bundle:
its weights stay in the run folder. Before every sentence stands the symbol of its language, so that both the lone
sentence and the one in context begin with something known, and which language it is earns nothing. Knows nothing of
concepts.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lcm.errors import TrainingDataError
from lcm.models.transformer import Block, rotations
from lcm.space.tokenizer import Tokenizer
from lcm.training.text import tokenizer_id
from lcm.training.weights import read_checkpoint

TRAINS_IT = "python -m scripts.train configs/training/judge_mini.yaml --bundle mini"


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """Sizes."""

    vocab_size: int
    dim: int = 256
    layers: int = 4
    heads: int = 4
    ffn_dim: int = 512
    dropout: float = 0.0
    context: int = 192
    """tokens"""


class JudgeModel(nn.Module):
    """Decoder-only transformer with tied embeddings. Shapes: B rows, T tokens, D width, M wanted tokens."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.dim)
        nn.init.normal_(self.embedding.weight, std=config.dim**-0.5)
        self.layers = nn.ModuleList(
            Block(config.dim, config.heads, config.ffn_dim, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.RMSNorm(config.dim, eps=1e-5)

    def hidden(self, tokens: Tensor) -> Tensor:
        """[B, T] → [B, T, D]; padding stands on the right, where nothing real looks."""
        rotation = rotations(torch.arange(tokens.shape[1], device=tokens.device), self.config.dim // self.config.heads)
        x = self.embedding(tokens) * self.config.dim**0.5
        for layer in self.layers:
            x = layer(x, rotation)
        return self.norm(x)


class SmallJudge:
    """A trained `JudgeModel` with its tokenizer: a `TokenModel`."""

    def __init__(self, model: JudgeModel, tokenizer: Tokenizer, name: str = "judge_mini") -> None:
        self.name, self.longest = name, model.config.context
        self._model, self._tokenizer = model.eval(), tokenizer

    @classmethod
    def open(cls, run: Path, tokenizer: Tokenizer) -> "SmallJudge":
        """The averaged weights that a run has reached.

        Raises:
            TrainingDataError: no run there, or one that learnt other pieces.
        """
        state = read_checkpoint(run, "cpu")
        if state is None:
            raise TrainingDataError(f"no judge at {run}; {TRAINS_IT} makes one")
        if state["tokenizer"] != tokenizer_id(tokenizer.model):
            raise TrainingDataError(f"the judge at {run} learnt other pieces than this bundle has; {TRAINS_IT}")
        model = JudgeModel(JudgeConfig(**state["model_config"]))
        model.load_state_dict(state["average"])
        return cls(model, tokenizer, run.name)

    def opening(self, language: str) -> list[int]:
        """The symbol of the language."""
        return [self._tokenizer.language_id(language)]

    def sentence(self, text: str) -> list[int]:
        """Pieces."""
        return self._tokenizer.encode(text)

    @torch.inference_mode()
    def log_probabilities(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        """Log-probability of each token `wanted` [B, T] given those before it: [M], row by row; never the first."""
        hidden = self._model.hidden(tokens[:, :-1])[wanted[:, 1:]]
        gold = tokens[:, 1:][wanted[:, 1:]]
        parts = [
            (rows @ self._model.embedding.weight.T).log_softmax(dim=1).gather(1, answers[:, None])[:, 0]
            for rows, answers in zip(hidden.split(1024), gold.split(1024), strict=True)
        ]
        return torch.cat(parts)
