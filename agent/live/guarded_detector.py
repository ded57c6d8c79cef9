"""Guarded detector: a voice activity detector that does not take the agent's own echo for somebody.

Stands between a live session's frames and its detector, and follows the session as a listener, to know what replies
sound like. For clients that send back what they play; with headphones or echo cancellation nothing is held back.
"""

from agent.core.events import DomainEvent, ReplyAudio, ReplyEnded, ReplyTruncated
from agent.core.inputs import Input
from audio.echo import EchoGuard
from audio.frames import AudioFrame
from audio.vad import VoiceActivityDetector


class GuardedDetector:
    """Hears one session."""

    def __init__(self, detector: VoiceActivityDetector) -> None:
        self._detector = detector
        self._guard = EchoGuard()

    def probability(self, frame: AudioFrame) -> float:
        """How likely somebody speaks in this frame, 0..1; 0 where it is the echo of a reply and nothing else."""
        return self._detector.probability(frame) * self._guard.factor(frame)

    def reset(self) -> None:
        """Forgets the stream heard so far, and the room."""
        self._detector.reset()
        self._guard = EchoGuard()

    async def on_input(self, item: Input) -> None:
        """Frames come by `probability`."""

    async def on_event(self, event: DomainEvent) -> None:
        """What is given out comes back; what was cut off does not."""
        match event:
            case ReplyAudio():
                self._guard.give(event.samples)
            case ReplyTruncated() | ReplyEnded(status="interrupted" | "cancelled"):
                self._guard.cut()
            case _:
                pass
