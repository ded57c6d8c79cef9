"""Meta's side of `bench lcm`: their public code builds a model, loads our weights, predicts and trains; JSON on a pipe.

Runs in an environment of its own, never in ours: their package is called `lcm` too, so this file imports nothing of
Noema, and is started by its path. Requests come as lines of JSON on stdin, answers go out as such lines.

What brings both is `BRING` in meta_process.py, which starts this.
"""

import json
import os
import re
import struct
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch

_LAYER = (
    (".own_norm.", ".self_attn_layer_norm."),
    (".own.", ".self_attn."),
    (".cross_norm.", ".cross_attention_layer_norm."),
    (".cross.", ".cross_attention."),
    (".attention_norm.", ".self_attn_layer_norm."),
    (".attention.", ".self_attn."),
    (".ffn_norm.", ".ffn_layer_norm."),
    (".modulator.", ".modulator.fc."),
)
_NAMES = {
    "base": (
        (r"^normalizer\.centre$", "frontend.sonar_normalizer.center"),
        (r"^normalizer\.scale$", "frontend.sonar_normalizer.scale"),
        (r"^prenet\.", "frontend.pre_linear."),
        (r"^postnet\.", "postnet.fc."),
        (r"^layers\.", "lcm.layers."),
        (r"^norm\.", "lcm.layer_norm."),
    ),
    "two_tower": (
        (r"^normalizer\.centre$", "sonar_normalizer.center"),
        (r"^normalizer\.scale$", "sonar_normalizer.scale"),
        (r"^prenet\.", "encoder_frontend.pre_linear."),
        (r"^layers\.", "context_encoder.layers."),
        (r"^norm\.", "context_encoder.layer_norm."),
        (r"^denoiser\.level\.inner_proj\.", "denoiser.embed_time.fc1."),
        (r"^denoiser\.level\.output_proj\.", "denoiser.embed_time.fc2."),
        (r"^denoiser\.prenet\.", "denoiser.initial_proj.fc."),
        (r"^denoiser\.postnet\.", "denoiser.final_proj.fc."),
        (r"^denoiser\.norm\.", "denoiser.layer_norm."),
    ),
}
"""Our parameters' names as patterns, and theirs"""
CLIP = 100


class Meta:
    """One model of theirs at a time."""

    def __init__(self, folder: str) -> None:
        sys.path.insert(0, folder)
        _patch()
        self.batches = import_module("lcm.datasets.batch")
        self.kind, self.model = "", torch.nn.Module()
        self._learning: tuple[Any, Any] | None = None

    def build(self, kind: str, sizes: Mapping[str, int], weights: str | None = None) -> dict[str, Any]:
        """A model of these sizes, with our weights or (for counting) none."""
        device = torch.device("cpu" if weights else "meta")
        self._learning = None
        self.kind, self.model = kind, (_two_tower if kind == "two_tower" else _base)(sizes, device)
        if weights:
            self.model.load_state_dict({theirs(kind, n): t for n, t in read_weights(weights).items()})
            self.model.eval()
        counts: dict[str, int] = {}
        for name, parameter in self.model.named_parameters():
            part = ".".join(name.split(".")[:2])
            counts[part] = counts.get(part, 0) + parameter.numel()
        return {"parameters": sum(counts.values()), "parts": counts}

    def predict(self, given: str, taken: str, concepts: int, sampling: Mapping[str, Any]) -> dict[str, Any]:
        """Continue contexts [B, T, C] by so many concepts with their generator; writes [B, concepts, C]."""
        with np.load(given) as arrays:
            contexts, noise = (torch.from_numpy(arrays[name]) for name in ("contexts", "noise"))
        generator = self._generator(noise, sampling)
        start = time.perf_counter()
        output = generator(self.batches.EmbeddingsBatch(contexts), max_gen_len=concepts)
        seconds = time.perf_counter() - start
        predicted = torch.stack([found[0].seq[contexts.shape[1] :] for found in output.hypotheses])
        np.save(taken, predicted.float().numpy())
        return {"seconds": seconds}

    def train(self, given: str) -> dict[str, Any]:
        """One step of training on concepts [B, T, C], with their criterion and optimiser."""
        with np.load(given) as arrays:
            batch = self.batches.LCMInput(source=list(torch.from_numpy(arrays["concepts"])), target=None)
        self._learning = self._learning or (self._criterion(), self._optimizer())
        criterion, optimizer = self._learning
        self.model.train()
        start = time.perf_counter()
        loss = criterion(batch).value
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - start
        self.model.eval()
        return {"seconds": seconds, "loss": float(loss)}

    def schedule(self, steps: int) -> dict[str, Any]:
        """Which of 100 timesteps are taken, and how much signal is left at each."""
        ddim = import_module("lcm.nn.schedulers")
        scheduler = ddim.DDIMScheduler(ddim.DDIMSchedulerConfig(num_diffusion_train_steps=100))
        scheduler.set_timesteps(steps)
        return {"timesteps": scheduler.timesteps.tolist(), "alphas_cumprod": scheduler.alphas_cumprod.tolist()}

    def _generator(self, noise: torch.Tensor, sampling: Mapping[str, Any]) -> Any:
        """Their generator; for diffusion, from the given noise [B, concepts, C]."""
        if self.kind == "base":
            module = import_module("lcm.inference.lcm.generator")
            options = module.LCMGeneratorOptions(eos_threshold=None, sample_latent_variable=False)
            return module.LCMGenerator(self.model, options)
        module = import_module("lcm.inference.two_tower_diffusion_lcm")
        options = module.DiffusionLCMGeneratorOptions(
            eos_threshold=None,
            guidance_scale=sampling["guidance"],
            guidance_rescale=sampling["guidance_rescale"],
            initial_noise_scale=sampling["initial_noise"],
            epsilon_scaling=sampling["epsilon_scaling"],
            inference_timesteps=sampling["steps"],
            clip_noise=CLIP,
        )
        drawn = iter(noise.unbind(1))
        scale = sampling["initial_noise"]
        model: Any = self.model
        model.sample_initial_noise_vectors = lambda batch_size: (next(drawn)[:, None] * scale).clip(-CLIP, CLIP)
        return module.TwoTowerDiffusionLCMGenerator(model, options)

    def _criterion(self) -> Any:
        if self.kind == "base":
            module = import_module("lcm.train.mse_lcm.criterion")
            config = module.ReconstructionCriterionConfig(name="next_sentence_mse", reduction="mean")
            return module.ReconstructionCriterion(config, self.model)
        module = import_module("lcm.train.two_tower_diffusion_lcm.criterion")
        config = module.TowerDiffusionLCMCriterionConfig(
            name="two_tower_diffusion_next_sent", reduction="mean", cf_guidance_probability=0.15
        )
        return module.TwoTowerDiffusionCriterion(config, self.model)

    def _optimizer(self) -> Any:
        adamw = import_module("fairseq2.optim").AdamW
        return adamw(self.model.parameters(), lr=1e-4, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.1, use_fp32=True)


