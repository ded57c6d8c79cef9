"""Make the golden files of tests/golden/sonar: small random models of every kind that Meta's own package runs.

    python3 -m venv ~/sonar
    ~/sonar/bin/pip install sonar-space==0.5.0 fairseq2==0.5.2 torchaudio==2.8.0 sentencepiece
    ~/sonar/bin/python scripts/make_golden.py

Runs in that environment only, and imports nothing of Noema: what it writes is what sonar-space says.
"""

import argparse
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from fairseq2.data.audio import WaveformToFbankConverter
from fairseq2.generation.beam_search.generator import BeamSearchSeq2SeqGenerator
from fairseq2.models.nllb.tokenizer import NllbTokenizerConfig, load_nllb_tokenizer
from fairseq2.models.w2vbert import W2VBertConfig
from fairseq2.nn import BatchLayout
from sonar.inference_pipelines.speech import SpeechToEmbeddingModelPipeline
from sonar.inference_pipelines.text import EmbeddingToTextModelPipeline, TextToEmbeddingModelPipeline
from sonar.models.sonar_speech import SonarSpeechEncoderConfig, SonarSpeechEncoderFactory
from sonar.models.sonar_text.config import SonarTextDecoderConfig, SonarTextEncoderConfig
from sonar.models.sonar_text.factory import SonarTextDecoderFactory, SonarTextEncoderFactory
from sonar.models.sonar_translation.model import DummyEncoderModel, SonarEncoderDecoderModel

OUT = Path(__file__).parent.parent / "tests" / "golden" / "sonar"
LANGUAGES = [
    row.split("\t")[0]
    for row in (Path(__file__).parent.parent / "lcm" / "space" / "sonar_languages.tsv")
    .read_text(encoding="utf-8")
    .splitlines()[1:]
]
SENTENCES = [
    ("eng_Latn", "The cat is hungry."),
    ("fra_Latn", "Où est la gare, s'il vous plaît ?"),
    ("deu_Latn", "Zwölf Boxkämpfer jagten Viktor quer über den großen Sylter Deich."),
    ("spa_Latn", "¿Qué hora es?"),
    ("swh_Latn", "Habari ya asubuhi"),
    ("zho_Hans", "你好，世界"),
    ("eng_Latn", "A"),
]
SECONDS = (0.5, 1.0, 1.47, 2.011, 3.7)
DIM, HEADS, FFN = 32, 4, 48


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    tokenizer = make_tokenizer(out)
    vocabulary = tokenizer.vocab_info.size
    encoder_config, decoder_config = text_configs(vocabulary)
    encoder = randomised(SonarTextEncoderFactory(encoder_config).create_model())
    decoder = randomised(SonarTextDecoderFactory(decoder_config).create_model(), embed=1.0)
    with torch.no_grad():
        decoder.decoder_frontend.embed.weight[decoder_config.vocab_info.eos_idx] *= 2.0  # some sentences end
    torch.save({"model": encoder.state_dict()}, out / "sonar_text_encoder.pt")
    torch.save({"model": decoder.state_dict()}, out / "sonar_text_decoder.pt")
    torch.save(older_text_encoder(encoder), out / "older_text_encoder.pt")
    torch.save(older_text_decoder(decoder), out / "older_text_decoder.pt")
    arrays, told = text_outputs(encoder, decoder, tokenizer)
    for name, layers in (("eng", 3), ("fra", 6)):
        speech = randomised(SonarSpeechEncoderFactory(speech_config(layers)).create_model())
        torch.save({"model": speech.state_dict()}, out / f"speech_{name}.pt")
        if name == "eng":
            torch.save(older_speech_encoder(speech), out / "older_speech_eng.pt")
        arrays |= {f"speech_{name}_{key}": value for key, value in speech_outputs(speech).items()}
    arrays |= features()
    np.savez_compressed(out / "outputs.npz", **arrays)
    sizes = {"vocab_size": vocabulary, "dim": DIM, "heads": HEADS, "ffn_dim": FFN, "layers": 2, "concept_dim": DIM}
    told |= {"sizes": sizes, "seconds": SECONDS, "made_with": {"sonar-space": "0.5.0", "fairseq2": "0.5.2"}}
    (out / "outputs.json").write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    total = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {len(list(out.iterdir()))} files, {total / 1e6:.1f} MB")


