"""Phones: espeak-ng's IPA in, labels for CTC out. Shared by the languages; knows nothing of audio or models.

Diphthongs and affricates are taken apart, stress is dropped, length and nasality stay with their vowel: 72 symbols
cover English, French, Spanish and German in every accent used. Case, punctuation and digits have vanished already.
"""

import itertools
import re
from collections.abc import Iterable, Sequence

from lcm.space.speech_encoder import BLANK

_TABLE = """
    a aː b d e eː f h i iː j k l m n o oː p r s t u uː v w x y yː z æ ç ð ø øː ŋ œ œ̃ ɐ ɑ ɑː ɑ̃ ɒ ɔ ɔː ɔ̃ ə ɚ
    ɛ ɛː ɛ̃ ɜ ɜː ɡ ɣ ɪ ɲ ɹ ɾ ʁ ʃ ʉ ʉː ʊ ʌ ʍ ʎ ʏ ʒ ʝ β θ ᵻ
"""
PHONES = tuple(_TABLE.split())
LABELS = len(PHONES) + 1
"""Phones and the blank"""

_NUMBERS = {phone: number for number, phone in enumerate(PHONES, start=BLANK + 1)}
_LANGUAGE_SWITCH = re.compile(r"\([a-z-]+\)")
_UNIT = re.compile("[^\\W\\d_][ː\u0303]*")


def phone_labels(ipa: str) -> list[int]:
    """Labels of an IPA string as espeak-ng writes it; what is not in `PHONES` loses its marks, or goes."""
    units = _UNIT.findall(_LANGUAGE_SWITCH.sub("", ipa))
    numbers = (_NUMBERS.get(unit) or _NUMBERS.get(unit[0]) for unit in units)
    return [number for number in numbers if number]


def needed_frames(labels: Sequence[int]) -> int:
    """Frames that CTC needs for `labels`: one each, and a blank between two equal ones."""
    return len(labels) + sum(a == b for a, b in itertools.pairwise(labels))


def collapsed(path: Iterable[int]) -> list[int]:
    """The labels that a CTC path spells."""
    out, previous = [], BLANK
    for label in path:
        if label not in (BLANK, previous):
            out.append(label)
        previous = label
    return out


def edit_distance(a: Sequence[object], b: Sequence[object]) -> int:
    """Insertions, deletions and substitutions that make `b` of `a`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
