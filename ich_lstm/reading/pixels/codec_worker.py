"""Decodes compressed pixels in a child process that may crash: ``python -m ich_lstm.reading.pixels.codec_worker``.

Decoders are C libraries that abort, hang or take all memory on damaged streams. Here that costs one file: each process that
reads has one child, asked over pipes, with a limit on the time of a frame and on its memory. A child that dies is replaced at
the next frame, and one whose parent is gone reads the end of its pipe and ends. A plain subprocess, no pool: the workers of a
data loader are daemonic, and may not have pools.
"""

import atexit
import importlib
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import IO, NamedTuple

FRAME_SECONDS = 10
"""A frame of 512 x 512 takes 1 to 15 ms."""

MEMORY_BYTES = 3 * 2**30
"""Address space of the child; a frame of 8192 x 8192 takes less than 1 GiB."""

REQUEST = struct.Struct("<4sII")  # mark, bytes of the request (JSON), bytes of the stream
REPLY = struct.Struct("<4sBI")  # mark, whether it is pixels or a complaint, bytes
MARK = b"ich1"
PIXELS, ERROR = 0, 1

JPEG_COMPLAINTS = (b"Corrupt", b"remature")
"""What libjpeg, inside GDCM, prints of a damaged stream before it goes on with made-up values."""


class DecodeRequest(NamedTuple):
    """What a decoder needs to know of a stream.

    Args:
        syntax: Transfer Syntax UID.
        rows: Rows of the frame.
        columns: Columns of the frame.
        precision: Bits per value in the stream.
    """

    syntax: str
    rows: int
    columns: int
    precision: int


class CodecError(ValueError):
    """Pixels that no decoder gives out.

    Args:
        code: Stable reason, as in :mod:`ich_lstm.reading.ledger.reasons`.
        got: What happened.
    """

    def __init__(self, code: str, got: str) -> None:
        super().__init__(code, got)
        self.code = code
        self.got = got


# In the child: one decoder per syntax, and no other when it fails. A second one would return something of a damaged stream.
def _rle(stream: bytes, request: DecodeRequest) -> bytes:
    if find_spec("rle") is not None:  # a hundred times faster than pydicom's own, in Python
        decode_frame = importlib.import_module("rle.rle").decode_frame
        return bytes(decode_frame(stream, request.rows * request.columns, 16, "<"))
    rle = importlib.import_module("pydicom.pixels.decoders.rle")
    return bytes(rle._rle_decode_frame(stream, request.rows, request.columns, 1, 16))


def _jpeg_lossless(stream: bytes, request: DecodeRequest) -> bytes:
    gdcm = importlib.import_module("gdcm")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((request.columns, request.rows, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation
    image.SetPhotometricInterpretation(grey(grey.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(request.syntax)))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, request.precision, request.precision - 1, 0))
    pixels = image.GetBuffer()
    if pixels is None:
        raise ValueError("GDCM cannot decode it")
    return pixels.encode("utf-8", "surrogateescape")


def _jpeg_ls(stream: bytes, request: DecodeRequest) -> bytes:
    return bytes(importlib.import_module("jpeg_ls").decode_pixel_data(stream)[0])


def _jpeg_2000(stream: bytes, request: DecodeRequest) -> bytes:
    return bytes(importlib.import_module("openjpeg").decode_pixel_data(stream, version=2))


class Codec(NamedTuple):
    """A decoder, and the module it needs."""

    decode: Callable[[bytes, DecodeRequest], bytes]
    module: str


RLE = "1.2.840.10008.1.2.5"
JPEG_LOSSLESS, JPEG_LS, JPEG_2000 = (
    frozenset(f"1.2.840.10008.1.2.4.{end}" for end in ends)
    for ends in ((57, 70), (80, 81), (90, 91, 201, 202, 203))  # the last three are HTJ2K
)
CODECS: dict[str, Codec] = {
    RLE: Codec(_rle, "pydicom"),
    **dict.fromkeys(JPEG_LOSSLESS, Codec(_jpeg_lossless, "gdcm")),
    **dict.fromkeys(JPEG_LS, Codec(_jpeg_ls, "jpeg_ls")),
    **dict.fromkeys(JPEG_2000, Codec(_jpeg_2000, "openjpeg")),
}
"""Transfer syntaxes that can be decoded, if the module is installed."""


def is_installed(syntax: str) -> bool:
    """Whether the module that decodes a syntax of :data:`CODECS` is there."""
    return find_spec(CODECS[syntax].module) is not None


def decode_frame(stream: bytes, request: DecodeRequest) -> bytes:
    """Decode one frame in this process's child.

    Args:
        stream: The encoded frame.
        request: Transfer syntax, size and precision of the frame.

    Returns:
        Little-endian values, row by row, of as many bytes as the precision asks for.

    Raises:
        CodecError: ``decode_failed``, ``codec_crashed`` or ``codec_timeout``.
    """
    return _child.ask(stream, request)


