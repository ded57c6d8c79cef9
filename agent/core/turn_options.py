"""Turn options: what a session is like, from its first input to its last. Knows nothing of settings files."""

from dataclasses import dataclass, field

from agent.core.events import Task
from audio.segmenter import SegmenterOptions


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """What a session is like; part of its recording."""

    segmenter: SegmenterOptions = field(default_factory=SegmenterOptions)
    task: Task = "converse"
    language: str = "eng"
    candidates: tuple[str, ...] = ()
    """Languages that may be spoken, found out for each turn; empty: `language` is. Typed text is in `language`."""
    reply_language: str | None = None
    """None: the speaker's own."""
    spoken_reply: bool = True
    words_first: bool = False
    """True: who converses reads words, so what was heard is decoded before he thinks."""
    half_duplex: bool = False
    """True: nothing is heard while the loudspeaker speaks, so that the agent does not answer itself."""
    interruptible: bool = False
    """True: speech stops the reply (needs an echo-free microphone, and to know what is heard)."""
    assume_playback: bool = False
    """True: until a playback position is told, replies are taken to sound as soon as they are given out."""
    barge_in_ms: int = 0
    """Speech it takes while a reply sounds; less, a short «mhm», is nothing"""
    speculation: bool = False
    """True: the reply is begun at the soft pause, and kept if that was the end."""
    costly: bool = False
    """True: who converses is paid for each answer, so he is not asked before it is certain."""
    adaptive_hangover: bool = False
    """True: the silence that ends an utterance follows the speaker's own pauses."""
    hangover_bounds_ms: tuple[int, int] = (320, 960)
    """Between which it moves"""
    max_context_sentences: int = 64
    max_pieces: int = 4
    """Utterances cut for length that one turn of a conversation may hold."""
    max_waiting_turns: int = 8
    echo_guard_ms: int = 300
    """Half-duplex: how long after the last heard sample the microphone stays closed."""
    seed: int = 0
    """Of the noise that replies are drawn from"""
