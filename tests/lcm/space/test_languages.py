"""Languages: every way to write one leads to the bundle's own tag, or to an error that names it."""

import pytest

from lcm.errors import LanguageError
from lcm.space.languages import Languages, known_languages
from lcm.space.sonar import SPEECH_CARDS

SONAR = Languages([known.tag for known in known_languages()], "text of 'sonar'")
MINI = Languages(["eng", "fra", "spa", "deu"], "text of 'mini'")


@pytest.mark.parametrize(
    ("languages", "written", "tag"),
    [
        (SONAR, "eng_Latn", "eng_Latn"),
        (SONAR, "ENG_latn", "eng_Latn"),
        (SONAR, "swh", "swh_Latn"),
        (SONAR, "zho_Hant", "zho_Hant"),
        (MINI, "eng", "eng"),
        (MINI, "eng_Latn", "eng"),
    ],
)
def test_a_tag_is_found_with_and_without_its_script(languages: Languages, written: str, tag: str) -> None:
    assert languages.resolve(written) == tag


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("zho", "did you mean zho_Hans (Chinese) or zho_Hant (Chinese)?"),
        ("eng_Cyrl", "did you mean eng_Latn (English)?"),
        ("sw", "did you mean swh_Latn (Swahili)?"),
        ("swahili", "did you mean swh_Latn (Swahili)?"),
        ("Finish", "did you mean fin_Latn (Finnish)?"),
        ("arabic", "(Tunisian Arabic)"),
        ("deu_Latin", "did you mean deu_Latn (German)?"),
        ("x", "it covers ace_Arab, ace_Latn, acm_Arab"),
    ],
)
def test_any_other_names_what_comes_nearest(written: str, hint: str) -> None:
    with pytest.raises(LanguageError) as raised:
        SONAR.resolve(written)
    assert hint in str(raised.value)


SPOKEN = Languages(list(SPEECH_CARDS), "speech of SONAR")


@pytest.mark.parametrize("written", ["zh", "zho", "zho_Hant", "Chinese"])
def test_a_language_that_others_are_kinds_of_names_them(written: str) -> None:
    with pytest.raises(LanguageError, match=r"did you mean cmn \(Mandarin Chinese\) or yue \(Yue Chinese\)\?"):
        SPOKEN.resolve(written)


@pytest.mark.parametrize("written", ["zul", "zu", "Zulu"])
def test_a_language_is_not_taken_for_another_with_a_code_like_it(written: str) -> None:
    with pytest.raises(LanguageError, match="it covers eng, arb"):
        SPOKEN.resolve(written)


def test_sonar_writes_202_languages_each_once() -> None:
    tags = [known.tag for known in known_languages()]
    assert len(set(tags)) == 202
    assert {known.two_letters for known in known_languages() if known.tag.startswith("swh")} == {"sw"}


def test_mandarin_is_one_language_under_two_tags() -> None:
    assert SONAR.resolve("cmn") == "zho_Hans"
    assert Languages(["eng", "cmn"], "speech of 'sonar'").resolve("zho_Hans") == "cmn"
