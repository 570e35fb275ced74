"""Stored features: what is read is what was written, and nothing that is damaged or of another source is used."""

import logging
import os
import pickle
import stat
from pathlib import Path

import numpy as np
import pytest

from ich_lstm.data.features import feature_store
from ich_lstm.data.features.feature_store import FeatureStore, StoredView
from ich_lstm.errors import CacheError, StorageError, TrainingError
from ich_lstm.privacy import private_folder

SOURCE = {"weights": "0123456789ab", "precision": "32-true"}
WIDTH = 5


def features_of(number: int, slices: int = 4) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(number)
    return random.normal(size=(slices, WIDTH)).astype(np.float16), random.normal(size=slices).astype(np.float32)


def fill(store: FeatureStore, numbers: list[int]) -> None:
    with store.writer() as writer:
        for number in numbers:
            writer.add(StoredView(f"scan {number}"), *features_of(number, 3 + number), shown=str(number))


def check_holds(store: FeatureStore, numbers: list[int]) -> None:
    for number in numbers:
        features, positions = features_of(number, 3 + number)
        stored = store.read(StoredView(f"scan {number}"))
        assert stored.features.dtype == np.float16
        assert (stored.features == features).all()
        assert (stored.positions_mm == positions).all()


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.open(tmp_path, WIDTH, SOURCE)


class TestReading:
    def test_gives_what_was_written(self, store: FeatureStore, tmp_path: Path) -> None:
        assert StoredView("scan 0") not in store
        fill(store, [0, 1])
        fill(store, [2])  # by another process, or after a kill
        store.read_index()
        check_holds(store, [0, 1, 2])
        check_holds(FeatureStore.open(tmp_path, WIDTH, SOURCE), [0, 1, 2])
        check_holds(pickle.loads(pickle.dumps(store)), [0, 1, 2])  # as a loader process gets it

    def test_some_slices_in_their_order(self, store: FeatureStore) -> None:
        fill(store, [3])
        store.read_index()
        features, positions = features_of(3, 6)
        stored = store.read(StoredView("scan 3"), [4, 1])
        assert (stored.features == features[[4, 1]]).all()
        assert (stored.positions_mm == positions[[4, 1]]).all()

    def test_a_scan_that_is_not_stored_is_named(self, store: FeatureStore) -> None:
        with pytest.raises(CacheError, match="no features of scan 7, copy 2") as error:
            store.read(StoredView("scan 7", 2))
        assert error.value.code == "features_missing"

    def test_memory_holds_only_what_is_read(self, store: FeatureStore) -> None:
        fill(store, [1])
        store.read_index()
        assert store.read(StoredView("scan 1")).features.base is None  # no view of the file
        assert len(pickle.dumps(store)) < 1000


class TestDamage:
    @pytest.mark.parametrize("how", ["a flipped bit", "a cut shard", "no shard", "an empty shard", "a damaged row", "a cut row"])
    def test_what_is_damaged_is_stored_anew(
        self, store: FeatureStore, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        fill(store, [0, 1])
        (shard,) = store.folder.glob("*.features")
        index, content = shard.with_suffix(".csv"), bytearray(shard.read_bytes())
        if how == "a flipped bit":
            content[-3] ^= 1
        if how in ("a flipped bit", "a cut shard", "an empty shard"):
            shard.write_bytes(b"" if how == "an empty shard" else content[:-1] if how == "a cut shard" else content)
        if how == "no shard":
            shard.unlink()
        if how == "a damaged row":
            index.write_text(index.read_text().replace("scan 1,0,", "scan 1,0,1x"))
        if how == "a cut row":
            index.write_text(index.read_text().rstrip())
        with caplog.at_level(logging.WARNING, logger="ich_lstm"):
            opened = FeatureStore.open(tmp_path, WIDTH, SOURCE)
        assert StoredView("scan 1") not in opened
        whole = how not in ("no shard", "an empty shard")
        assert (StoredView("scan 0") in opened) == whole
        if "row" not in how:
            assert f"of {1 if whole else 2} of 2 scans" in caplog.text
        caplog.clear()
        for _ in range(3):  # whatever the names of the shards
            fill(opened, [1] if whole else [0, 1])
        opened.read_index()
        check_holds(opened, [0, 1])
        check_holds(FeatureStore.open(tmp_path, WIDTH, SOURCE), [0, 1])
        assert not caplog.records

    def test_a_kill_between_values_and_row_loses_only_that_scan(self, store: FeatureStore, tmp_path: Path) -> None:
        fill(store, [0])
        (shard,) = store.folder.glob("*.features")
        shard.write_bytes(shard.read_bytes() + b"half of a scan")
        check_holds(FeatureStore.open(tmp_path, WIDTH, SOURCE), [0])


class TestSource:
    @pytest.mark.parametrize("change", [{"weights": "another"}, {"precision": "bf16-mixed"}, {"seed": 1}])
    def test_another_source_has_another_folder(self, store: FeatureStore, tmp_path: Path, change: dict[str, object]) -> None:
        fill(store, [0])
        other = FeatureStore.open(tmp_path, WIDTH, SOURCE | change)
        assert other.folder != store.folder
        assert StoredView("scan 0") not in other

    def test_a_folder_of_another_source_is_refused(self, store: FeatureStore, tmp_path: Path) -> None:
        fill(store, [0])
        other = FeatureStore.open(tmp_path, WIDTH, SOURCE | {"weights": "another"})
        (store.folder / "manifest.json").replace(other.folder / "manifest.json")
        with pytest.raises(CacheError, match="weights 0123456789ab, expected features of weights another") as error:
            FeatureStore.open(tmp_path, WIDTH, SOURCE | {"weights": "another"})
        assert error.value.code == "other_features"

    @pytest.mark.parametrize("content", ["", "{", "[]"])
    def test_an_unreadable_manifest_is_refused(self, store: FeatureStore, tmp_path: Path, content: str) -> None:
        (store.folder / "manifest.json").write_text(content)
        with pytest.raises(CacheError, match="other_features"):
            FeatureStore.open(tmp_path, WIDTH, SOURCE)


class TestWriting:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 7e4, -7e4])
    def test_what_float16_cannot_hold_is_refused(self, store: FeatureStore, value: float) -> None:
        features, positions = features_of(0)
        wrong = features.astype(np.float32)
        wrong[2, 1] = value
        with store.writer() as writer, pytest.raises(TrainingError, match=r"features_not_stored.*scan id-0") as error:
            writer.add(StoredView("scan 0"), wrong, positions, shown="id-0")
        assert error.value.code == "features_not_stored"
        store.read_index()
        assert StoredView("scan 0") not in store

    def test_the_room_is_checked(self, store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
        status = os.statvfs(store.folder)
        small = os.statvfs_result([status.f_bsize, 1, 0, 0, 0, *tuple(status)[5:]])
        monkeypatch.setattr(feature_store.os, "statvfs", lambda folder: small)
        with pytest.raises(StorageError, match=r"disk_full.*13.7 KiB for the features of 1,000 slices.*features=computed"):
            store.check_room(1000)

    def test_a_full_disk_is_named(self, store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(StorageError, match=r"disk_full.*stored before are whole"), store.writer():
            raise OSError(28, "No space left on device")

    def test_below_a_private_folder_all_is_private(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            store = FeatureStore.open(private_folder(tmp_path) / "features", WIDTH, SOURCE)
            fill(store, [0])
        finally:
            os.umask(before)
        assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in store.folder.iterdir()} == {0o600}
