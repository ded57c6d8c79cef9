"""The voice's own process: holds espeak-ng in its pristine state and forks a child for each sentence.

Started by `audio.voice` as a plain script, with nothing but the standard library: the less a process has
loaded, the cheaper and safer its forks. espeak-ng keeps global state and drifts from call to call; a fresh
child speaks every sentence bit for bit the same. Knows nothing of asyncio, numpy or the agent.

espeak-ng is GPL-3.0-or-later. It runs here, in a process of its own, and is not part of this project.

Receives over the socket `argv[1]` one byte and one socket per sentence. On that socket the child reads the
request, a JSON object with a 4-byte length before it, and answers in packets of kind, length, content: `A`
samples (int16, native order), `E` what went wrong, `Z` the end. When the other side closes, the child ends.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import struct
import sys

PACKET = struct.Struct("=cI")
LENGTH = struct.Struct("=I")
SAMPLE_RATE = 22_050
CHUNK_MS = 20
CPU_SECONDS = 30
"""A child that computes for longer is stuck; five thousand characters take two."""

_OUTPUT_SYNCHRONOUS = 2  # the other modes start a thread, and a process with threads must not fork
_DO_NOT_EXIT = 0x8000
_UTF8_TO_THE_END = 0x1000 | 1  # the pause at the end of a sentence belongs to it
_RATE, _VOLUME, _PITCH = 1, 2, 3
_SAMPLES_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


def load_espeak(library: str, data: str) -> ctypes.CDLL:
    """Load espeak-ng and its data."""
    # Relative, because espeak-ng keeps the path in 160 bytes.
    os.chdir(os.path.dirname(data))
    espeak = ctypes.CDLL(library)
    if espeak.espeak_Initialize(_OUTPUT_SYNCHRONOUS, CHUNK_MS, b".", _DO_NOT_EXIT) != SAMPLE_RATE:
        raise OSError("espeak-ng does not find its data")
    return espeak


def serve(control: socket.socket, espeak: ctypes.CDLL) -> None:
    """Fork a child for each sentence until the agent goes away."""
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not descriptors:
            return
        with socket.socket(fileno=descriptors[0]) as sentence:
            if os.fork() == 0:
                control.close()
                _be_the_child(sentence, espeak)


def _be_the_child(sentence: socket.socket, espeak: ctypes.CDLL) -> None:
    """Speak one sentence and exit without the parent's clean-up."""
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        with contextlib.suppress(OSError):  # the agent no longer listens
            speak(sentence, espeak)
    finally:
        os._exit(0)


def speak(sentence: socket.socket, espeak: ctypes.CDLL) -> None:
    """Read one request and answer it."""
    (length,) = LENGTH.unpack(_read(sentence, LENGTH.size))
    request = json.loads(_read(sentence, length))
    os.nice(request["nice"])
    voice = request["voice"]
    if espeak.espeak_SetVoiceByName(voice.encode()) != 0:
        _answer(sentence, b"E", f"espeak-ng has no voice '{voice}'".encode())
        return
    espeak.espeak_SetParameter(_RATE, request["rate_wpm"], 0)
    espeak.espeak_SetParameter(_PITCH, request["pitch"], 0)
    espeak.espeak_SetParameter(_VOLUME, request["volume"], 0)

    def on_samples(samples: int | None, count: int, _events: int | None) -> int:
        try:
            if samples and count:
                _answer(sentence, b"A", ctypes.string_at(samples, 2 * count))
        except OSError:
            return 1  # nobody listens: stop
        return 0

    callback = _SAMPLES_CALLBACK(on_samples)
    espeak.espeak_SetSynthCallback(callback)
    text = request["text"].encode()
    if espeak.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 1, 0, _UTF8_TO_THE_END, None, None) != 0:
        _answer(sentence, b"E", b"espeak-ng cannot speak this text")
        return
    _answer(sentence, b"Z", b"")


def _answer(sentence: socket.socket, kind: bytes, content: bytes) -> None:
    sentence.sendall(PACKET.pack(kind, len(content)) + content)


def _read(sentence: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        piece = sentence.recv(count - len(content))
        if not piece:
            raise OSError("the agent went away")
        content += piece
    return content


def main() -> None:
    """Load, say so, serve."""
    descriptor, library, data = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the agent's to handle; it closes the socket
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the system
    with socket.socket(fileno=int(descriptor)) as control:
        try:
            espeak = load_espeak(library, data)
        except OSError as error:
            _answer(control, b"E", str(error).encode())
            return
        _answer(control, b"Z", b"")
        serve(control, espeak)


if __name__ == "__main__":
    main()
