import base64
import zlib

import numpy as np
import pytest

from ich_lstm.labels import LABELS
from ich_lstm.pages.heat_maps import encode_heat, find_peaks

SUBDURAL = LABELS.index("subdural")


def ring(size: int = 64) -> np.ndarray:
    """A skull of 800 HU with brain in it and air around: radius 20, around the middle."""
    y, x = np.mgrid[:size, :size] + 0.5
    radius = np.hypot(y - size / 2, x - size / 2)
    return np.select([radius < 17, radius < 20], [35, 800], -1000).astype(np.int16)


class TestPeaks:
    @pytest.mark.parametrize(("cell", "outside"), [((2, 2), False), ((0, 0), True), ((3, 0), True)])
    def test_lies_in_the_middle_of_the_highest_cell(self, make_explanation, cell, outside):
        maps = make_explanation().maps.copy()
        maps[:, SUBDURAL] = 0
        maps[3, SUBDURAL, cell[0], cell[1]] = 2
        maps[1, SUBDURAL, 1, 1] = 0.5
        explanation = make_explanation(maps=maps, box=(2.0, 4.0, 60.0, 56.0))
        peaks = find_peaks(explanation, np.repeat(ring()[None], 5, 0))
        assert set(peaks) == set(explanation.labels)
        peak = peaks["subdural"][3]
        assert (peak.x, peak.y) == (4 + 14 * (cell[1] + 0.5), 2 + 15 * (cell[0] + 0.5))
        assert (peak.share, peak.is_outside) == (1, outside)
        assert peaks["subdural"][1].share == 0.25

    def test_beyond_the_slice_is_outside(self, make_explanation):
        explanation = make_explanation(box=(-200.0, -200.0, 100.0, 100.0))
        assert all(peak.is_outside for peak in find_peaks(explanation, np.repeat(ring()[None], 5, 0))["any"])


def test_stored_maps_are_the_maps(make_explanation):
    maps = np.random.default_rng(0).random((5, 6, 3, 4)).astype(np.float32) * np.arange(1, 7)[:, None, None]
    maps[:, 1] = np.nan
    maps[:, 2] = 0
    explanation = make_explanation(maps=maps.astype(np.float32))
    stored = np.frombuffer(zlib.decompress(base64.b64decode(encode_heat(explanation))), np.uint8).reshape(5, 5, 3, 4)
    for label, one in zip(explanation.labels, stored.transpose(1, 0, 2, 3), strict=True):
        wanted = maps[:, LABELS.index(label)]
        np.testing.assert_allclose(one / 255, wanted / (wanted.max() or 1), atol=0.5 / 255 + 1e-6)
        assert one.max() == (255 if wanted.any() else 0)
