"""Which sentences of the training dialogues may stand in the reply bank. Text in, clean text or nothing out.

An agent should be able to say each of them in many places: short, clean, no names, numbers or family, nothing rude.
Knows nothing of concepts or models.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lcm.models.turns import ROLE_AGENT
from lcm.training.concepts import SYMMETRIC, Documents
from lcm.training.data import key

MIN_WORDS, MAX_WORDS = 2, 14
COMMON = 20
"""a word that fewer training sentences hold is a name, a typo, or too special"""
LEFT_OUT = frozenset({"sgd", "taskmaster4"})
"""their agents book tables and sell coffee"""

_PUNCTUATION_GAP = re.compile(r"\s+([.,!?…])")
_LONE_I = re.compile(r"\bi\b(?=\s|'|’|,)")
_ALLOWED = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*[,;]?(?: [^\W\d_]+(?:['’-][^\W\d_]+)*[,;]?)*[.!?]")
_RUDE = re.compile(
    r"\b(fuck\w*|shit\w*|bitch\w*|bastard\w*|ass|asshole\w*|damn\w*|crap\w*|hell|sex\w*|porn\w*|naked|nude|rap(e|ed|ist)"
    r"|kill\w*|suicid\w*|murder\w*|drugs?|weed|drunk|nazi\w*|hitler|racis\w*|gay|lesbian|retard\w*|idiot\w*|stupid|dumb"
    r"|hate you|sucks?|pee|poop|fat|whore\w*|slut\w*|terroris\w*|puta|mierda|joder|cabr[oó]n|merde|putain|connard"
    r"|salope|scheiße|scheiss\w*|arsch\w*|fick\w*|hure)\b",
    re.IGNORECASE,
)
_PRIVATE = re.compile(
    r"\b(my|our) (\w+ )?(wife|husband|kids?|child\w*|sons?|daughters?|mom|mum|mother|dad|father|parents|brothers?"
    r"|sisters?|boyfriend|girlfriend|fianc\w+|uncle|aunt|cousin\w*|grand\w+|family|boss|job|house|hometown|car|dogs?|cats?)\b"
    r"|\b(he|she|him|her|his|hers)\b|\b(turk\w*|hits?|alexa|siri|google|amazon)\b"
    r"|\bi (am|'m|’m) (a|an|from|\d+)\b|\bi (live|work|grew|teach)\b",
    re.IGNORECASE,
)
_CAPITALS = frozenset({"I", "I'm", "I'll", "I'd", "I've", "I’m", "I’ll", "I’d", "I’ve", "TV", "OK"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence that could be replied."""

    language: str
    text: str
    count: int
    """how often it was said"""


def presentable(text: str, language: str) -> str | None:
    """The sentence, tidied: capital, closing mark, no gaps before marks; nothing if it should not be said."""
    text = _PUNCTUATION_GAP.sub(r"\1", " ".join(text.replace("’", "'").split()))
    if not text:
        return None
    if language == "eng":
        text = _LONE_I.sub("I", text)
    opening = "¿¡" if language == "spa" else ""
    body = text.lstrip(opening)
    if not body:
        return None
    marks = text[: len(text) - len(body)]
    body = body[0].upper() + body[1:]
    body = body if body[-1] in ".!?" else f"{body}."
    words = body.rstrip(".!?").split()
    fits = MIN_WORDS <= len(words) <= MAX_WORDS and _ALLOWED.fullmatch(body) is not None
    named = language != "deu" and any(w.strip(",;") not in _CAPITALS and not w.islower() for w in words[1:])
    if not fits or named or _RUDE.search(body) or _PRIVATE.search(body):
        return None
    return marks + body


def reply_candidates(training: Documents, texts: Sequence[tuple[str, str]]) -> list[Candidate]:
    """Presentable first sentences of replies, most frequent first; equal up to case and marks, the commonest form."""
    counts: Counter[tuple[str, str]] = Counter()
    for document in range(len(training)):
        corpus = training.corpus(document).split("/")[1].split(".")[0]
        if corpus in LEFT_OUT or training.corpus(document).startswith("story/"):
            continue
        rows = training.rows(document)
        for at in training.reply_starts(document):
            if corpus in SYMMETRIC or training.roles[rows][at] == ROLE_AGENT:
                counts[texts[training.sentences[rows][at]]] += 1
    common = _common_words(texts)
    forms: dict[tuple[str, str], Counter[str]] = {}
    for (language, text), count in counts.items():
        tidy = presentable(text, language)
        if tidy and all((language, word) in common for word in key(tidy).split()):
            forms.setdefault((language, key(tidy)), Counter())[tidy] += count
    found = [Candidate(language, form.most_common(1)[0][0], form.total()) for (language, _), form in forms.items()]
    return sorted(found, key=lambda c: (-c.count, c.language, c.text))


def _common_words(texts: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    counts = Counter((language, word) for language, text in texts for word in set(key(text).split()))
    threshold = {"eng": COMMON}
    return {known for known, count in counts.items() if count >= threshold.get(known[0], 2)}
