"""Scans on disk."""

from pathlib import Path

import numpy as np
import pytest

from ich_lstm.data.cache import CachedScan, ScanCache, read_cached, write_cached
from ich_lstm.errors import CacheError
from ich_lstm.pixels.preprocess import Preprocessing
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

    def test_a_changed_byte_never_gives_other_pixels(self, tmp_path: Path) -> None:
        path = tmp_path / "a.b2nd"
        scan = make_cached()
        write_cached(path, scan)
        whole = path.read_bytes()
        for place in range(len(whole) // 4, 3 * len(whole) // 4, len(whole) // 40):  # where the pixels are
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
            try:
                back = read_cached(path)
            except CacheError:
                continue
            np.testing.assert_array_equal(back.hu, scan.hu)

    def test_the_error_names_the_file_and_no_path(self, tmp_path: Path) -> None:
        with pytest.raises(CacheError) as caught:
            read_cached(tmp_path / "a.b2nd")
        assert "a.b2nd" in caught.value.where


class TestScanCache:
    def test_names_tell_content_and_preprocessing_apart(self, tmp_path: Path) -> None:
        cache = ScanCache(tmp_path / "deep" / "cache", Preprocessing(size=32))
        path = cache.path("7f3a", ["1.2", "1.1"])
        assert path.parent == tmp_path / "deep" / "cache"
        assert path.parent.is_dir()
        assert cache.path("7f3a", ["1.1", "1.2"]) == path
        others = [
            cache.path("7f3b", ["1.1", "1.2"]),
            cache.path("7f3a", ["1.1"]),
            ScanCache(cache.folder, Preprocessing(size=64)).path("7f3a", ["1.1", "1.2"]),
            ScanCache(cache.folder, Preprocessing(size=32, crop="none")).path("7f3a", ["1.1", "1.2"]),
        ]
        assert len({path, *others}) == 5
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
