"""The few exceptions of the audio package; their messages are one line and say what to do.

AudioError
├── AudioFileError   a file cannot be read, or what is asked of it cannot be written
├── AudioWriteError  the disk refuses
├── DeviceError      no PortAudio, no microphone, no loudspeaker, or it went away
├── VadError         a voice activity detector cannot be loaded
└── VoiceError       the voice cannot start, or does not know a language or variant
"""


class AudioError(Exception):
    """Anything that goes wrong with sound; never raised itself."""


class AudioFileError(AudioError):
    """A file cannot be read as audio, or cannot be written."""


class AudioWriteError(AudioError):
    """The disk takes no file here."""


class DeviceError(AudioError):
    """A microphone or loudspeaker is missing, refuses, or went away."""


class VadError(AudioError):
    """A voice activity detector cannot be loaded."""


class VoiceError(AudioError):
    """The voice cannot speak this."""
