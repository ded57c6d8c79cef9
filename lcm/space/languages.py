"""Languages: what somebody wrote for a language in, the tag that a bundle knows it by out.

Tags are ISO 639-3 with optional script, as FLORES-200 writes them: `eng` and `eng_Latn` are the same to a bundle that
knows one of them. Two letters (`en`) and English names (`Swahili`) are no tags, but lead to the right one.
"""

import difflib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lcm.errors import LanguageError

_NEAREST = 4
_ALSO = {"zho_hans": "cmn", "cmn": "zho_hans"}
"""SONAR's text models write Mandarin as `zho_Hans`, its speech encoder's card as `cmn`"""
_LEAST_LETTERS = 4
"""Of a name's part: `Span` leads to Spanish, `an` to nothing"""


@dataclass(frozen=True, slots=True)
class KnownLanguage:
    """One language that SONAR writes."""

    tag: str
    """As FLORES-200 writes it"""
    two_letters: str
    """ISO 639-1, empty if it has none"""
    name: str
    """English"""


@functools.cache
def known_languages() -> tuple[KnownLanguage, ...]:
    """The 202 languages of SONAR's text models, in the order of their tokens."""
    rows = Path(__file__).with_name("sonar_languages.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return tuple(KnownLanguage(*row.split("\t")) for row in rows)


@functools.cache
def _names() -> dict[str, str]:
    spoken_only = {"cmn": "Mandarin Chinese"}  # written it is Chinese
    return spoken_only | {base_language(known.tag): known.name for known in known_languages()}


@functools.cache
def _of_two_letters() -> dict[str, str]:
    return {known.two_letters: base_language(known.tag) for known in known_languages() if known.two_letters}


@functools.cache
def _of_names() -> dict[str, str]:
    return {name.casefold(): base for base, name in _names().items()}


def base_language(tag: str) -> str:
    """`eng_Latn` → `eng`: the language without its script."""
    return tag.split("_", 1)[0].casefold()


def language_name(tag: str) -> str:
    """`swh_Latn` → `Swahili`; empty for a tag that SONAR does not have."""
    return _names().get(base_language(tag), "")


class Languages:
    """The languages of one modality of a bundle."""

    def __init__(self, tags: Sequence[str], of: str, elsewhere: Callable[[str], str] = lambda tag: "") -> None:
        """Of one bundle, or of all there is.

        Args:
            tags: as the bundle writes them.
            of: says in errors who covers them.
            elsewhere: what to do for a language that is not among them, as an error says it; empty for nothing.
        """
        self.tags = list(tags)
        self._of, self._elsewhere = of, elsewhere
        self._exact = {tag.casefold(): tag for tag in tags}
        self._by_base: dict[str, list[str]] = {}
        for tag in tags:
            self._by_base.setdefault(base_language(tag), []).append(tag)

    def resolve(self, tag: str) -> str:
        """The bundle's own tag.

        Raises:
            LanguageError: not covered, or written in several scripts of which none was named; lists what comes nearest.
        """
        for written in (tag.casefold(), _ALSO.get(tag.casefold(), "")):
            if (exact := self._exact.get(written)) is not None:
                return exact
        candidates = self._by_base.get(base_language(tag), [])
        if len(candidates) == 1 and ("_" not in tag or "_" not in candidates[0]):
            return candidates[0]
        named = candidates or self.named(tag)
        advice = "" if named else self._elsewhere(tag)
        if not advice and (near := named or self._nearest(tag)):
            raise LanguageError(f"{self._of} does not cover language {tag!r}; did you mean {_listed(near)}?")
        told = [f"{self._of} does not cover language {tag!r}", f"it covers {few(self.tags)}", advice]
        raise LanguageError("; ".join(filter(None, told)))

    def named(self, written: str) -> list[str]:
        """The tags of a language, in all its scripts, that is written as a code of two or three letters or a name."""
        also = base_language(_ALSO.get(written.casefold(), ""))
        return self._by_base.get(_base_of(written)) or self._by_base.get(also, [])

    def _nearest(self, tag: str) -> list[str]:
        """Tags whose code or English name are like what was written."""
        written = tag.casefold()
        names = {_names().get(base_language(known), known).casefold(): known for known in self.tags}
        if name := language_name(_base_of(tag)):  # a language it is, so codes like it would be others
            return [known for other, known in names.items() if name.casefold() in other][:_NEAREST]
        inside = [known for name, known in names.items() if len(written) >= _LEAST_LETTERS and written in name]
        alike = difflib.get_close_matches(written, names, _NEAREST, cutoff=0.75)
        codes = difflib.get_close_matches(base_language(tag), self._by_base, _NEAREST, cutoff=0.6)
        found = [*inside, *(names[name] for name in alike), *(t for code in codes for t in self._by_base[code])]
        return list(dict.fromkeys(found))[:_NEAREST]


def _base_of(written: str) -> str:
    """`sw`, `swh_Latn`, `Swahili` → `swh`; what is no language of SONAR's stays what it is."""
    base = base_language(written)
    return _of_two_letters().get(base) or _of_names().get(written.casefold()) or base


def _listed(tags: Sequence[str]) -> str:
    names = [_names().get(base_language(tag)) for tag in tags]
    known = [f"{tag} ({name})" if name else tag for tag, name in zip(tags, names, strict=True)]
    return " or ".join([", ".join(known[:-1]), known[-1]] if len(known) > 1 else known)


def few(tags: Sequence[str], most: int = 12) -> str:
    """The first of them, and how many more there are."""
    return ", ".join(tags[:most]) + (f" and {len(tags) - most} more" if len(tags) > most else "")
