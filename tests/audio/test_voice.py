"""The voice: bit for bit the same, quick to its first sound, safe to interrupt, alive after a crash."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest

from audio.errors import VoiceError
from audio.frames import VOICE_RATE, FloatArray
from audio.languages import ESPEAK_VOICES, MAX_CHARACTERS, VARIANTS, espeak_voice, speakable
from audio.voice import Voice, VoiceOptions
from tests.audio.waiting import until

SENTENCES = {
    "eng": "The cat is hungry and wants its dinner.",
    "fra": "Le chat a faim et veut son repas.",
    "spa": "El gato tiene hambre y quiere su cena.",
    "deu": "Die Katze hat Hunger und will ihr Essen.",
}


@pytest.fixture
async def voice() -> AsyncIterator[Voice]:
    async with Voice() as opened:
        yield opened


def descendants(pid: int) -> list[int]:
    """Live processes below one."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [int(own) for own, parent, state in rows if int(parent) == pid and not state.startswith("Z")]


def lives(pid: int) -> bool:
    """Whether a process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("language", SENTENCES)
async def test_each_language_is_spoken_and_heard(voice: Voice, language: str) -> None:
    sound = await voice.synthesize(SENTENCES[language], language)
    assert 1.0 < len(sound) / VOICE_RATE < 5.0
    assert 20 * np.log10(np.sqrt(np.mean(sound**2))) > -40
    assert np.abs(sound).max() <= 1.0
    assert np.array_equal(sound, await voice.synthesize(SENTENCES[language], f"{language}_Latn"))


async def test_languages_do_not_sound_the_same(voice: Voice) -> None:
    lengths = {len(await voice.synthesize("1 2 3 4 5", language)) for language in SENTENCES}
    assert len(lengths) == len(SENTENCES)


async def test_a_sentence_is_the_same_samples_in_any_order_and_company(voice: Voice) -> None:
    alone = {language: await voice.synthesize(text, language) for language, text in SENTENCES.items()}
    together = await asyncio.gather(
        *(voice.synthesize(SENTENCES[language], language) for language in [*SENTENCES, *reversed(SENTENCES)])
    )
    for language, sound in zip([*SENTENCES, *reversed(SENTENCES)], together, strict=True):
        assert np.array_equal(sound, alone[language])
    async with Voice() as other:
        assert np.array_equal(await other.synthesize(SENTENCES["eng"], "eng"), alone["eng"])


async def test_the_first_sound_comes_within_30_ms(voice: Voice) -> None:
    async def first_sound() -> float:
        began = time.perf_counter()
        spoken = voice.speak(SENTENCES["eng"], "eng")
        await anext(spoken)
        waited = time.perf_counter() - began
        await spoken.aclose()
        return waited

    # The best of several: other work on the machine is not the voice's doing.
    assert min([await first_sound() for _ in range(10)]) < 0.03


async def test_every_variant_sounds_different_and_rate_and_pitch_count(voice: Voice) -> None:
    sounds = [await voice.synthesize("Hello there.", "eng", variant=variant) for variant in (None, *VARIANTS)]
    assert len({sound.tobytes() for sound in sounds}) == 1 + len(VARIANTS)
    fast = await voice.synthesize("Hello there.", "eng", rate_wpm=300)
    high = await voice.synthesize("Hello there.", "eng", pitch=90)
    assert len(fast) < 0.8 * len(sounds[0])
    assert not np.array_equal(high, sounds[0])


async def test_options_of_a_voice_are_its_defaults(voice: Voice) -> None:
    async with Voice(VoiceOptions(rate_wpm=300, variant="f3")) as quick:
        there = await quick.synthesize("Hello there.", "eng")
    assert np.array_equal(there, await voice.synthesize("Hello there.", "eng", rate_wpm=300, variant="f3"))


async def test_every_listed_language_has_its_voice(voice: Voice) -> None:
    sounds = {language: await voice.synthesize("1 2 3 4", language) for language in ESPEAK_VOICES}
    assert [language for language, sound in sounds.items() if len(sound) < VOICE_RATE // 4] == []


async def test_closing_early_ends_the_child_and_nobody_else(voice: Voice) -> None:
    assert voice._process is not None
    worker = voice._process.pid
    # Long enough that its child waits for us, in the middle of its work, when we turn away.
    interrupted = voice.speak("a very long sentence " * 200, "eng")
    await anext(interrupted)
    await until(lambda: len(descendants(worker)) == 1)
    other = asyncio.create_task(voice.synthesize(SENTENCES["fra"], "fra"))
    await interrupted.aclose()
    assert len(await other) > VOICE_RATE
    await until(lambda: descendants(worker) == [])


async def test_what_is_not_urgent_leaves_the_processors_to_others_and_sounds_the_same(voice: Voice) -> None:
    assert voice._process is not None
    own = os.getpriority(os.PRIO_PROCESS, voice._process.pid)
    patient = voice.speak("a very long sentence " * 200, "eng", urgent=False)
    await anext(patient)
    [child] = descendants(voice._process.pid)
    assert os.getpriority(os.PRIO_PROCESS, child) > own
    await patient.aclose()
    spoken = [chunk async for chunk in voice.speak(SENTENCES["eng"], "eng", urgent=False)]
    assert np.array_equal(np.concatenate(spoken), await voice.synthesize(SENTENCES["eng"], "eng"))


async def test_a_cancelled_task_ends_its_child(voice: Voice) -> None:
    assert voice._process is not None
    worker = voice._process.pid
    started = asyncio.Event()

    async def speak_slowly() -> None:
        async for _ in voice.speak("a very long sentence " * 200, "eng"):
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(speak_slowly())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: descendants(worker) == [])
    assert len(await voice.synthesize(SENTENCES["eng"], "eng")) > VOICE_RATE


async def test_the_voice_survives_the_death_of_its_worker() -> None:
    async with Voice() as voice:
        before = await voice.synthesize(SENTENCES["eng"], "eng")
        assert voice._process is not None
        os.kill(voice._process.pid, signal.SIGKILL)
        after = await voice.synthesize(SENTENCES["eng"], "eng")
        assert np.array_equal(before, after)


async def test_a_sentence_under_way_survives_the_death_of_the_worker() -> None:
    async with Voice() as voice:
        expected = await voice.synthesize("a very long sentence " * 100, "eng")
        chunks: list[FloatArray] = []
        async for chunk in voice.speak("a very long sentence " * 100, "eng"):
            if not chunks:
                assert voice._process is not None
                os.kill(voice._process.pid, signal.SIGKILL)
                await voice.synthesize("Somebody else starts a new one.", "eng")
            chunks.append(chunk)
        assert np.array_equal(np.concatenate(chunks), expected)


async def test_leaving_leaves_no_process() -> None:
    async with Voice() as voice:
        assert voice._process is not None
        worker = voice._process.pid
        spoken = voice.speak("a very long sentence " * 200, "eng")
        await anext(spoken)
        (child,) = descendants(worker)
    await spoken.aclose()
    await until(lambda: not lives(child))
    await until(lambda: not lives(worker))


async def test_text_without_words_is_no_sound(voice: Voice) -> None:
    for text in ("", "   ", "...", "🎉🎉", "\x00\x07\x1b"):
        assert len(await voice.synthesize(text, "eng")) == 0


async def test_control_characters_and_emoji_are_not_spoken(voice: Voice) -> None:
    plain = await voice.synthesize("Hello there my friend.", "eng")
    odd = await voice.synthesize("Hello\x00 there\x07 👩‍🚀 my 🎉 friend.", "eng")
    assert np.array_equal(odd, plain)


async def test_five_thousand_characters_are_spoken(voice: Voice) -> None:
    seconds = len(await voice.synthesize("word " * 1000, "eng")) / VOICE_RATE
    assert 120 < seconds < 600


async def test_markup_is_text(voice: Voice) -> None:
    assert len(await voice.synthesize('<voice name="x">[[h@l\'oU]] & so on', "eng")) > VOICE_RATE // 2


async def test_what_is_unknown_names_what_is_known(voice: Voice) -> None:
    with pytest.raises(VoiceError, match="does not speak 'xyz'; choose one of eng, fra, spa, deu"):
        await voice.synthesize("Hello", "xyz")
    with pytest.raises(VoiceError, match="no variant 'f9'; choose one of f1"):
        await voice.synthesize("Hello", "eng", variant="f9")
    with pytest.raises(VoiceError, match="rate_wpm must lie between 80 and 450"):
        await voice.synthesize("Hello", "eng", rate_wpm=9000)
    with pytest.raises(VoiceError, match="no variant 'f9'"):
        VoiceOptions(variant="f9")


def test_names_that_fail_silently_are_not_used() -> None:
    assert [espeak_voice(language) for language in ("eng", "fra_Latn")] == ["en-us", "fr"]
    with pytest.raises(VoiceError, match="en-gb"):
        espeak_voice("en-gb")


def test_text_is_cut_at_a_word() -> None:
    cut = speakable("word " * 5000)
    assert len(cut) <= MAX_CHARACTERS
    assert cut.endswith("word")
    assert len(speakable("x" * 100_000)) == MAX_CHARACTERS