def make_tokenizer(out: Path) -> Any:
    """A SentencePiece model as NLLB's is: no symbols for languages, normalised by NFKC."""
    text = out / "text.txt"
    text.write_text("\n".join(sentence for _, sentence in SENTENCES * 20), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.Train(
        input=str(text),
        model_prefix=str(out / "tokenizer"),
        vocab_size=110,
        character_coverage=1.0,
        model_type="bpe",
        minloglevel=2,
    )
    text.unlink()
    (out / "tokenizer.vocab").unlink()
    return load_nllb_tokenizer(out / "tokenizer.model", NllbTokenizerConfig(langs=LANGUAGES, default_lang="eng_Latn"))


def text_configs(vocabulary: int) -> tuple[SonarTextEncoderConfig, SonarTextDecoderConfig]:
    """Sizes of the text models."""
    from fairseq2.data.tokenizers import VocabularyInfo

    info = VocabularyInfo(size=vocabulary, unk_idx=1, bos_idx=2, eos_idx=3, pad_idx=1)
    sizes: dict[str, Any] = {
        "model_dim": DIM,
        "vocab_info": info,
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "num_encoder_attn_heads": HEADS,
        "num_decoder_attn_heads": HEADS,
        "ffn_inner_dim": FFN,
        "max_seq_len": 512,
    }
    encoder = SonarTextEncoderConfig(pooling="mean", _from_fairseq=True, **sizes)
    decoder = SonarTextDecoderConfig(
        activation_fn="ReLU",
        no_scale_embedding=False,
        no_token_positional_embeddings=False,
        learned_pos=False,
        emb_dropout_p=0.1,
        attention_dropout_p=0.1,
        activation_dropout_p=0.1,
        normalize_before=True,
        **sizes,
    )
    return encoder, decoder


def speech_config(pooling_layers: int) -> SonarSpeechEncoderConfig:
    """Sizes of a speech encoder."""
    from fairseq2.models.transformer import TransformerNormOrder

    conformers = W2VBertConfig().w2v2_config.encoder_config
    conformers.model_dim, conformers.num_encoder_layers, conformers.num_encoder_attn_heads = DIM, 2, HEADS
    conformers.ffn_inner_dim = FFN
    return SonarSpeechEncoderConfig(
        w2v2_encoder_config=conformers,
        final_dropout_p=0.1,
        model_dim=DIM,
        max_seq_len=1024,
        pad_idx=1,
        bos_idx=2,
        num_decoder_layers=pooling_layers,
        num_decoder_attn_heads=HEADS,
        decoder_norm_order=TransformerNormOrder.POST,
        ffn_inner_dim=FFN,
        dropout_p=0.1,
    )


def randomised(model: Any, embed: float = 0.5) -> Any:
    """Every weight at random, norms and their statistics too: so that each one's place shows in the output."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif not tensor.is_floating_point():
                continue
            elif "layer_norm.weight" in name or "batch_norm.weight" in name:
                tensor.normal_(1.0, 0.2)
            else:
                tensor.normal_(0.0, embed if "embed" in name else 0.25)
    return model.eval()


def text_outputs(encoder: Any, decoder: Any, tokenizer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Token ids, concepts alone and in a batch, decoded sentences and their scores."""
    encode = TextToEmbeddingModelPipeline(encoder, tokenizer)
    alone = [encode.predict([text], source_lang=language) for language, text in SENTENCES]
    ids = [tokenizer.create_encoder(lang=language, mode="source")(text).tolist() for language, text in SENTENCES]
    batch = encode.predict([text for _, text in SENTENCES], source_lang="eng_Latn", batch_size=len(SENTENCES))
    concepts = 2.0 * torch.randn(12, DIM)
    decode = EmbeddingToTextModelPipeline(decoder, tokenizer)
    arrays = {"text_concepts": torch.cat(alone).numpy(), "text_batch": batch.numpy(), "concepts": concepts.numpy()}
    searches = []
    for beam, most, language in ((1, 24, "eng_Latn"), (5, 24, "eng_Latn"), (5, 24, "fra_Latn"), (4, 60, "swh_Latn")):
        texts = decode.predict(concepts, target_lang=language, beam_size=beam, max_seq_len=most)
        found = [
            {"ids": best.seq.tolist(), "score": float(best.score)}
            for best in (searched(decoder, tokenizer, concept, language, beam, most) for concept in concepts)
        ]
        searches.append({"beam": beam, "max_seq_len": most, "language": language, "texts": texts, "best": found})
    with torch.inference_mode():
        prompt = tokenizer.create_encoder(lang="fra_Latn", mode="target")(SENTENCES[1][1])[:-1][None]
        hidden = decoder.decode(prompt, BatchLayout.of(prompt), concepts[:1, None], BatchLayout.of(concepts[:1, None]))
        arrays["logits"] = decoder.project(hidden)[0].numpy()
    told = {
        "sentences": [
            {"language": tag, "text": text, "ids": of} for (tag, text), of in zip(SENTENCES, ids, strict=True)
        ]
    }
    return arrays, told | {"searches": searches}


@torch.inference_mode()
def searched(decoder: Any, tokenizer: Any, concept: torch.Tensor, language: str, beam: int, most: int) -> Any:
    """fairseq2's best hypothesis."""
    model = SonarEncoderDecoderModel(DummyEncoderModel(), decoder).eval()
    generator = BeamSearchSeq2SeqGenerator(model, tokenizer.vocab_info, beam_size=beam, max_seq_len=most)
    prefix = tokenizer.create_encoder(lang=language, mode="target").prefix_indices[None]
    source = concept[None]
    output = generator(source, BatchLayout.of(source), prefix, BatchLayout.of(prefix))
    return output.hypotheses[0][0]


def waveform(seconds: float, number: int) -> torch.Tensor:
    """Something like a voice: a buzz that comes and goes, in noise."""
    rng = np.random.default_rng(number)
    time = np.arange(int(seconds * 16_000)) / 16_000
    pitch = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 0.7 * time)) / 16_000
    buzz = sum(np.sin(k * pitch) / k for k in range(1, 20)) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * time))
    return torch.from_numpy((0.1 * buzz + 0.01 * rng.standard_normal(len(time))).astype(np.float32))


