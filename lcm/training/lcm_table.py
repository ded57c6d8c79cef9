"""Tables of the concept models for the model card, like the paper's Table 3: figures in, Markdown out.

One table a group of held-out documents, then hits@1 of 20, then replies to the fixed prompts. Knows nothing of how
anything was measured.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lcm.training.markdown import interval, table

Figures = Mapping[str, Any]

_GROUPS = {"dialogue": "Dialogues", "sgd": "SGD, templated", "story": "Stories"}
_MEASURES = (
    ("l2", "ℓ2 ↓", 2),
    ("l2_r", "ℓ2-r ↓", 2),
    ("par", "PAR", 2),
    ("ca", "CA % ↑", 1),
    ("mi", "MI ↑", 3),
    ("rouge_l", "ROUGE-L ↑", 1),
    ("norm", "norm", 1),
    ("variance_share", "variance", 2),
)
_WITH_INTERVAL = frozenset({"ca", "mi", "rouge_l"})


def lcm_tables(lcm: Figures, baselines: Figures, references: Figures) -> str:
    """Everything that `scripts.evaluate` measured of the concept models."""
    parts, everything = [], {**lcm, **baselines}
    for group, title in _GROUPS.items():
        rows = [[_name(name, lcm), *_measures(_of(scores, group))] for name, scores in everything.items()]
        if measured := [row for row in rows if set(row[1:]) != {"–"}]:
            head = ["", *(head for _, head, _ in _MEASURES)]
            parts += [f"**{title}**", table(head, measured + _people(references, group))]
    if judge := _judged(references):
        parts.append(judge)
    hits = []
    for name, scores in everything.items():
        if by_keys := scores.get("hits_by_keys"):
            hits.append([f"{_name(name, lcm)}, by keys", *_hits(by_keys)])
        hits.append([_name(name, lcm), *_hits(scores.get("hits_at_1_of_20", {}))])
    parts += ["**Hits@1 of 20, %**", table(["", "dialogue [95 %]", "SGD", "story"], hits)]
    if replies := _replies(lcm, references):
        parts += ["**Replies to 50 fixed prompts**", replies]
    return "\n\n".join(parts)


def _name(name: str, lcm: Figures) -> str:
    return f"**{name}**" if name in lcm else name.replace("_", " ")


def _of(scores: Figures, group: str) -> Figures:
    """The dialogues' figures stand at the top, the others' under their names."""
    found: Figures = scores if group == "dialogue" else scores.get(group, {})
    return found


def _measures(scores: Figures) -> list[str]:
    cells = []
    for name, _, digits in _MEASURES:
        cell = f"{scores[name]:.{digits}f}" if name in scores else "–"
        bounds = scores.get("ci", {}).get(name)
        cells.append(f"{cell} {interval(bounds, digits)}" if bounds and name in _WITH_INTERVAL else cell)
    return cells


def _people(references: Figures, group: str) -> list[list[str]]:
    """What people said: decoded from its own concept; its mutual information beside a random sentence's."""
    rows = []
    mi = references.get("mi") or {}
    for label, own, judged in (("the truth", "truth_decoded", "truth"), ("a random sentence", "", "random")):
        scores: dict[str, Any] = dict(references.get(own, {}).get(group, {}))
        if found := mi.get(judged, {}).get(group):
            scores |= {"mi": found["mi"], "ci": {"mi": found["ci"]}}
        if scores:
            rows.append([label, *_measures(scores)])
    return rows


def _judged(references: Figures) -> str:
    if judge := references.get("judge"):
        return f"MI by {judge['name']}, whose perplexity on the same true sentences is {judge['perplexity']:.1f}."
    return f"MI: {references['judge_missing']}." if "judge_missing" in references else ""


def _hits(hits: Figures) -> list[str]:
    cells = []
    for group in _GROUPS:
        bounds = hits.get("ci", {}).get(group)
        cell = f"{hits[group]:.1f}" if group in hits else "–"
        cells.append(f"{cell} {interval(bounds)}" if bounds else cell)
    return cells


def _replies(lcm: Figures, references: Figures) -> str:
    rows = [
        [f"**{name}**, {way}", *_said(scores)]
        for name, of_model in lcm.items()
        for way, scores in of_model.get("replies", {}).items()
    ]
    if rows and (people := references.get("people")):
        rows.append(["people, to other openings", *_said(people)])
    return table(["", "distinct-2 %", "generic % [95 %]", "loops %", "sentences"], rows) if rows else ""


def _said(scores: Figures) -> Sequence[str]:
    generic = f"{scores['generic']:.1f} {interval(scores['ci']['generic'])}"
    loops = f"{scores['loops']:.1f}" if "loops" in scores else "–"
    return [f"{scores['distinct_2']:.1f}", generic, loops, f"{scores['sentences']:.2f}"]