def theirs(kind: str, name: str) -> str:
    """Their name of a parameter of ours."""
    if ".layers." in f".{name}":
        for ours, other in _LAYER:
            if ours in name:
                name = name.replace(ours, other)
                break
    for pattern, other in _NAMES[kind]:
        name = re.sub(pattern, other, name)
    return name


def read_weights(path: str) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, all float32; the package itself is not among what Meta's code asks for."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    data = np.memmap(path, np.uint8, "c", 8 + size)
    return {
        name: torch.from_numpy(data[slice(*entry["data_offsets"])].view(np.float32).reshape(entry["shape"]))
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _patch() -> None:
    """What their code takes for granted and fairseq2 0.3.0, the oldest that can be had, lacks; and the normaliser.

    Its layers no longer take a factor for the residual, which no published model uses; the normaliser's weights were
    never published, so it is built as their own default has it.
    """
    layer = import_module("fairseq2.nn.transformer").StandardTransformerDecoderLayer
    made = layer.__init__

    def init(self: Any, *args: Any, scale_residual: bool = False, **options: Any) -> None:
        assert not scale_residual  # else the measured model would be another
        made(self, *args, **options)
        self.residual_scale = None

    layer.__init__ = init
    normalizer = import_module("lcm.models.sonar_normalizer.builder")

    def normalizer_of(builder: Any) -> Any:
        config = normalizer.SonarNormalizerConfig(dim=builder.config.sonar_embed_dim)
        return normalizer.create_sonar_normalizer(config, device=builder.device, dtype=builder.dtype)

    import_module("lcm.models.abstract_lcm.builder").AbstractLCModelBuilder.build_sonar_normalizer = normalizer_of


def _layers(module: Any, sizes: Mapping[str, int], layers: int, positions: str, **more: Any) -> Any:
    """As their published sizes have it: the inner width of the feed-forward, rounding, biases, norms, dropout."""
    return module(
        num_layers=layers,
        ffn_inner_dim=4 * sizes["dim"],
        num_attn_heads=sizes["heads"],
        final_dropout_p=0.0,
        attention_dropout_p=0.0,
        dropout_p=0.1,
        mha_output_proj_bias=True,
        use_swiglu=True,
        layer_normalization_style="rms",
        pos_embedding_style=positions,
        **more,
    )


def _base(sizes: Mapping[str, int], device: torch.device) -> torch.nn.Module:
    builder = import_module("lcm.models.base_lcm.builder")
    config = builder.BaseLCModelConfig(
        max_seq_len=4096,
        model_dim=sizes["dim"],
        sonar_embed_dim=sizes["concept_dim"],
        sonar_normalizer_name="handed over",
        lcm=_layers(builder.TransformerConfig, sizes, sizes["layers"], "rope"),
    )
    model: torch.nn.Module = builder.create_base_lcm_model(config, device=device, dtype=torch.float32)
    return model


def _two_tower(sizes: Mapping[str, int], device: torch.device) -> torch.nn.Module:
    builder = import_module("lcm.models.two_tower_diffusion_lcm.builder")
    denoiser = _layers(builder.DenoiserConfig, sizes, sizes["denoiser_layers"], "none", timestep_embed_dim=sizes["dim"])
    config = builder.TwoTowerDiffusionLCModelConfig(
        max_seq_len=4096,
        model_dim=sizes["dim"],
        sonar_embed_dim=sizes["concept_dim"],
        sonar_normalizer_name="handed over",
        context_encoder=_layers(builder.TransformerConfig, sizes, sizes["layers"], "rope"),
        denoiser=denoiser,
        trained_with_cf_guidance=True,
        noise_scheduler=builder.DDIMSchedulerConfig(num_diffusion_train_steps=100),
    )
    model: torch.nn.Module = builder.create_two_tower_diffusion_lcm_model(config, device=device, dtype=torch.float32)
    return model


def main() -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever their code prints is no answer
    meta = Meta(sys.argv[1])
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        answer = getattr(meta, asked.pop("do"))(**asked)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
