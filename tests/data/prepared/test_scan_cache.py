"""Scans on disk."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ich_lstm.data.prepared.scan_cache import CachedScan, ScanCache, encode_scan, file_checksum, read_cached, write_cached
from ich_lstm.errors import CacheError
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.reading import FileRef, SliceHeader
from ich_lstm.scan import Note


def make_cached(slices: int = 5, size: int = 24) -> CachedScan:
    random = np.random.default_rng(slices)
    return CachedScan(
        hu=random.integers(-1024, 3072, (slices, size, size)).astype(np.int16),
        positions_mm=(np.arange(slices) * np.float32(5.1) - np.float32(33.67)).astype(np.float32),
        slice_ids=tuple(f"{i:016x}" for i in range(slices)),
        flags=(Note("tilt", "gantry tilt 18.5°"),),
        repairs=(Note("padding", ""), Note("wrapped", "12 bits")),
    )


class TestRoundTrip:
    @pytest.mark.parametrize("slices", [1, 5, 600])
    def test_to_the_bit(self, tmp_path: Path, slices: int) -> None:
        scan = make_cached(slices, size=8 if slices > 100 else 24)
        write_cached(tmp_path / "a.b2nd", scan)
        back = read_cached(tmp_path / "a.b2nd")
        assert back.hu.dtype == np.int16
        assert back.positions_mm.dtype == np.float32
        np.testing.assert_array_equal(back.hu, scan.hu)
        np.testing.assert_array_equal(back.positions_mm, scan.positions_mm)
        assert (back.slice_ids, back.flags, back.repairs) == (scan.slice_ids, scan.flags, scan.repairs)

    def test_written_again_and_nothing_left_aside(self, tmp_path: Path) -> None:
        write_cached(tmp_path / "a.b2nd", make_cached(5))
        write_cached(tmp_path / "a.b2nd", make_cached(7))
        assert len(read_cached(tmp_path / "a.b2nd").hu) == 7
        assert [file.name for file in tmp_path.iterdir()] == ["a.b2nd"]

    @pytest.mark.parametrize("slices", [slice(2, 4), slice(None, None, -1), [3], [4, 0, 2], [-1, 1, 1], []])
    def test_some_slices(self, tmp_path: Path, slices: slice | list[int]) -> None:
        scan = make_cached(5)
        write_cached(tmp_path / "a.b2nd", scan)
        part = read_cached(tmp_path / "a.b2nd", slices)
        np.testing.assert_array_equal(part.hu, scan.hu[slices])
        np.testing.assert_array_equal(part.positions_mm, scan.positions_mm[slices])
        assert list(part.slice_ids) == np.array(scan.slice_ids, object)[slices].tolist()
        assert part.hu.dtype == np.int16

    def test_the_same_scan_is_the_same_file(self, tmp_path: Path) -> None:
        assert encode_scan(make_cached()) == encode_scan(make_cached())

    def test_the_network_may_write_into_what_was_read(self, tmp_path: Path) -> None:
        write_cached(tmp_path / "a.b2nd", make_cached())
        read_cached(tmp_path / "a.b2nd").hu[:] = 0
        assert read_cached(tmp_path / "a.b2nd").hu.any()

    def test_head_ct_is_compressed(self, tmp_path: Path, heads) -> None:
        scan = make_cached(12, 64)._replace(hu=np.maximum(heads[0].hu, -1024))
        write_cached(tmp_path / "a.b2nd", scan)
        assert (tmp_path / "a.b2nd").stat().st_size < 0.8 * scan.hu.nbytes


class TestDamage:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(CacheError):
            read_cached(tmp_path / "a.b2nd")

    @pytest.mark.parametrize("content", [b"", b"nonsense", b"\0" * 5000, bytes(range(256)) * 40])
    def test_something_else(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.b2nd").write_bytes(content)
        with pytest.raises(CacheError):
            read_cached(tmp_path / "a.b2nd")

    @pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
    def test_cut_short(self, tmp_path: Path, share: float) -> None:
        path = tmp_path / "a.b2nd"
        write_cached(path, make_cached())
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(CacheError):
            read_cached(path)

    def test_a_changed_byte_never_gives_another_scan(self, tmp_path: Path) -> None:
        path = tmp_path / "a.b2nd"
        scan = make_cached()
        write_cached(path, scan)
        whole, checksum = path.read_bytes(), file_checksum(path)
        caught = 0
        for place in range(0, len(whole), len(whole) // 200):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
            assert file_checksum(path) != checksum
            try:
                back = read_cached(path)
            except CacheError:
                caught += 1
                continue
            np.testing.assert_array_equal(back.hu, scan.hu)
            np.testing.assert_array_equal(back.positions_mm, scan.positions_mm)
            assert back[2:] == scan[2:]
        assert caught > 100

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # numpy's, of what the damaged header names as a type
    def test_no_changed_bit_of_the_header_loses_a_slice_or_fills_the_memory(self, tmp_path: Path) -> None:
        path = tmp_path / "a.b2nd"
        scan = make_cached()
        write_cached(path, scan)
        whole = path.read_bytes()
        for bit in range(8 * 300):
            place = bit // 8
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit % 8]) + whole[place + 1 :])
            with suppress(CacheError):
                np.testing.assert_array_equal(read_cached(path).hu, scan.hu)

    def test_slices_beside_a_damaged_one_can_be_read(self, tmp_path: Path) -> None:
        path = tmp_path / "a.b2nd"
        write_cached(path, make_cached())
        whole = path.read_bytes()
        path.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])  # in one of the five
        good = []
        for i in range(5):
            with suppress(CacheError):
                good.append(len(read_cached(path, [i]).hu))
        assert len(good) == 4

    def test_the_error_names_the_file_and_the_command_and_no_path(self, tmp_path: Path) -> None:
        with pytest.raises(CacheError) as caught:
            read_cached(tmp_path / "a.b2nd")
        assert caught.value.where == "a.b2nd"
        assert "ich-prepare" in caught.value.todo


class TestScanCache:
    def test_names_tell_content_and_preprocessing_apart(self, tmp_path: Path) -> None:
        one, two = (SliceHeader(source=FileRef(tmp_path / uid), sop_uid=uid, slope=1.0) for uid in ("1.1", "1.2"))
        cache = ScanCache(tmp_path / "deep" / "cache", Preprocessing(size=32))
        path = cache.path("7f3a", [two, one])
        assert path.parent == tmp_path / "deep" / "cache"
        assert path.parent.is_dir()
        assert cache.path("7f3a", [one, replace(two, source=FileRef(Path("moved")))]) == path
        settings = [Preprocessing(size=64), Preprocessing(size=32, crop="none"), Preprocessing(size=32, clip=(-250, 450))]
        others = [
            cache.path("7f3b", [one, two]),
            cache.path("7f3a", [one]),
            cache.path("7f3a", [one, replace(two, slope=2.0)]),
            *(ScanCache(cache.folder, setting).path("7f3a", [one, two]) for setting in settings),
        ]
        assert len({path, *others}) == 7
        assert "1.1" not in path.name


def test_no_identity_in_a_prepared_cache(prepared, heads) -> None:
    identities = {uid for head in heads for uid in (*head.sop_uids, head.series_uid, head.study_uid, head.patient_id)}
    files = list((prepared.folder / "cache").iterdir())
    assert len(files) == len(heads)
    for file in files:
        content = file.name.encode() + file.read_bytes()
        assert not [uid for uid in identities if uid.encode() in content]
        assert prepared.folder.name.encode() not in content
    assert not [uid for uid in identities if uid in (prepared.folder / "manifest.json").read_text()]
