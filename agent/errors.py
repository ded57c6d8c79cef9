"""Errors: one tree for the agent, and one place that maps every package's errors to exit codes and one line.

    AgentError           something the user can put right; its message says how
    ├── UsageError       asked for in a way that cannot work (exit code 2)
    ├── ConfigError      a setting is unknown or out of range (2)
    ├── TextInputError   text that cannot be used (2)
    ├── RecordingError   a recording is missing, damaged or of another version (2)
    ├── OutputError      a file cannot be written (1)
    ├── FetchError       a file cannot be fetched, or what came is not it (1)
    ├── ThinkerError     the thinker cannot work: its server, its bundle (1)
    │   └── ThinkerResting   it failed a moment ago, and is not asked again yet (1)
    ├── RemoteError          a server elsewhere does not answer, or does not let us in (1)
    ├── Overloaded       the model has no room for more work (1)
    ├── StoreError       a session cannot be kept, so nobody can resume it (1)
    ├── WorkerHung       the model does not answer any more (1)
    └── Difference       a replay did not give what was recorded (1)

Exit codes: 0 fine · 1 it could not be done here, or a comparison failed · 2 the request or its input is
wrong · 130 interrupted. Knows nothing of wires.
"""

import errno
import os

OK = 0
FAILED = 1
WRONG_INPUT = 2
INTERRUPTED = 130


class AgentError(Exception):
    """Root of what the agent raises for its user."""

    exit_code = FAILED


class UsageError(AgentError):
    """Asked for in a way that cannot work."""

    exit_code = WRONG_INPUT


class ConfigError(AgentError):
    """A setting is unknown or out of range."""

    exit_code = WRONG_INPUT


class TextInputError(AgentError):
    """Text that cannot be used: empty, or far too long."""

    exit_code = WRONG_INPUT


class RecordingError(AgentError):
    """A recording is missing, damaged or of another version."""

    exit_code = WRONG_INPUT


class OutputError(AgentError):
    """A file cannot be written."""


class FetchError(AgentError):
    """A file cannot be fetched, or what came is not it."""


class ThinkerError(AgentError):
    """The thinker cannot work: its server does not answer, or its bundle lacks a part."""


class ThinkerResting(ThinkerError):
    """The thinker failed a moment ago, and is not asked again yet."""


class RemoteError(AgentError):
    """A server elsewhere does not answer, or does not let us in.

    Args:
        message: why, and what to do.
        temporary: whether it may help to try again later.
        status: what it answered over HTTP, if it did.
    """

    def __init__(self, message: str, *, temporary: bool = False, status: int | None = None) -> None:
        super().__init__(message)
        self.temporary = temporary
        self.status = status


class Overloaded(AgentError):
    """The model has no room for more work."""


class StoreError(AgentError):
    """A session cannot be kept: the disk, or what is on it."""


class WorkerHung(AgentError):
    """The model does not answer any more: the process has to be started again."""


class Difference(AgentError):
    """A replay did not give what was recorded."""


# The exceptions of the other packages, by class name and module: this table imports none of them, so that
# `noema --help` does not wait for torch.
_EXIT_CODES = {
    "audio.errors.AudioFileError": WRONG_INPUT,
    "audio.errors.AudioError": FAILED,
    "configs.loader.ConfigError": WRONG_INPUT,
    "lcm.errors.LanguageError": WRONG_INPUT,
    "lcm.errors.TextError": WRONG_INPUT,
    "lcm.errors.AudioInputError": WRONG_INPUT,
    "lcm.errors.ComputeDeviceError": WRONG_INPUT,
    "lcm.errors.BackendError": WRONG_INPUT,
    "lcm.errors.LcmError": FAILED,
    "agent.core.input_log.LogFormatError": WRONG_INPUT,
}
_OS_ERRORS = {
    errno.ENOENT: ("no such file or folder", WRONG_INPUT),
    errno.EISDIR: ("this is a folder", WRONG_INPUT),
    errno.ENOTDIR: ("this is not a folder", WRONG_INPUT),
    errno.EACCES: ("no permission; choose another place or change its permissions", FAILED),
    errno.EPERM: ("not permitted; choose another place or change its permissions", FAILED),
    errno.EROFS: ("the disk is read-only; choose another place", FAILED),
    errno.ENOSPC: ("the disk is full; make room or choose another place", FAILED),
    errno.EDQUOT: ("your disk quota is used up; make room or choose another place", FAILED),
    errno.EFBIG: ("the file would grow larger than allowed here", FAILED),
    errno.ENAMETOOLONG: ("the name is too long", WRONG_INPUT),
}


def exit_code(error: BaseException) -> int | None:
    """The exit code for an error; None where it is no error we know, that is, a bug."""
    if isinstance(error, AgentError):
        return error.exit_code
    for cls in type(error).__mro__:
        code = _EXIT_CODES.get(f"{cls.__module__}.{cls.__qualname__}")
        if code is not None:
            return code
    if isinstance(error, OSError):
        return _OS_ERRORS.get(error.errno or 0, ("", FAILED))[1]
    return None


def one_line(error: BaseException) -> str:
    """What the user reads: what is wrong and what to do, in one line."""
    if isinstance(error, OSError) and not isinstance(error, AgentError) and error.errno is not None:
        reason = _OS_ERRORS.get(error.errno, (os.strerror(error.errno), FAILED))[0]
        name = error.filename
        return f"{os.fsdecode(name)}: {reason}" if isinstance(name, str | bytes) else reason
    return " ".join(str(error).split()) or type(error).__name__


def first_known(error: BaseException) -> BaseException:
    """Out of a group raised by a task group, the error worth reporting: one that the user can put right."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    inner = [first_known(member) for member in error.exceptions]
    return next((e for e in inner if exit_code(e) is not None), inner[0])
