"""Heat maps as arrays."""

import numpy as np
import pytest
from fabricated import make_scan

from ich_lstm.explanation import Explanation
from ich_lstm.labels import LABELS


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


class TestPlot:
    def test_every_explained_label_has_its_hottest_map_and_its_contributions(self, make_explanation):
        explanation = make_explanation()
        axes = explanation.plot().axes
        pictures, bars = axes[:3], axes[3:]
        assert [each.get_title(loc="left") for each in pictures] == [
            "Subarachnoid\nslice 1 of 5",
            "Subdural\nslice 5 of 5",
            "Any hemorrhage\nslice 1 of 5",
        ]
        np.testing.assert_array_equal(pictures[1].images[0].get_array(), explanation.maps[4, LABELS.index("subdural")])
        heights = [bar.get_height() for bar in bars[1].patches]
        np.testing.assert_allclose(heights, explanation.contributions[:, LABELS.index("subdural")])

    def test_with_its_scan_the_maps_lie_over_its_slices(self, make_explanation):
        scan = make_scan(np.full((5, 32, 32), 30, np.int16))
        picture = make_explanation().plot(scan).axes[1]
        slice_, film = picture.images
        np.testing.assert_array_equal(slice_.get_array(), scan.hu[4])
        share = make_explanation().share_on_slice(4, "subdural", (32, 32))
        np.testing.assert_allclose(film.get_array()[..., 3], 0.55 * share, atol=1e-6)

    def test_slices_are_counted_in_whole_numbers(self, make_explanation):
        for count in (2, 5, 12, 40):
            axes = make_explanation(count).plot().axes[-1]
            ticks = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
            assert ticks
            assert all(tick == round(tick) for tick in ticks), (count, ticks)

    def test_one_label_and_one_slice_are_enough(self, make_explanation):
        maps = np.full((1, len(LABELS), 4, 4), np.nan, np.float32)
        maps[:, LABELS.index("any")] = 0
        assert len(make_explanation(1, maps=maps).plot().axes) == 2

    def test_another_scan_and_no_label_are_refused(self, make_explanation):
        with pytest.raises(ValueError, match="4 slices, the explanation 5"):
            make_explanation().plot(make_scan())
        with pytest.raises(ValueError, match="no label"):
            make(np.full((1, len(LABELS), 2, 2), np.nan, np.float32)).plot()


def test_repr_names_the_labels_and_the_method(make_explanation):
    text = repr(make_explanation())
    assert text == "Explanation of subarachnoid, subdural, any: 5 slices, maps of 4 x 4; a rule"
