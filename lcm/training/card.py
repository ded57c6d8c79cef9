"""Model card: a bundle's measured figures in, Markdown tables out; and sentences as they fall, good and bad.

Knows nothing of how anything was measured. The card holds two generated sections between `<!-- figures -->` and
`<!-- examples -->` marks; everything else in it is written by hand.
"""

import itertools
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lcm.space import ConceptSpace
from lcm.space.sentences import split_sentences
from lcm.training.evaluate_text import SHORT_WORDS, chrf
from lcm.training.text_batches import held_out_pairs

NAMES = {"eng": "English", "fra": "French", "spa": "Spanish", "deu": "German"}
SENTENCES, SHOWN = 200, 20


def with_section(card: str, name: str, content: str) -> str:
    """The card with one generated section replaced."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    assert pattern.search(card), f"the card has no section {name!r}"
    return pattern.sub(lambda match: f"{match[1]}\n{content.strip()}\n\n{match[2]}", card)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def rendered_figures(figures: dict[str, Any]) -> str:
    """Every figure of `scripts.evaluate`, per cent unless said otherwise."""
    parts = []
    baselines = figures.get("baselines", {})
    if text := figures.get("text"):
        parts += ["### Text", _text_tables(text, baselines.get("text", {}))]
    if speech := figures.get("speech"):
        parts += ["### Speech", _speech_table(speech, baselines.get("speech", {}))]
    if lcm := figures.get("lcm"):
        parts += ["### Thinking", _lcm_table(lcm, baselines.get("lcm", {}))]
    return "\n\n".join(parts)


def _text_tables(text: dict[str, Any], baselines: dict[str, Any]) -> str:
    trigrams, chance = baselines.get("character_trigrams_xsim_error", {}), baselines.get("chance_xsim_error", "–")
    retrieval = table(
        ["English ↔", "xsim error", "without near-duplicates", "character trigrams", "chance"],
        [
            [NAMES[x], error, text["xsim_error_no_near_duplicates"][x], trigrams.get(x, "–"), chance]
            for x, error in text["xsim_error"].items()
        ],
    )
    languages = list(text["autoencode"])
    cells = text["translate"] | {f"{x}-{x}": scores for x, scores in text["autoencode"].items()}
    directions = table(
        ["chrF from ↓ to →", *(NAMES[x] for x in languages)],
        [
            [
                NAMES[x],
                *(f"**{cells[f'{x}-{x}']['chrf']}**" if x == y else cells[f"{x}-{y}"]["chrf"] for y in languages),
            ]
            for x in languages
        ],
    )
    counts = [scores["n"] for scores in cells.values()]
    exact = ", ".join(f"{NAMES[x]} {scores['exact']}" for x, scores in text["autoencode"].items())
    copies = ", ".join(f"{pair} {score}" for pair, score in baselines.get("copy_source_chrf", {}).items())
    return "\n\n".join(
        [
            "Retrieval among 1,000 held-out sentences, both directions:",
            retrieval,
            f"Decoded again, sentences of at most {SHORT_WORDS} words, {min(counts)} to {max(counts)} of them in each "
            "cell (the diagonal is autoencoding):",
            directions,
            f"Word for word the same after autoencoding: {exact}. Copying the source instead of translating: {copies}.",
            f"chrF lost when every concept moves by 0.2 σ: {text['noise']['0.2']}. Effective rank {text['rank']}, "
            f"mean cosine {text['mean_cosine']}.",
        ]
    )


def _speech_table(speech: dict[str, Any], baselines: dict[str, Any]) -> str:
    rows = []
    for kind in ("synthetic", "unseen_engine", "real", "real_segmented"):
        for name, scores in speech.get(kind, {}).items():
            cascade = baselines.get(f"{kind}/{name}", {}).get("pocketsphinx", {})
            rows.append(
                [
                    f"{kind.replace('_', ' ')}: {name}",
                    f"{scores['n']} / {scores['speakers']}",
                    f"{scores['retrieval_error']} [{scores['ci'][0]}, {scores['ci'][1]}]",
                    scores["sound_to_text_error"],
                    scores["chrf"],
                    scores.get("wer", "–"),
                    cascade.get("retrieval_error", "–"),
                ]
            )
    return table(
        [
            "heard",
            "clips / voices",
            "retrieval error [95 %]",
            "sound → text alone",
            "chrF",
            "WER",
            "pocketsphinx → text encoder",
        ],
        rows,
    )


def _lcm_table(lcm: dict[str, Any], baselines: dict[str, Any]) -> str:
    rows = []
    for name, scores in (lcm | baselines).items():
        hits = scores.get("hits_at_1_of_20", {})
        rows.append(
            [
                f"**{name}**" if name in lcm else name.replace("_", " "),
                *(scores.get(k, "–") for k in ("l2", "l2_r", "ca", "par")),
                *(hits.get(k, "–") for k in ("dialogue", "sgd", "story")),
            ]
        )
    return table(["", "ℓ2", "ℓ2-r", "CA", "PAR", "hits@1 of 20: dialogue", "SGD", "story"], rows)


def translated(space: ConceptSpace, texts: Sequence[str], source: str, target: str) -> list[str]:
    """As `noema translate` does it: sentence by sentence, for a concept holds one."""
    parts = [split_sentences(text, source) for text in texts]
    flat = [sentence for sentences in parts for sentence in sentences]
    written = iter(space.decode_text(space.encode_text(flat, source), target))
    return [" ".join(itertools.islice(written, len(sentences))) for sentences in parts]


def rendered_examples(space: ConceptSpace, prepared: Path) -> str:
    """200 held-out short sentences a direction through the space: chrF of each, 20 drawn by lot."""
    scores, drawn = [], []
    for source in space.languages["text"]:
        for target in space.languages["text"]:
            if source == target:
                continue
            pairs = [
                p for p in held_out_pairs(prepared, (source, target), 1_000, "test") if len(p[0].split()) <= SHORT_WORDS
            ]
            texts, references = zip(*pairs[:SENTENCES], strict=True)
            written = translated(space, texts, source, target)
            scores.append([f"{source} → {target}", len(texts), round(chrf(written, references), 1)])
            drawn += [(f"{source} → {target}", *row) for row in zip(texts, written, references, strict=True)]
    examples = random.Random(0).sample(drawn, SHOWN)
    return "\n\n".join(
        [
            table(["direction", "sentences", "chrF"], scores),
            "Drawn by lot:",
            table(["", "source", "Noema", "reference"], examples),
        ]
    )
