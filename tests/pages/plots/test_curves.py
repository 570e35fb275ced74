import numpy as np
import pandas as pd
import pytest

from ich_lstm.labels import LABELS
from ich_lstm.pages.plots import curves


def texts(axes):
    return [text.get_text() for text in axes.texts]


class TestHistory:
    def test_means_per_epoch_and_gaps(self):
        frame = pd.DataFrame(
            {
                "epoch": [0, 0, 0, 1, 1],
                "train/loss": [4.0, 2.0, np.nan, 1.0, np.nan],
                "val/loss": [np.nan, np.nan, 0.5, np.nan, 0.4],
                "val/auroc_any": [np.nan, np.nan, 0.7, np.nan, 0.9],
            }
        )
        losses, auroc = curves.plot_history(frame).axes
        assert [line.get_ydata().tolist() for line in losses.lines] == [[3, 1], [0.5, 0.4]]
        assert auroc.lines[0].get_ydata().tolist() == [0.7, 0.9]

    def test_stages_that_count_anew_lie_end_to_end(self):
        frame = pd.DataFrame({"epoch": [0, 1, 0, 1], "val/loss": [4.0, 3.0, 2.0, 1.0]})
        (axes,) = curves.plot_history(frame).axes
        assert axes.lines[0].get_xydata().tolist() == [[0, 4], [1, 3], [2, 2], [3, 1]]

    def test_the_legend_lies_over_no_curve(self):
        frame = pd.DataFrame({"epoch": [0, 1], "train/loss": [1.0, 1.0], "val/loss": [0.9, 0.1], "val/encoder_loss": [0.2, 0.9]})
        figure = curves.plot_history(frame)
        figure.draw_without_rendering()
        (axes,) = figure.axes
        legend_box = axes.get_legend().get_window_extent()
        assert axes.get_window_extent().y1 <= legend_box.y0
        assert legend_box.y1 <= axes._left_title.get_window_extent().y0
        assert legend_box.x1 <= figure.bbox.x1

    def test_nothing_logged(self):
        assert curves.plot_history(pd.DataFrame({"epoch": [0]})).axes[0].lines[:] == []


class TestScan:
    @pytest.mark.parametrize("count", [1, 5])
    def test_six_curves_and_the_most_suspicious_slice(self, make_prediction, count):
        prediction = make_prediction(count)
        curve, picture = prediction.plot().axes
        np.testing.assert_array_equal([line.get_ydata() for line in curve.lines[: len(LABELS)]], prediction.slice_probabilities.T)
        np.testing.assert_array_equal(picture.images[0].get_array(), prediction.hu[count // 2])
        assert picture.images[0].get_clim() == (0, 80)

    def test_heat_maps_of_positive_types(self, make_prediction, make_explanation):
        _, picture = make_prediction(explanation=make_explanation()).plot().axes
        _, film = picture.images
        share = make_explanation().share_on_slice(2, "subdural", (32, 32))
        np.testing.assert_allclose(film.get_array()[..., 3], 0.55 * share, atol=1e-6)
        assert "SDH" in texts(picture)

    def test_the_legend_lies_between_curves_and_picture(self, make_prediction):
        figure = make_prediction().plot()
        figure.draw_without_rendering()
        curve, picture = figure.axes
        box = curve.get_legend().get_window_extent()
        assert curve.get_window_extent().x1 <= box.x0
        assert box.x1 <= picture.get_window_extent().x0

    def test_a_slice_of_air_is_said_to_be_not_shown(self, make_prediction):
        _, picture = make_prediction(hu=np.full((5, 8, 8), -1024, np.int16)).plot().axes
        assert "not shown" in texts(picture)

    def test_a_dollar_in_a_name_is_a_dollar(self, make_prediction, tmp_path):
        curves.save_figure(make_prediction(model_name="a$b^$", scan_id="$_{$").plot(), tmp_path / "scan.png")


def test_saved_picture_holds_no_metadata(make_prediction, tmp_path):
    path = curves.save_figure(make_prediction().plot(), tmp_path / "secret-folder-name.png")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    kinds, position = [], 8
    while position < len(content):
        size = int.from_bytes(content[position : position + 4])
        kinds.append(content[position + 4 : position + 8])
        position += size + 12
    assert set(kinds) <= {b"IHDR", b"pHYs", b"IDAT", b"IEND"}


class TestNotebook:
    def test_every_figure_has_a_picture_of_its_own(self, make_prediction, make_explanation):
        history = curves.plot_history(pd.DataFrame({"epoch": [0, 1], "val/loss": [0.9, 0.1]}))
        figures = [make_prediction().plot(), make_explanation().plot(), history]
        for figure in figures:
            assert figure._repr_png_().startswith(b"\x89PNG")


def test_no_global_state(make_prediction, tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    curves.save_figure(make_prediction().plot(), tmp_path / "scan.png")
    assert dict(matplotlib.rcParams) == before
