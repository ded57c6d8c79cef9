"""Echo guard: the reply as it is given out and the microphone's frames in, whether somebody else speaks out.

A client without echo cancellation sends back what it plays, late, coloured by its loudspeaker and the room. The
guard takes it that playback begins when sound is given, plus a delay it finds out (`audio.echo_delay`), and learns how
loud the echo arrives in each band (`audio.echo_level`). What the microphone hears beyond that is somebody, and enough
of it in a row opens the gate. Without an echo (headphones, a client that cancels it) there is nothing to find, and
nothing is held back. Streaming and bounded; knows nothing of sessions.
"""

from dataclasses import dataclass

import numpy as np

from audio.assumed_playback import AssumedPlayback
from audio.bands import BANDS, HOPS, BandHistory, BandMeter, NoiseFloor
from audio.echo_delay import LAGS, EchoDelay
from audio.echo_level import TAIL_HOPS, EchoLevel
from audio.frames import AudioFrame, FloatArray


@dataclass(frozen=True, slots=True)
class EchoOptions:
    """When it is an echo. `python -m scripts.bench echo` shows what a change does."""

    alike: float = 0.62
    """Correlation from which on it is an echo, and below which somebody speaks, as long as the room is hardly known"""
    moved: float = 0.4
    """Correlation from which on a known echo may have moved: playback stalled"""
    lost: float = 0.45
    """Correlation below which there may be no echo any more"""
    trusted: float = 0.75
    """Correlation from which on the room is learned from whatever is heard"""
    margin_db: float = 5.0
    """Beyond the expected echo; the sum of a room's reflections varies by that much"""
    excess_db: float = 0.3
    """Mean over the bands beyond the margin that speaks for somebody, and against an echo if it is less"""
    most_for: float = 6.0
    most_against: float = 2.0
    """dB hops: how far evidence for and against adds up"""


