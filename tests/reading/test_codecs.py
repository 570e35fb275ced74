"""Compressed pixels: rows 14 to 20 of the catalogue, and what a child that dies, hangs or grows costs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import compress
import numpy as np
import pydicom
import pytest
from dicom_files import make_series, make_slice, slice_hu
from pydicom.uid import HTJ2K, HTJ2KLossless, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from ich_lstm.errors import FileError, IchLstmError
from ich_lstm.reading import FileRef, choose_series, index_source, load_scan, read_header, read_hu, read_scan
from ich_lstm.reading.pixels import codec_worker

for module in ("gdcm", "openjpeg", "jpeg_ls", "rle"):
    pytest.importorskip(module, reason="the extra codecs is not installed")

STREAMS = {"rle": RLELossless, "jpeg-ls": JPEGLSLossless, "jpeg-2000": JPEG2000Lossless}


def head_hu(i: int) -> np.ndarray:
    return np.rint(slice_hu((-96, -96, -20 + 5 * i)))


def series_as(folder: Path, name: str, *, signed: bool = False, bits: int = 16) -> list[Path]:
    """A series of 8 slices in a compressed syntax."""
    elements: dict[str, Any] = {"BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": int(signed)}
    intercept = 0 if signed else -1024
    if name == "jpeg-lossless":
        return [compress.jpeg_lossless(path) for path in make_series(folder, intercept=intercept, **elements)]

    def encoded(i: int) -> dict[str, Any]:
        stored = (head_hu(i) - intercept).astype(np.int16 if signed else np.uint16)
        return {"stored": compress.encode(stored, STREAMS[name], bits)}

    return make_series(folder, syntax=STREAMS[name], intercept=intercept, change=encoded, **elements)


class TestLossless:
    @pytest.mark.parametrize("bits", [12, 13, 16])
    @pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
    @pytest.mark.parametrize("name", [*STREAMS, "jpeg-lossless"])
    def test_19_equal_to_the_raw_file_bit_for_bit(self, name: str, signed: bool, bits: int, tmp_path: Path) -> None:
        series_as(tmp_path, name, signed=signed, bits=bits)
        scan = read_scan(tmp_path)
        np.testing.assert_array_equal(scan.hu, np.stack([head_hu(i) for i in range(8)]))
        assert "lossy" not in {flag.code for flag in scan.flags}

    @pytest.mark.parametrize("padding", [-2000, -3024, -8192, -32768])
    @pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
    @pytest.mark.parametrize("name", STREAMS)
    def test_29_padding_of_which_a_stream_of_12_bits_keeps_less(
        self, name: str, signed: bool, padding: int, tmp_path: Path
    ) -> None:
        """RLE keeps all 16 bits, the others cut padding off to 12."""
        intercept = 0 if signed else -1024
        corners = np.s_[[0, 0, 0, -1, -1, -1], [0, 1, -1, 0, -2, -1]]

        def own(i: int) -> dict[str, Any]:
            stored = (head_hu(i) - intercept).astype(int)
            cut = padding & 0xFFF
            stored[corners] = padding if name == "rle" else cut - 4096 * (signed and cut >= 2048)
            values = (stored & 0xFFFF).astype(np.uint16).view(np.int16 if signed else np.uint16)
            return {"stored": compress.encode(values, STREAMS[name], 12)}

        elements = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": int(signed), "PixelPaddingValue": padding & 0xFFFF}
        if signed:
            elements["PixelPaddingValue"] = padding
        make_series(tmp_path, syntax=STREAMS[name], intercept=intercept, change=own, **elements)
        expected = np.stack([head_hu(i) for i in range(8)])
        expected[:, *corners] = -1024
        np.testing.assert_array_equal(read_scan(tmp_path).hu, expected)

    def test_19_htj2k(self, tmp_path: Path) -> None:
        path = make_slice(tmp_path / "a.dcm", syntax=HTJ2KLossless, stored=compress.HTJ2K_HEAD)
        hu, repairs = read_hu(read_header(FileRef(path)))
        np.testing.assert_array_equal(hu, np.rint(slice_hu((-96, -96, 0))))
        assert not repairs

    def test_19_frame_in_several_fragments(self, tmp_path: Path) -> None:
        from pydicom.encaps import encapsulate

        stream = compress.encode((head_hu(4) + 1024).astype(np.uint16), JPEG2000Lossless)
        path = make_slice(
            tmp_path / "a.dcm", syntax=JPEG2000Lossless, PixelData=encapsulate([stream], fragments_per_frame=3), stored=stream
        )
        np.testing.assert_array_equal(read_hu(read_header(FileRef(path)))[0], head_hu(4))

    def test_19_rle_needs_no_extra(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(codec_worker, "find_spec", lambda name: None)
        frame = (head_hu(4) + 1024).astype(np.uint16)
        pixels = codec_worker._rle(compress.encode(frame, RLELossless), codec_worker.DecodeRequest(RLELossless, 32, 32, 16))
        assert pixels == frame.tobytes()

    def test_20_lossy_is_flagged(self, tmp_path: Path) -> None:
        make_series(tmp_path, syntax=HTJ2K, stored=compress.HTJ2K_HEAD)
        assert "lossy" in {flag.code for flag in read_scan(tmp_path).flags}

    def test_in_an_archive(self, tmp_path: Path) -> None:
        import zipfile

        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in series_as(tmp_path / "a", "jpeg-ls"):
                archive.write(path, path.name)
        np.testing.assert_array_equal(read_scan(tmp_path / "a.zip").hu, read_scan(tmp_path / "a").hu)


def refusal_of(folder: Path) -> IchLstmError:
    index = index_source(folder)
    with pytest.raises(IchLstmError) as refusal:
        load_scan(choose_series(index.studies()[0]).series, ledger=index.ledger)
    assert index.ledger.counts() == {"used": 0, "skipped": 0, "refused": 8}
    return refusal.value


def cut_stream(path: Path, keep: float) -> None:
    """Make the stream of a file shorter, with correct lengths around it."""
    data_set = pydicom.dcmread(path)
    stream = pydicom.encaps.get_frame(data_set.PixelData, 0)
    data_set.PixelData = pydicom.encaps.encapsulate([stream[: int(len(stream) * keep)]])
    data_set.save_as(path)


class TestDamage:
    @pytest.mark.parametrize("name", [*STREAMS, "jpeg-lossless"])
    @pytest.mark.parametrize("keep", [0.02, 0.3, 0.9, 0.99])
    def test_16_truncated_stream_is_refused(self, name: str, keep: float, tmp_path: Path) -> None:
        cut_stream(series_as(tmp_path, name)[3], keep)
        assert refusal_of(tmp_path).code in ("truncated_pixels", "decode_failed")

    @pytest.mark.parametrize("name", [*STREAMS, "jpeg-lossless"])
    def test_16_truncated_file_is_refused(self, name: str, tmp_path: Path) -> None:
        path = series_as(tmp_path, name)[3]
        path.write_bytes(path.read_bytes()[:-200])
        assert refusal_of(tmp_path).code in ("truncated_pixels", "decode_failed")

    @pytest.mark.parametrize("syntax", [JPEG2000Lossless, HTJ2KLossless, JPEGLSLossless, JPEGLosslessSV1, RLELossless])
    def test_14_raw_bytes_in_a_compressed_syntax_are_refused(self, syntax: str, tmp_path: Path) -> None:
        make_series(tmp_path, change=lambda i: {"syntax": syntax} if i == 3 else {})
        assert refusal_of(tmp_path).code == "decode_failed"

    def test_14_another_kind_of_stream_is_refused(self, tmp_path: Path) -> None:
        stream = compress.encode((head_hu(0) + 1024).astype(np.uint16), JPEGLSLossless)
        make_series(tmp_path, syntax=JPEGLosslessSV1, stored=stream)
        assert refusal_of(tmp_path).code == "decode_failed"

    def test_15_corrupt_stream_is_refused_where_it_shows(self, tmp_path: Path) -> None:
        """Of a flipped bit some decoders see nothing. Then the HU differ; but nothing else than our errors comes out."""
        rng = np.random.default_rng(15)
        refused = 0
        for name in (*STREAMS, "jpeg-lossless"):
            path = series_as(tmp_path / name, name)[3]
            sound = path.read_bytes()
            at = sound.index(b"\xe0\x7f\x10\x00") + 40
            for _ in range(25):
                damaged = bytearray(sound)
                for place in rng.integers(at, len(sound) - 12, 4):
                    damaged[place] ^= 1 << int(rng.integers(8))
                path.write_bytes(damaged)
                try:
                    read_hu(read_header(FileRef(path)))
                except FileError as error:
                    refused += error.code in ("decode_failed", "truncated_pixels", "codec_crashed")
        assert refused > 20

    @pytest.mark.parametrize("size", [(33, 32), (32, 48), (64, 64)])
    def test_stream_of_another_size_is_refused(self, size: tuple[int, int], tmp_path: Path) -> None:
        stream = compress.encode(np.zeros(size, np.uint16), JPEG2000Lossless)
        make_series(tmp_path, syntax=JPEG2000Lossless, stored=stream)
        error = refusal_of(tmp_path)
        assert f"{size[0]} x {size[1]}" in error.got
        assert error.code == "decode_failed"

    def test_13_a_syntax_without_decoder_is_named(self, tmp_path: Path) -> None:
        make_series(tmp_path, syntax="1.2.840.10008.1.2.4.51")
        error = refusal_of(tmp_path)
        assert error.code == "unknown_transfer_syntax"
        assert "JPEG Extended" in error.got

    def test_18_missing_codec_names_the_extra(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ich_lstm.reading.pixels.compressed.is_installed", lambda syntax: False)
        series_as(tmp_path, "jpeg-ls")
        error = refusal_of(tmp_path)
        assert error.code == "codec_missing"
        assert "ich_lstm[codecs]" in error.todo


FAKE = """
import os, sys, time
from ich_lstm.reading.pixels import codec_worker
def fake(stream, request):
    if stream[-1:] == b"H": time.sleep(100)
    if stream[-1:] == b"A": os.abort()
    if stream[-1:] == b"X": os._exit(3)
    if stream[-1:] == b"B": raise BaseException("a panic")
    if stream[-1:] == b"M": bytearray(1 << 40)
    if stream[-1:] == b"P": print("on standard output", flush=True); os.system("echo noise")
    return bytes(stream[:2]) * request.rows * request.columns