def speech_outputs(model: Any) -> dict[str, Any]:
    """Concepts of waveforms of several lengths, alone and in a padded batch."""
    encode = SpeechToEmbeddingModelPipeline(model)
    waveforms = [waveform(seconds, number)[None] for number, seconds in enumerate(SECONDS)]
    alone = torch.cat([encode.predict([one], batch_size=1) for one in waveforms])
    return {"alone": alone.numpy(), "batch": encode.predict(waveforms, batch_size=len(waveforms)).numpy()}


def features() -> dict[str, Any]:
    """The waveforms and their features."""
    convert = WaveformToFbankConverter(num_mel_bins=80, waveform_scale=2**15, channel_last=True, standardize=True)
    arrays: dict[str, Any] = {}
    for number, seconds in enumerate(SECONDS):
        one = waveform(seconds, number)
        arrays[f"waveform_{number}"] = one.numpy()
        arrays[f"fbank_{number}"] = convert({"waveform": one[:, None], "sample_rate": 16_000.0, "format": -1})[
            "fbank"
        ].numpy()
    return arrays


def older_embedding(weight: torch.Tensor) -> torch.nn.Embedding:
    """fairseq's order of the first rows: `<s>`, `<pad>`, `</s>`, `<unk>`; pickled as a module."""
    embedding = torch.nn.Embedding(weight.shape[0], weight.shape[1], padding_idx=1)
    rows = weight.detach().clone()
    rows[[1, 3, 0, 2]] = weight.detach()[[0, 1, 2, 3]]
    embedding.weight = torch.nn.Parameter(rows)
    return embedding


