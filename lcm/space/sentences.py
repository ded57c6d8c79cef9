"""Sentences: running text in, one sentence per concept out. Pure rules, knows nothing of models.

A concept holds one sentence [LCM §2.1], so everything typed or read passes here first. Sentences over
`max_chars` are cut at the weakest damage: clause marks first, then spaces (LCM §2.2 caps at 200-256).
Text that is still being written passes through `SentenceStream`, with the same sentences in the end.
"""

import re
import unicodedata
from collections.abc import Iterator

MAX_CHARS = 250

_ABBREVIATIONS = {
    *("mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "vs", "etc", "e.g", "i.e", "vol", "fig", "approx", "dept"),
    *("m", "mm", "mme", "mlle", "p.ex", "env", "av"),  # French
    *("sra", "srta", "ud", "uds", "p.ej"),  # Spanish
    *("z.b", "d.h", "usw", "bzw", "ca", "nr", "str", "hr", "fr", "u.a"),  # German
}
# Only from the first mark of a run on: «.....» without a space after it would else cost its length squared.
_BOUNDARY = re.compile(r"""(?<![.!?…])[.!?…]++["'”’»)\]]*\s+|[。！？]+\s*|\n\s*\n+""")
_CLAUSE = re.compile(r"[,;:–—]\s+")


def clean(text: str) -> str:
    """NFKC, without control characters; runs of white space become one space (paragraph breaks stay)."""
    return _folded(text).strip()


def _folded(text: str) -> str:
    # First the control characters: what they kept apart is then composed, and doing it all twice changes nothing.
    kept = "".join(c for c in text if c in "\n\t " or unicodedata.category(c)[0] != "C")
    return re.sub(r"\n[ \n]*\n", "\n\n", re.sub(r"[^\S\n]+", " ", unicodedata.normalize("NFKC", kept)))


def split_sentences(text: str, language: str = "eng", *, max_chars: int = MAX_CHARS) -> list[str]:
    """The sentences of `text`, in order, each at most `max_chars` characters; empty text gives none."""
    sentences: list[str] = []
    for sentence in _sentences(clean(text), ordinals=language.startswith("deu")):
        sentences.extend(_capped(" ".join(sentence.split()), max_chars))
    return [s for s in sentences if any(not c.isspace() for c in s)]


class SentenceStream:
    """Text that is still being written: each sentence as soon as nothing that may follow can change it.

    Whatever the stretches it comes in, the sentences are those of `split_sentences` on the whole text. A mark is
    known to end one when the next word has begun: «Dr.» may go on, and «21.» in German.
    """

    def __init__(self, language: str = "eng", *, max_chars: int = MAX_CHARS) -> None:
        self._ordinals = language.startswith("deu")
        self._max_chars = max_chars
        self._text = ""
        self._given = 0

    def push(self, text: str) -> list[str]:
        """The sentences that are complete with this much more text, in order."""
        self._text = _folded(self._text + text).lstrip()
        *complete, self._text = self._parts()
        sentences = [piece for sentence in complete for piece in self._rest_of(sentence)]
        begun = self._pieces(self._text)[self._given : -1]  # too long for one: its first pieces will not change
        self._given += len(begun)
        return sentences + begun

    def flush(self) -> list[str]:
        """What is left once no more text comes."""
        rest, self._text = self._text, ""
        return self._rest_of(rest)

    def _parts(self) -> list[str]:
        """The complete sentences, and what follows them: a mark that nothing follows yet is no end."""
        *sentences, rest = _sentences(self._text, ordinals=self._ordinals)
        return [*sentences, rest] if rest or not sentences else sentences

    def _rest_of(self, sentence: str) -> list[str]:
        pieces = self._pieces(sentence)[self._given :]
        self._given = 0
        return pieces

    def _pieces(self, sentence: str) -> list[str]:
        return list(_capped(" ".join(sentence.split()), self._max_chars))


def _sentences(text: str, *, ordinals: bool) -> Iterator[str]:
    # The last word before a mark stands after the mark before it, or is that mark. Looking no further back keeps
    # the time linear where no full stop ends a sentence.
    start = recent = previous = 0
    for match in _BOUNDARY.finditer(text):
        following = text[match.end() : match.end() + 1]
        if match.group()[0] == "." and _goes_on(text[recent : match.start()], following, ordinals=ordinals):
            recent, previous = previous, match.end()
            continue
        yield text[start : match.end()]
        start = recent = previous = match.end()
    yield text[start:]


def _goes_on(before: str, after: str, *, ordinals: bool) -> bool:
    """Whether the full stop between ends no sentence: «Dr. Smith», «J. Smith», «e.g. this», German «am 5. Mai»."""
    word = before.rsplit(None, 1)[-1].lstrip("(\"'“«") if before.split() else ""
    if word.casefold() in _ABBREVIATIONS or (len(word) == 1 and word.isupper() and word != "I"):
        return True
    return after[:1].islower() or (ordinals and word.isdigit() and len(word) <= 2)


def _capped(sentence: str, max_chars: int) -> Iterator[str]:
    while len(sentence) > max_chars:
        window = sentence[:max_chars]
        clauses = [m.end() for m in _CLAUSE.finditer(window) if m.end() >= max_chars // 3]
        cut = clauses[-1] if clauses else window.rfind(" ") + 1
        cut = cut if cut > 1 else max_chars
        yield sentence[:cut].strip()
        sentence = sentence[cut:].strip()
    if sentence:
        yield sentence
