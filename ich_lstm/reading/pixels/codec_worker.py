"""Decodes compressed pixels in a child process that may crash: ``python -m ich_lstm.reading.pixels.codec_worker``.

Decoders are C libraries that may abort, hang or exhaust the memory on damaged streams. A child process limits the damage to
one file: each reading process has one child, which it asks over pipes, with limits on time per frame and on memory. A child
that dies is replaced at the next frame; a child whose parent has ended reads the end of its pipe and exits. A process pool
cannot be used, because the workers of a data loader are daemonic and may not start pools.
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
"""Time limit per frame; a frame of 512 x 512 takes 1 to 15 ms."""

MEMORY_BYTES = 3 * 2**30
"""Address space of the child; a frame of 8192 x 8192 needs less than 1 GiB."""

REQUEST = struct.Struct("<4sII")  # mark, bytes of the request (JSON), bytes of the stream
REPLY = struct.Struct("<4sBI")  # mark, kind (pixels or an error), number of bytes
MARK = b"ich1"
PIXELS, ERROR = 0, 1

JPEG_ERRORS = (b"Corrupt", b"remature")
"""Messages of libjpeg (inside GDCM) about a damaged stream, for which it then returns invented values."""


class DecodeRequest(NamedTuple):
    """The properties of a frame that a decoder needs.

    Args:
        syntax: Transfer Syntax UID of the file.
        rows: Rows of the frame.
        columns: Columns of the frame.
        precision: Bits per value in the stream.
    """

    syntax: str
    rows: int
    columns: int
    precision: int


class CodecError(ValueError):
    """Raised for pixels that cannot be decoded.

    Args:
        code: Reason code of :mod:`ich_lstm.reading.ledger.reasons`.
        got: Description of what was found.
    """

    def __init__(self, code: str, got: str) -> None:
        super().__init__(code, got)
        self.code = code
        self.got = got


# Decoders, which run in the child. Each syntax has one and no fallback: another decoder might accept a damaged stream.
def _rle(stream: bytes, request: DecodeRequest) -> bytes:
    if find_spec("rle") is not None:  # a hundred times faster than pydicom's decoder in Python
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
        raise ValueError("GDCM cannot decode the stream")
    return pixels.encode("utf-8", "surrogateescape")


def _jpeg_ls(stream: bytes, request: DecodeRequest) -> bytes:
    return bytes(importlib.import_module("jpeg_ls").decode_pixel_data(stream)[0])


def _jpeg_2000(stream: bytes, request: DecodeRequest) -> bytes:
    return bytes(importlib.import_module("openjpeg").decode_pixel_data(stream, version=2))


class Codec(NamedTuple):
    """A decoder, and the module that it requires."""

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
"""Decoders by transfer syntax; each requires its module to be installed."""


def is_installed(syntax: str) -> bool:
    """Whether the module that decodes a transfer syntax of :data:`CODECS` is installed."""
    return find_spec(CODECS[syntax].module) is not None


def decode_frame(stream: bytes, request: DecodeRequest) -> bytes:
    """Decode one frame in the child of this process.

    Args:
        stream: Bytes of the encoded frame.
        request: Transfer syntax, size and precision of the frame.

    Returns:
        Little-endian values, row by row, in the number of bytes that the precision requires.

    Raises:
        CodecError: ``decode_failed``, ``codec_crashed`` or ``codec_timeout``.
    """
    return _child.ask(stream, request)


def command(seconds: int, memory: int) -> list[str]:
    """The command that starts a child. It excludes the current folder from the import path: a data set could contain a module."""
    return [sys.executable, "-P", "-m", "ich_lstm.reading.pixels.codec_worker", str(seconds), str(memory)]


class Child:
    """The child process that decodes for this process; it is started on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, stream: bytes, request: DecodeRequest) -> bytes:
        """Decode a stream, as :func:`decode_frame` describes."""
        with self._lock:
            process = self._running_process()
            assert process.stdin is not None
            assert process.stdout is not None
            encoded = json.dumps(request).encode()
            try:
                _write_all(process.stdin, REQUEST.pack(MARK, len(encoded), len(stream)) + encoded + stream)
                mark, kind, length = REPLY.unpack(_read_exactly(process.stdout, REPLY.size))
                if mark != MARK or length > max(1 << 16, 4 * request.rows * request.columns):
                    raise EOFError
                reply = _read_exactly(process.stdout, length)
            except (OSError, EOFError):
                raise self._exit_error(process) from None
            except BaseException:
                self.stop()  # a late reply must not be read as the reply to the next request
                raise
        if kind != PIXELS:
            raise CodecError("decode_failed", reply.decode(errors="replace"))
        return reply

    def _running_process(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self.stop()
            paths = [str(Path(__file__).parents[3]), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
            # One thread per child: all cores are busy with other children, and threads reserve address space.
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
        """End a child that does not reply, and return the reason."""
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
        """End the child, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            process.wait()

    def forget(self) -> None:
        """Forget the parent's child in a forked process, without ending it."""
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process.returncode = 0  # only the parent waits for its child


_child = Child()
atexit.register(lambda: _child.stop())


def _after_fork() -> None:
    global _child
    _child.forget()
    _child = Child()  # a new one with its own lock, because the parent's lock may be held


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
    """Reply to requests until their pipe is closed.

    Args:
        requests: Pipe of the requests, unbuffered.
        replies: Pipe of the replies.
        seconds: Time limit per request; it ends this process even inside C code.
    """
    messages = tempfile.TemporaryFile()  # noqa: SIM115
    os.dup2(messages.fileno(), 1)
    os.dup2(messages.fileno(), 2)
    while True:
        try:
            mark, request_size, length = REQUEST.unpack(_read_exactly(requests, REQUEST.size))
        except EOFError:
            return
        if mark != MARK:
            return
        _set_alarm(seconds)
        request = DecodeRequest(*json.loads(_read_exactly(requests, request_size)))
        stream = _read_exactly(requests, length)
        os.ftruncate(messages.fileno(), 0)
        os.lseek(messages.fileno(), 0, os.SEEK_SET)
        kind, reply = PIXELS, b""
        try:
            reply = CODECS[request.syntax].decode(stream, request)
            output = os.pread(messages.fileno(), 1 << 12, 0)
            if any(word in output for word in JPEG_ERRORS):
                raise ValueError("the stream is damaged")
        except BaseException as error:  # decoders raise many kinds; a panic in Rust is not an Exception
            kind, reply = ERROR, f"{type(error).__name__}: {error}".encode()[: 1 << 10]
        _set_alarm(0)
        try:
            _write_all(replies, REPLY.pack(MARK, kind, len(reply)) + reply)
        except OSError:
            return  # the parent has closed the pipe


def _set_alarm(seconds: int) -> None:
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def main(arguments: list[str]) -> None:
    """Run as the child: read requests from standard input, reply on standard output.

    Args:
        arguments: Seconds per frame and bytes of address space, as text.
    """
    seconds, memory = map(int, arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    limit_memory(memory)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    serve(os.fdopen(os.dup(0), "rb", buffering=0), replies, seconds)


def limit_memory(memory: int) -> None:
    """Limit the address space of this process, and disable core files."""
    try:
        import resource
    except ImportError:  # the module does not exist on Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main(sys.argv[1:])
