"""Heat maps as arrays."""

import numpy as np
import pytest

from ich_lstm.labels import LABELS
from ich_lstm.views.explanation import Explanation


def make(maps: np.ndarray, box: tuple[float, float, float, float] = (0, 0, 8, 8)) -> Explanation:
    return Explanation(maps=maps, box=box, contributions=np.zeros(maps.shape[:2]), method="made up")


def test_a_cell_lies_where_its_part_of_the_box_is():
    maps = np.zeros((1, len(LABELS), 2, 2), np.float32)
    maps[0, :, 1, 0] = 1  # below, left
    heat = make(maps, box=(4, 8, 8, 8)).on_slice(0, "any", (20, 24))
    assert heat.shape == (20, 24)
    assert heat[10, 9] > 0.9  # of the box, which reaches from 4 to 12 and from 8 to 16, the cell below on the left
    assert max(heat[5, 9], heat[10, 14]) < 0.1
    assert heat[10, 7] == heat[13, 9] == 0  # outside the box


def test_centres_are_kept():
    maps = np.zeros((1, len(LABELS), 3, 3), np.float32)
    maps[0, :, 1, 1] = 1
    heat = make(maps, box=(0, 0, 9, 9)).on_slice(0, "any", (9, 9))
    assert np.unravel_index(heat.argmax(), heat.shape) == (4, 4)
    np.testing.assert_allclose(heat, heat[::-1, ::-1], atol=1e-6)


def test_labels_without_a_map_are_not_listed():
    maps = np.zeros((2, len(LABELS), 2, 2), np.float32)
    maps[:, 0] = np.nan
    assert make(maps).labels == LABELS[1:]


@pytest.mark.parametrize(
    ("maps", "said"),
    [
        (np.zeros((1, 6, 2, 2)), "expected float32"),
        (np.zeros((1, 5, 2, 2), np.float32), "expected float32"),
        (np.full((1, 6, 2, 2), -1, np.float32), "negative"),
        (np.full((1, 6, 2, 2), np.inf, np.float32), "negative or infinite"),
    ],
)
def test_what_is_no_map_is_refused(maps, said):
    with pytest.raises(ValueError, match=said):
        make(maps)
