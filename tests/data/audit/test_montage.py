"""Pictures of labelled slices that may be shared."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ich_lstm.data.audit import montage
from ich_lstm.data.audit.montage import TILES, choose_tiles, cut_out_brain
from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.data.prepared.scan_cache import CachedScan, read_cached, write_cached
from ich_lstm.labels import LABELS

SIZE = 96
MARKED = -777
"""HU of the first pixel of slices at which an error is raised."""

SUBDURAL = LABELS.index("subdural")


def make_slice(opening: int = 0, nose: int = 300) -> np.ndarray:
    """Brain of 35 HU in a ring of bone, with a nose in front; ``opening``: the width of a gap in the bone in pixels."""
    hu = np.full((SIZE, SIZE), -1000, np.int16)
    cv2.circle(hu, (48, 52), 38, 40, -1)
    cv2.rectangle(hu, (44, 4), (52, 16), nose, -1)
    cv2.circle(hu, (48, 52), 34, 1200, -1)
    cv2.circle(hu, (48, 52), 28, 35, -1)
    hu[10:26, 48 - opening // 2 : 48 + (opening + 1) // 2] = 40
    return hu


class TestCutOutBrain:
    def test_only_the_inside_and_the_bone_around_it_are_left(self) -> None:
        cut = cut_out_brain(make_slice())
        assert cut is not None
        y, x = np.nonzero(cut > -1000)
        assert np.hypot(y - 52, x - 48).max() < 35
        assert (cut[cut == 35].size, cut[52, 48]) == ((make_slice() == 35).sum(), 35)

    def test_a_suture_does_not_open_the_skull(self) -> None:
        assert cut_out_brain(make_slice(opening=1)) is not None

    def test_what_is_calcified_inside_stays(self) -> None:
        hu = make_slice()
        hu[50:54, 46:50] = 400
        cut = cut_out_brain(hu)
        assert cut is not None
        assert (cut[50:54, 46:50] == 400).all()

    @pytest.mark.parametrize(
        "hu", [make_slice(opening=24), np.full((SIZE, SIZE), 40, np.int16), np.full((SIZE, SIZE), 900, np.int16)]
    )
    def test_an_open_skull_or_none_is_not_shown(self, hu: np.ndarray) -> None:
        assert cut_out_brain(hu) is None

    def test_small_cavities_are_not_shown(self) -> None:
        hu = np.full((SIZE, SIZE), -1000, np.int16)
        cv2.circle(hu, (48, 48), 14, 1000, -1)
        cv2.circle(hu, (48, 48), 10, 40, -1)
        assert cut_out_brain(hu) is None


def make(
    folder: Path, number: int, *, positive: list[int], slices: int = 10, patient: str = "", known: bool = True
) -> LabelledScan:
    """A cached scan with subdural blood in some slices."""
    path = folder / f"{number}.b2nd"
    hu = np.stack([make_slice()] * slices)
    write_cached(path, CachedScan(hu, np.arange(slices, dtype=np.float32), tuple(map(str, range(slices))), (), ()))
    labels = np.zeros((slices, len(LABELS)), np.float32)
    labels[positive, SUBDURAL] = 1
    scan_labels = labels.max(axis=0)
    slice_labels = labels if known else np.full_like(labels, np.nan)
    return LabelledScan(
        f"{number:016x}", patient or f"P{number}", f"1.{number}", f"2.{number}", "", path, (), (), slice_labels, scan_labels
    )


class TestChooseTiles:
    def test_one_positive_slice_of_each_patient(self, tmp_path: Path) -> None:
        scans = [make(tmp_path, i, positive=[5, 6, 7], patient=f"P{i // 2}") for i in range(6)] + [make(tmp_path, 9, positive=[])]
        tiles = choose_tiles(scans, {})
        assert list(tiles) == ["subdural"]
        assert len({tile.scan_id for tile in tiles["subdural"]}) == 3
        assert {tile.slice for tile in tiles["subdural"]} == {7}  # the middle one, counted from 1
        assert tiles["subdural"][0].labels == ("subdural",)

    def test_not_more_than_fit_in_a_row(self, tmp_path: Path) -> None:
        scans = [make(tmp_path, i, positive=[6]) for i in range(TILES + 2)]
        assert len(choose_tiles(scans, {})["subdural"]) == TILES

    def test_nothing_of_the_lower_third(self, tmp_path: Path) -> None:
        assert choose_tiles([make(tmp_path, 1, positive=[0, 1, 2])], {}) == {}

    def test_nothing_with_text_in_the_pixels(self, tmp_path: Path) -> None:
        scan = make(tmp_path, 1, positive=[6])
        assert choose_tiles([scan], {"1.b2nd": "tilt burned_in"}) == {}
        assert len(choose_tiles([scan], {"1.b2nd": "tilt"})["subdural"]) == 1

    def test_a_scan_of_which_no_slice_is_known_shows_its_middle(self, tmp_path: Path) -> None:
        (tile,) = choose_tiles([make(tmp_path, 1, positive=[6], known=False)], {})["subdural"]
        assert tile.slice > 4

    def test_a_cache_that_is_gone_is_no_tile(self, tmp_path: Path) -> None:
        scan = make(tmp_path, 1, positive=[6])
        scan.cache_path.unlink()
        assert choose_tiles([scan], {}) == {}

    @pytest.mark.parametrize("error", [cv2.error("assertion"), MemoryError(), RecursionError("deep")], ids=repr)
    def test_an_error_at_one_slice_leaves_the_others(
        self, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def cut_out(hu: np.ndarray) -> np.ndarray:
            if hu[0, 0] == MARKED:
                raise error
            return hu

        scans = [make(tmp_path, i, positive=[6]) for i in range(2)]
        cached = read_cached(scans[0].cache_path)
        cached.hu[:, 0, 0] = MARKED
        write_cached(scans[0].cache_path, cached)
        monkeypatch.setattr(montage, "cut_out_brain", cut_out)
        assert [tile.scan_id for tile in choose_tiles(scans, {})["subdural"]] == [scans[1].scan_id]
        assert f"slice 7 of scan {scans[0].scan_id}" in caplog.text
