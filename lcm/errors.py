"""Errors of the concept space and the models. Each message says what to do; nothing here knows of exit codes."""

INSTALL_TRAIN = "pip install -e '.[train]' -c constraints.txt"
"""Advice where a package of the extra `train` is missing"""


class LcmError(Exception):
    """Root of everything that `lcm` raises on bad input."""


class BundleError(LcmError):
    """A bundle is missing, damaged, too new, or its parts do not belong together."""


class LanguageError(LcmError):
    """A language tag is unknown, or the bundle does not cover it for this modality."""


class TextError(LcmError):
    """A text that cannot become a concept: empty, or far too long."""


class AudioInputError(LcmError):
    """A waveform that cannot become a concept: empty, not finite, or the wrong shape."""


class ComputeDeviceError(LcmError):
    """This machine cannot compute on the device that was asked for."""


class BackendError(LcmError):
    """The backend that was asked for is not installed here, or cannot do what was asked of it."""


class DecodingError(LcmError):
    """Options of decoding that do not go together, or are out of range."""


class TrainingDataError(LcmError):
    """Training data is missing, or differs from what the splits were made from."""


class ContextError(LcmError):
    """Concepts or roles that cannot be used: none, not finite, or of the wrong shape."""
