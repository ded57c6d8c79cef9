"""Which espeak-ng voice speaks which language, and what text it is given.

Languages are ISO 639-3 with an optional script (`fra`, `fra_Latn`). Pure.
"""

import unicodedata

from audio.errors import VoiceError

MAX_CHARACTERS = 5000
"""What one call speaks; about five minutes. More is cut at a word"""

# espeak-ng answers some likely names (en-gb, fr-fr) with silence or the voice used before: each is named.
ESPEAK_VOICES = {
    "eng": "en-us", "fra": "fr", "spa": "es", "deu": "de",
    "afr": "af", "amh": "am", "arb": "ar", "asm": "as", "azj": "az", "bel": "be", "ben": "bn", "bos": "bs",
    "bul": "bg", "cat": "ca", "ces": "cs", "cmn": "cmn", "cym": "cy", "dan": "da", "ell": "el", "epo": "eo",
    "est": "et", "eus": "eu", "fin": "fi", "gle": "ga", "guj": "gu", "hat": "ht", "heb": "he", "hin": "hi",
    "hrv": "hr", "hun": "hu", "hye": "hy", "ind": "id", "isl": "is", "ita": "it", "jpn": "ja", "kan": "kn",
    "kat": "ka", "kaz": "kk", "kor": "ko", "lit": "lt", "ltz": "lb", "lvs": "lv", "mal": "ml", "mar": "mr",
    "mkd": "mk", "mlt": "mt", "mya": "my", "nld": "nl", "nob": "nb", "npi": "ne", "ory": "or", "pan": "pa",
    "pap": "pap", "pes": "fa", "pol": "pl", "por": "pt", "ron": "ro", "rus": "ru", "sin": "si", "slk": "sk",
    "slv": "sl", "snd": "sd", "srp": "sr", "swe": "sv", "swh": "sw", "tam": "ta", "tat": "tt", "tel": "te",
    "tha": "th", "tir": "ti", "tuk": "tk", "tur": "tr", "uig": "ug", "ukr": "uk", "urd": "ur", "uzn": "uz",
    "vie": "vi", "yue": "yue", "zho": "cmn", "zsm": "ms",
}  # fmt: skip

VARIANTS = ("f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "croak", "whisper")
"""Timbres any voice can be given; the library takes an unknown one without a word"""


def espeak_voice(language: str, variant: str | None = None) -> str:
    """Name the espeak-ng voice of a language.

    Raises:
        VoiceError: the language or the variant is unknown.
    """
    voice = ESPEAK_VOICES.get(language.partition("_")[0])
    if voice is None:
        raise VoiceError(f"the voice does not speak '{language}'; choose one of {', '.join(ESPEAK_VOICES)}")
    if variant is None:
        return voice
    if variant not in VARIANTS:
        raise VoiceError(f"the voice has no variant '{variant}'; choose one of {', '.join(VARIANTS)}")
    return f"{voice}+{variant}"


def speakable(text: str) -> str:
    """Text without what cannot be spoken: control characters, emoji, private and unassigned code points.

    Empty when no letter or digit is left.
    """
    kept = "".join(character if _is_speakable(character) else " " for character in text[: 4 * MAX_CHARACTERS])
    words = " ".join(kept.split())
    if len(words) > MAX_CHARACTERS:
        words = words[:MAX_CHARACTERS].rsplit(" ", 1)[0]
    return words if any(character.isalnum() for character in words) else ""


def _is_speakable(character: str) -> bool:
    category = unicodedata.category(character)
    if category == "So":
        return character < "\u2000"  # ° and © have names, emoji and box drawings do not
    if category == "Cf":
        return character in "\u200c\u200d"  # joiners shape Persian and Indian words
    return category not in {"Cc", "Cs", "Co", "Cn", "Me", "Sk"} and character != "\ufe0f"