def command(seconds: int, memory: int) -> list[str]:
    """How a child is started: without the current folder on its path, where a data set could lay a module."""
    return [sys.executable, "-P", "-m", "ich_lstm.reading.pixels.codec_worker", str(seconds), str(memory)]


class Child:
    """The process that decodes for this one; started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, stream: bytes, request: DecodeRequest) -> bytes:
        """The pixels of a stream; see :func:`decode_frame`."""
        with self._lock:
            process = self._living()
            assert process.stdin is not None
            assert process.stdout is not None
            words = json.dumps(request).encode()
            try:
                _write_all(process.stdin, REQUEST.pack(MARK, len(words), len(stream)) + words + stream)
                mark, kind, length = REPLY.unpack(_read_exactly(process.stdout, REPLY.size))
                if mark != MARK or length > max(1 << 16, 4 * request.rows * request.columns):
                    raise EOFError
                reply = _read_exactly(process.stdout, length)
            except (OSError, EOFError):
                raise self._exit_error(process) from None
            except BaseException:
                self.stop()  # its answer would be taken for the next one's
                raise
        if kind != PIXELS:
            raise CodecError("decode_failed", reply.decode(errors="replace"))
        return reply

    def _living(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self.stop()
            paths = [str(Path(__file__).parents[3]), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
            # One thread each: the cores are busy with other children, and threads reserve address space.
            single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            self._process = subprocess.Popen(
                command(FRAME_SECONDS, MEMORY_BYTES),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **single, "PYTHONPATH": os.pathsep.join(paths)},
            )
        return self._process

    def _exit_error(self, process: "subprocess.Popen[bytes]") -> CodecError:
        """Why a child fell silent. It is gone afterwards."""
        try:
            status = process.wait(1)
        except subprocess.TimeoutExpired:
            status = 0
        self.stop()
        if hasattr(signal, "SIGALRM") and status == -signal.SIGALRM:
            return CodecError("codec_timeout", f"the decoder did not end within {FRAME_SECONDS} s")
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        return CodecError("codec_crashed", f"the decoder crashed ({how})")

    def stop(self) -> None:
        """End the child, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            process.wait()

    def forget(self) -> None:
        """In a forked process: let go of the parent's child, without ending it."""
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process.returncode = 0  # it is not ours to wait for


_child = Child()
atexit.register(lambda: _child.stop())


def _after_fork() -> None:
    global _child
    _child.forget()
    _child = Child()  # with a lock of its own: the parent's may be held


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _write_all(pipe: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[pipe.write(view) :]


def _read_exactly(pipe: IO[bytes], length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = pipe.read(length - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def serve(requests: IO[bytes], replies: IO[bytes], seconds: int) -> None:
    """Answer requests until their pipe ends.

    Args:
        requests: Where they come from, unbuffered.
        replies: Where the answers go.
        seconds: Time limit of each; this process is killed by it, whatever C code it is in.
    """
    noise = tempfile.TemporaryFile()  # noqa: SIM115
    os.dup2(noise.fileno(), 1)
    os.dup2(noise.fileno(), 2)
    while True:
        try:
            mark, words, length = REQUEST.unpack(_read_exactly(requests, REQUEST.size))
        except EOFError:
            return
        if mark != MARK:
            return
        _set_alarm(seconds)
        request = DecodeRequest(*json.loads(_read_exactly(requests, words)))
        stream = _read_exactly(requests, length)
        os.ftruncate(noise.fileno(), 0)
        os.lseek(noise.fileno(), 0, os.SEEK_SET)
        kind, reply = PIXELS, b""
        try:
            reply = CODECS[request.syntax].decode(stream, request)
            said = os.pread(noise.fileno(), 1 << 12, 0)
            if any(word in said for word in JPEG_COMPLAINTS):
                raise ValueError("the stream is damaged")
        except BaseException as error:  # every decoder has its own kinds; a panic of one in Rust is no Exception
            kind, reply = ERROR, f"{type(error).__name__}: {error}".encode()[: 1 << 10]
        _set_alarm(0)
        try:
            _write_all(replies, REPLY.pack(MARK, kind, len(reply)) + reply)
        except OSError:
            return  # nobody listens any more


def _set_alarm(seconds: int) -> None:
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def main(arguments: list[str]) -> None:
    """Be the child: read requests from standard input, answer on standard output.

    Args:
        arguments: Seconds per frame, bytes of address space.
    """
    seconds, memory = map(int, arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the parent's to answer
    limit_memory(memory)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    serve(os.fdopen(os.dup(0), "rb", buffering=0), replies, seconds)


def limit_memory(memory: int) -> None:
    """Bound this process's address space, and let it leave no core files."""
    try:
        import resource
    except ImportError:  # no such thing on Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main(sys.argv[1:])