codec_worker.CODECS = dict.fromkeys(codec_worker.CODECS, codec_worker.Codec(fake, "os"))
codec_worker.main(sys.argv[1:])
"""
REQUEST = codec_worker.DecodeRequest(JPEG2000Lossless, 4, 4, 16)


@pytest.fixture
def bad_codec(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A decoder that does as the last byte of the stream tells it."""
    monkeypatch.setattr(codec_worker, "FRAME_SECONDS", 1)
    monkeypatch.setattr(
        codec_worker, "command", lambda seconds, memory: [sys.executable, "-P", "-c", FAKE, str(seconds), str(memory)]
    )
    codec_worker._child.stop()
    yield
    codec_worker._child.stop()


@pytest.mark.usefixtures("bad_codec")
class TestChild:
    @pytest.mark.parametrize(
        ("how", "code"),
        [
            (b"A", "codec_crashed"),
            (b"X", "codec_crashed"),
            (b"H", "codec_timeout"),
            (b"M", "decode_failed"),
            (b"B", "decode_failed"),
        ],
        ids=["17-abort", "17-exit", "17-hang", "17-memory", "17-panic"],
    )
    def test_17_a_codec_costs_one_frame(self, how: bytes, code: str) -> None:
        assert codec_worker.decode_frame(b"ab.", REQUEST) == b"ab" * 16
        started = time.monotonic()
        with pytest.raises(codec_worker.CodecError) as refusal:
            codec_worker.decode_frame(b"ab" + how, REQUEST)
        assert refusal.value.code == code
        assert time.monotonic() - started < 5
        assert codec_worker.decode_frame(b"cd.", REQUEST) == b"cd" * 16

    def test_17_abort_costs_one_file_of_a_series(self, tmp_path: Path) -> None:
        stream = compress.encode((head_hu(0) + 1024).astype(np.uint16), JPEG2000Lossless)
        stream = stream + b"\0" * (len(stream) % 2)

        make_series(
            tmp_path,
            syntax=JPEG2000Lossless,
            change=lambda i: {"stored": stream + b"\0A" if i == 3 else stream},
        )
        index = index_source(tmp_path)
        scan = load_scan(index.studies()[0].series[0], training=True, ledger=index.ledger)
        assert len(scan) == 7
        assert index.ledger.counts() == {"used": 7, "skipped": 0, "refused": 1}
        assert set(index.ledger.to_frame().code) == {"", "codec_crashed"}
        assert refusal_of(tmp_path).code == "codec_crashed"

    def test_what_a_codec_prints_does_not_disturb(self) -> None:
        assert codec_worker.decode_frame(b"abP", REQUEST) == b"ab" * 16
        assert codec_worker.decode_frame(b"cd.", REQUEST) == b"cd" * 16

    def test_a_child_that_was_killed_between_frames_is_replaced(self) -> None:
        codec_worker.decode_frame(b"ab.", REQUEST)
        process = codec_worker._child._process
        assert process is not None
        process.kill()
        process.wait()
        assert codec_worker.decode_frame(b"cd.", REQUEST) == b"cd" * 16

    def test_threads_take_turns(self) -> None:
        streams = [bytes([i, 7]) + b"." for i in range(40)]
        with ThreadPoolExecutor(4) as pool:
            frames = list(pool.map(lambda stream: codec_worker.decode_frame(stream, REQUEST), streams))
        assert frames == [stream[:2] * 16 for stream in streams]

    def test_interrupted_answer_is_not_taken_for_the_next(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read = codec_worker._read_exactly

        def interrupt(pipe: Any, length: int) -> bytes:
            raise KeyboardInterrupt

        monkeypatch.setattr(codec_worker, "_read_exactly", interrupt)
        with pytest.raises(KeyboardInterrupt):
            codec_worker.decode_frame(b"ab.", REQUEST)
        monkeypatch.setattr(codec_worker, "_read_exactly", read)
        assert codec_worker.decode_frame(b"cd.", REQUEST) == b"cd" * 16


class TestProcesses:
    def test_a_forked_process_gets_a_child_of_its_own(self, tmp_path: Path) -> None:
        header = read_header(FileRef(series_as(tmp_path, "jpeg-2000")[3]))
        expected, _ = read_hu(header)
        pid = os.fork()
        if pid == 0:
            good = False
            try:
                good = bool((read_hu(header)[0] == expected).all())
                codec_worker._child.stop()
            finally:
                os._exit(0 if good else 1)
        np.testing.assert_array_equal(read_hu(header)[0], expected)
        assert os.waitpid(pid, 0)[1] == 0
        np.testing.assert_array_equal(read_hu(header)[0], expected)

    def test_in_a_loaders_worker(self, tmp_path: Path) -> None:
        torch_data = pytest.importorskip("torch.utils.data")
        headers = [read_header(FileRef(path)) for path in series_as(tmp_path, "jpeg-2000")]

        class Slices(torch_data.Dataset):  # type: ignore[misc, name-defined]
            def __len__(self) -> int:
                return len(headers)

            def __getitem__(self, i: int) -> np.ndarray:
                return read_hu(headers[i])[0]

        read = list(torch_data.DataLoader(Slices(), batch_size=None, num_workers=2, collate_fn=None))
        for i, hu in enumerate(read):
            np.testing.assert_array_equal(np.asarray(hu), head_hu(i))

    def test_the_child_ends_with_its_parent(self, tmp_path: Path) -> None:
        path = series_as(tmp_path, "jpeg-2000")[3]
        script = (
            "import sys, time\nfrom pathlib import Path\nfrom ich_lstm.reading import FileRef, read_header, read_hu\n"
            "from ich_lstm.reading.pixels import codec_worker\n"
            "read_hu(read_header(FileRef(Path(sys.argv[1]))))\n"
            "print(codec_worker._child._process.pid, flush=True)\ntime.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            os.kill(child, 0)
            parent.send_signal(signal.SIGKILL)
        for _ in range(50):
            if not is_running(child):
                break
            time.sleep(0.1)
        assert not is_running(child)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def compressed_of_pydicom() -> list[Path]:
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    return sorted(path for path in folder.rglob("*") if path.is_file() and b"1.2.840.10008.1.2." in path.read_bytes()[:800])


def test_every_file_that_pydicom_installs_is_read_or_refused_with_a_reason(tmp_path: Path) -> None:
    """As they are, and as CT: then the pixels of MR and NM files are decoded too."""
    read = 0
    paths = compressed_of_pydicom()
    assert len(paths) > 50
    for path in paths:
        data = path.read_bytes()
        copies = [data] + [data.replace(b"CS\x02\0" + old, b"CS\x02\0CT", 1) for old in (b"MR", b"NM", b"OT", b"US")]
        for i, copy in enumerate(dict.fromkeys(copies)):
            file = tmp_path / f"{i}-{path.name}"
            file.write_bytes(copy)
            try:
                hu, _ = read_hu(read_header(FileRef(file)))
            except FileError:  # it has a code: a test of the list of reasons sees to that
                continue
            read += 1
            assert hu.dtype == np.int16
    assert read >= 10


@pytest.mark.parametrize("name", ["693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_real_jpeg_2000_as_pydicom_reads_it(name: str) -> None:
    path = Path(pydicom.__file__).parent / "data" / "test_files" / name
    data_set = pydicom.dcmread(path)
    expected = data_set.pixel_array * float(data_set.RescaleSlope) + float(data_set.RescaleIntercept)
    hu, _ = read_hu(read_header(FileRef(path)))
    np.testing.assert_array_equal(hu, np.clip(expected, -1024, 3071))
