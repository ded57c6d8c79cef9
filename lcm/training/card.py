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

from lcm.errors import LcmError
from lcm.space import ConceptSpace
from lcm.space.sentences import split_sentences
from lcm.training.evaluate_text import SHORT_WORDS, chrf
from lcm.training.lcm_table import lcm_tables
from lcm.training.markdown import interval, table
from lcm.training.text_batches import held_out_pairs

NAMES = {"eng": "English", "fra": "French", "spa": "Spanish", "deu": "German"}
SENTENCES, SHOWN = 200, 20


def with_section(card: str, name: str, content: str) -> str:
    """The card with one generated section replaced.

    Raises:
        LcmError: it has no such section.
    """
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(card):
        raise LcmError(
            f"the card has no section {name!r}; put <!-- {name} --> and <!-- /{name} --> on lines of their own"
        )
    return pattern.sub(lambda match: f"{match[1]}\n{content.strip()}\n\n{match[2]}", card)


def rendered_figures(figures: dict[str, Any]) -> str:
    """Every figure of `scripts.evaluate`, per cent unless said otherwise."""
    parts = []
    baselines = figures.get("baselines", {})
    if text := figures.get("text"):
        parts += ["### Text", _text_tables(text, baselines.get("text", {}))]
    if speech := figures.get("speech"):
        parts += ["### Speech", _speech_table(speech, baselines.get("speech", {}))]
        if told := speech.get("spoken_language"):
            parts += ["### Which language is spoken", _spoken_language_table(told)]
    if lcm := figures.get("lcm"):
        references = figures.get("references", {}).get("lcm", {})
        parts += ["### Thinking", lcm_tables(lcm, baselines.get("lcm", {}), references)]
    return "\n\n".join(parts)


def _text_tables(text: dict[str, Any], baselines: dict[str, Any]) -> str:
    trigrams, chance = baselines.get("character_trigrams_xsim_error", {}), baselines.get("chance_xsim_error", "–")
    retrieval = table(
        ["English ↔", "xsim error", "asked without near-duplicates", "character trigrams", "chance"],
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
    bleu = ", ".join(f"{pair} {scores['bleu']}" for pair, scores in text["translate"].items())
    return "\n\n".join(
        [
            f"Retrieval among 1,000 held-out sentences, both directions. {text['near_duplicates']} % of the English "
            "ones are a training sentence but for one word («Tom» for «Mary»); the second column asks for the others "
            "only, among all:",
            retrieval,
            f"Decoded again, sentences of at most {SHORT_WORDS} words, {min(counts)} to {max(counts)} of them in each "
            "cell (the diagonal is autoencoding):",
            directions,
            f"Word for word the same after autoencoding: {exact}. Copying the source instead of translating: {copies}.",
            f"BLEU of the same sentences: {bleu}.",
            f"chrF lost when every concept moves by 0.2 σ: {text['noise']['0.2']}. Effective rank {text['rank']}, "
            f"mean cosine {text['mean_cosine']}.",
        ]
    )


def _speech_table(speech: dict[str, Any], baselines: dict[str, Any]) -> str:
    rows = []
    for kind in ("synthetic", "unseen_engine", "real", "real_segmented"):
        for name, scores in speech.get(kind, {}).items():
            beside = baselines.get(f"{kind}/{name}") or baselines.get(f"real/{name}", {})
            always = beside.get("mean_concept", {})
            rows.append(
                [
                    f"{kind.replace('_', ' ')}: {name}",
                    f"{scores['n']} / {scores['speakers']}",
                    f"{scores['retrieval_error']} {interval(scores['ci'])}",
                    scores["sound_to_text_error"],
                    f"{scores['chrf']} / {scores.get('wer', '–')}",
                    f"{always.get('chrf', '–')} / {always.get('wer', '–')}",
                    _cascade(beside.get("pocketsphinx") if kind != "real_segmented" else None),
                ]
            )
    head = ["heard", "clips / voices", "retrieval error [95 %]", "sound → text alone", "chrF / WER"]
    return table([*head, "one sentence for all: chrF / WER", "pocketsphinx: error (ours), clips"], rows)


def _spoken_language_table(told: dict[str, Any]) -> str:
    rows = []
    for kind in ("synthetic", "unseen_engine", "real", "real_segmented"):
        for name, scores in told.get(kind, {}).items():
            by_length = [scores.get(length) for length in ("under_2_s", "2_to_4_s", "over_4_s")]
            rows.append(
                [
                    f"{kind.replace('_', ' ')}: {name}",
                    f"{scores['n']} / {scores['speakers']}",
                    f"{scores['accuracy']} {interval(scores['ci'])}",
                    *(f"{of['accuracy']} ({of['n']})" if of else "–" for of in by_length),
                    scores["mean_probability"],
                    ", ".join(f"{count} {language}" for language, count in scores["taken_for"].items()),
                ]
            )
    head = [
        "heard",
        "clips / voices",
        "right [95 %]",
        "under 2 s (clips)",
        "2 to 4 s",
        "over 4 s",
        "how sure",
        "taken for",
    ]
    chance = f"Right of the {round(100 / told['chance'])} languages, per cent; guessing gives {told['chance']}:"
    return f"{chance}\n\n{table(head, rows)}"


def _cascade(scores: dict[str, Any] | None) -> str:
    """The recogniser's retrieval error, ours on the same clips, and how many they are."""
    return f"{scores['retrieval_error']} ({scores['ours']['retrieval_error']}), {scores['n']}" if scores else "–"


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