class EchoGuard:
    """Guards one session's microphone."""

    def __init__(self, options: EchoOptions | None = None) -> None:
        self._options = options or EchoOptions()
        self._playback = AssumedPlayback()
        self._bands = BandMeter(2)
        self._played = BandHistory(LAGS + 2 * TAIL_HOPS)
        self._heard = BandHistory(TAIL_HOPS)
        self._floor = NoiseFloor()
        self._noise: FloatArray = np.zeros(BANDS, dtype=np.float32)
        self._loudest = _QUIET
        self._silent_hops = _HEARD_HOPS
        self._delay = EchoDelay()
        self._level: EchoLevel | None = None
        self._lag = 0
        self._seen = self._unseen = 0
        """Frames in a row that show an echo not yet known; that do not show a known one"""
        self._evidence = 0.0
        """Of somebody, in dB hops; of an echo alone where it is not positive"""

        self._open = 0
        """Frames in a row in which somebody speaks"""

    @property
    def lag_ms(self) -> int | None:
        """How late the echo comes, None if there was none so far."""
        return None if self._level is None else 10 * self._lag

    def give(self, samples: FloatArray) -> None:  # [T], 24 kHz
        """Sound was given out: it will be played now, or after what was given before."""
        self._playback.give(samples)

    def cut(self) -> None:
        """What was given and is not yet played will not be: the reply was interrupted."""
        self._playback.cut()

    def factor(self, frame: AudioFrame) -> float:
        """What the next frame's probability of speech is to be multiplied by: 0 if that is the echo alone, else 1."""
        played, heard = self._bands.measure(self._playback.next_frame(), frame.samples)
        self._follow(played, heard)
        if self._silent_hops >= _HEARD_HOPS:
            self._evidence, self._seen, self._open = 0.0, 0, 0
            return 1.0
        return 1.0 if self._lets_through(heard, self._delay.correlations()) else 0.0

    def _lets_through(self, heard: FloatArray, correlations: FloatArray) -> bool:
        alike = float(correlations.max())
        if self._level is not None:
            self._lose(heard, alike)
        self._find(correlations)
        if self._level is None:
            return True
        self._open = self._open + 1 if self._somebody(self._level, heard, alike) else 0
        return self._open >= (_OPEN_FRAMES_AFTER if self._dies_away else 1)

    @property
    def _dies_away(self) -> bool:
        """Whether nothing is played any more, but its end still arrives: a session takes a reply for over by then."""
        arriving = self._arriving(TAIL_HOPS).max() > _SILENCE * self._loudest
        return self._playback.over and bool(arriving)

    def _follow(self, played: FloatArray, heard: FloatArray) -> None:  # [HOPS, BANDS] each
        """Takes a frame in: how loud silence is on both sides, and what lies above it."""
        for row_played, row_heard in zip(played, heard, strict=True):
            self._played.append(row_played)
            self._heard.append(row_heard)
        self._noise = 2 * self._floor.follow(heard) + _TINY
        heard_db = 10 * np.log10(1 + heard / (2 * self._noise))
        loudest = float(played.max())
        self._loudest = max(self._loudest * _PEAK_FADE, loudest)
        self._silent_hops = 0 if loudest > _SILENCE * self._loudest else self._silent_hops + HOPS
        if self._silent_hops < _HEARD_HOPS:
            self._delay.push(10 * np.log10(1 + played / (_SILENCE * self._loudest)), heard_db)
            return
        if self._silent_hops < _HEARD_HOPS + HOPS:
            self._delay.forget()
        self._delay.push_heard_only(heard_db)

    def _find(self, correlations: FloatArray) -> None:
        """Takes note of an echo, or of one that comes at another time than before."""
        lag = int(correlations.argmax())
        alike = float(correlations[lag])
        if self._level is None:
            same = abs(lag - self._lag) <= _ABOUT_SAME_LAG
            self._seen = 0 if alike < self._options.alike else self._seen + 1 if same else 1
            self._lag = lag
            if self._seen < _SEEN_FRAMES:
                return
            self._level = EchoLevel(self._arriving(2 * TAIL_HOPS), self._heard.last(TAIL_HOPS))
            self._unseen = 0
        else:
            known = correlations[max(0, self._lag - 1) : self._lag + 2].max()
            moved = abs(lag - self._lag) > _SAME_LAG and alike > max(self._options.moved, known + _CLEARLY)
            if not moved:
                return
            self._lag = lag
        self._evidence = -self._options.most_against  # that explains what seemed to be somebody
        self._level.place(self._arriving(TAIL_HOPS, ago=HOPS))

    def _lose(self, heard: FloatArray, alike: float) -> None:
        """Forgets an echo that is not found again where there is something to hear."""
        if (heard[0] > 2 * self._noise).sum() > _FEW_BANDS:
            self._unseen = self._unseen + 1 if alike < self._options.lost else max(0, self._unseen - 2)
        if self._unseen >= _UNSEEN_FRAMES:
            self._level, self._seen = None, 0

    def _arriving(self, hops: int, ago: int = 0) -> FloatArray:  # [hops, BANDS]
        """What was played and arrives now, a little early, since the window smears both."""
        return self._played.last(hops, ago + max(0, self._lag - _EARLY_HOPS))

    def _somebody(self, level: EchoLevel, heard: FloatArray, alike: float) -> bool:
        options = self._options
        echo = level.predict(self._arriving(HOPS))
        expected = echo + self._noise
        known = level.learned_hops >= _KNOWN_HOPS
        if known:
            above = 10 * np.log10((heard + _TINY) / expected) - options.margin_db
            for excess in np.clip(above, 0, _MOST_EXCESS_DB).mean(axis=1):
                evidence = self._evidence + float(excess) - options.excess_db
                self._evidence = min(max(evidence, -options.most_against), options.most_for)
        else:
            self._evidence = 1.0 if alike < options.alike else -1.0
        trusted = not known or alike > options.trusted
        sounding = np.any(echo > self._noise, axis=0)
        if sounding.sum() > _FEW_BANDS:
            believed = heard if trusted else np.minimum(heard, _MOST_BELIEVED * expected)
            level.learn(believed, expected, np.asarray(sounding), 1.0 if trusted or self._evidence <= 0 else _DOUBTED)
        return self._evidence > 0


_TINY = np.float32(1e-9)
_QUIET = 1e-4
_SILENCE = np.float32(1e-4)
"""40 dB below the loudest that was played"""
_HEARD_HOPS = LAGS + TAIL_HOPS
"""After which nothing is heard of what was played"""
_PEAK_FADE = 0.999
_EARLY_HOPS = 2
_SAME_LAG = 2
_ABOUT_SAME_LAG = 1
_CLEARLY = 0.05
_SEEN_FRAMES = 5
"""The first sound of anybody may resemble anything"""
_UNSEEN_FRAMES = 25
_OPEN_FRAMES_AFTER = 10
"""While a reply sounds, only long speech interrupts it; once it is over, a tenth of a second begins a turn: of its
echo, too"""
_KNOWN_HOPS = 40
_FEW_BANDS = 4
_MOST_EXCESS_DB = 10.0
_MOST_BELIEVED = np.float32(10**0.4)
_DOUBTED = 0.1