def older_text_encoder(model: Any) -> dict[str, Any]:
    """The same text encoder in fairseq's layout."""
    state = model.state_dict()
    older: dict[str, Any] = OrderedDict(version=torch.tensor([3.0]))
    older["embed_positions._float_tensor"] = torch.zeros(1)
    older["embed_tokens"] = older_embedding(state.pop("encoder_frontend.embed.weight"))
    for key, tensor in state.items():
        older[_older_text(key.removeprefix("encoder."))] = tensor
    return {"model": {"state_dict": older}}


def older_text_decoder(model: Any) -> dict[str, Any]:
    """The same text decoder in fairseq's layout."""
    state = model.state_dict()
    older: dict[str, Any] = OrderedDict(version=torch.tensor([3.0]))
    older["embed_positions._float_tensor"] = torch.zeros(1)
    embedding = older_embedding(state.pop("decoder_frontend.embed.weight")).weight.detach()
    older["embed_tokens.weight"] = older["output_projection.weight"] = embedding
    for key, tensor in state.items():
        if not key.startswith("final_proj"):
            older[_older_text(key.removeprefix("decoder.")).replace("encoder_decoder_attn", "encoder_attn")] = tensor
    return {"state_dict": older}


def _older_text(key: str) -> str:
    for ours, theirs in (
        (".output_proj.", ".out_proj."),
        (".ffn.inner_proj.", ".fc1."),
        (".ffn_layer_norm.", ".final_layer_norm."),
    ):
        key = key.replace(ours, theirs)
    return key.replace(".ffn.out_proj.", ".fc2.")


def older_speech_encoder(model: Any) -> dict[str, Any]:
    """The same speech encoder in fairseq's layout."""
    older: dict[str, Any] = OrderedDict({"encoder.w2v_model.mask_emb": torch.zeros(DIM)})
    for key, tensor in model.state_dict().items():
        older[_older_speech(key)] = tensor
    return {"model": older}


def _older_speech(key: str) -> str:
    if key.startswith("encoder_pooler."):
        key = key.removeprefix("encoder_pooler.")
        for ours, theirs in (
            ("decoder_frontend.embed.weight", "decoder.embed_tokens.weight"),
            ("projection_out.weight", "decoder.embed_out"),
            ("encoder_decoder_attn", "encoder_attn"),
        ):
            key = key.replace(ours, theirs)
        return _older_text(key)
    renamed = {
        "encoder_frontend.post_extract_layer_norm.": "encoder.w2v_model.layer_norm.",
        "encoder_frontend.model_dim_proj.": "encoder.w2v_model.post_extract_proj.",
        "layer_norm.": "encoder.w2v_model.encoder.layer_norm.",
        "encoder.layers.": "encoder.w2v_model.encoder.layers.",
    }
    for ours, theirs in renamed.items():
        if key.startswith(ours):
            key = theirs + key.removeprefix(ours)
            break
    for ours, theirs in (
        (".conv.", ".conv_module."),
        (".conv_layer_norm.", ".conv_module.layer_norm."),
        (".ffn1_layer_norm.", ".ffn1.layer_norm."),
        (".ffn2_layer_norm.", ".ffn2.layer_norm."),
        (".inner_proj.", ".w_1."),
        ("ffn1.output_proj.", "ffn1.w_2."),
        ("ffn2.output_proj.", "ffn2.w_2."),
        (".q_proj.", ".linear_q."),
        (".k_proj.", ".linear_k."),
        (".v_proj.", ".linear_v."),
        (".output_proj.", ".linear_out."),
        (".sdpa.r_proj.", ".linear_pos."),
        (".sdpa.u_bias", ".pos_bias_u"),
        (".sdpa.v_bias", ".pos_bias_v"),
    ):
        key = key.replace(ours, theirs)
    head, _, tail = key.partition("layers.")
    number, dot, rest = tail.partition(".")
    return (
        f"{head}layers.{number}.final_{rest}"
        if rest.startswith("layer_norm.")
        else f"{head}layers.{number}{dot}{rest}"
        if tail
        else key
    )


if __name__ == "__main__":
    main()
