import base64
import dataclasses
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from ich_lstm.labels import LABELS
from ich_lstm.prediction import CalibratedProbabilities, OperatingPoint
from ich_lstm.scan import Slab


class TestChecks:
    @pytest.mark.parametrize(
        "changes",
        [
            {"slice_probabilities": np.zeros((4, 6))},
            {"slice_probabilities": np.zeros((5, 5))},
            {"slice_probabilities": np.zeros((5, 6), np.float32)},
            {"slice_probabilities": np.full((5, 6), np.nan)},
            {"slice_probabilities": np.full((5, 6), 1.01)},
            {"scan_probabilities": np.zeros((1, 6))},
            {"scan_probabilities": np.full(6, -0.1)},
            {"slice_ids": ()},
            {"positions_mm": np.zeros(4)},
            {"positions_mm": np.full(5, np.inf)},
            {"positions_mm": np.arange(5.0)[::-1]},
            {"spacing_mm": (5.0, 0.5)},
            {"hu": np.zeros((5, 8, 8))},
            {"hu": np.zeros((4, 8, 8), np.int16)},
            {"hu": np.zeros((5, 0, 8), np.int16)},
        ],
    )
    def test_refuses_what_does_not_fit(self, make_prediction, changes):
        with pytest.raises(ValueError, match="ScanPrediction"):
            make_prediction(**changes)

    def test_accepts_the_ends_of_the_range(self, make_prediction):
        assert len(make_prediction(slice_probabilities=np.zeros((5, 6)), scan_probabilities=np.ones(6))) == 5


class TestTables:
    def test_slices(self, make_prediction):
        prediction = make_prediction()
        frame = prediction.to_frame()
        assert list(frame.columns) == ["scan_id", "slice", "slice_id", "position_mm", *LABELS]
        assert frame["slice"].tolist() == [1, 2, 3, 4, 5]
        assert frame["slice_id"].tolist() == list(prediction.slice_ids)
        np.testing.assert_array_equal(frame[list(LABELS)].to_numpy(), prediction.slice_probabilities)
        np.testing.assert_array_equal(frame["position_mm"], prediction.positions_mm)

    def test_scan(self, make_prediction):
        prediction = make_prediction()
        frame = prediction.scan_frame()
        assert list(frame.columns) == ["scan_id", "patient_id", *LABELS, "flags", "status"]
        (row,) = frame.to_dict("records")
        assert (row["flags"], row["status"]) == ("tilt;gap", "ok")
        assert [row[label] for label in LABELS] == prediction.scan_probabilities.tolist()

    def test_no_flags_is_an_empty_text(self, make_prediction):
        assert make_prediction(flags=()).scan_frame()["flags"].tolist() == [""]


class TestText:
    def test_repr_tells_probability_and_where(self, make_prediction):
        lines = repr(make_prediction()).splitlines()
        assert "7f3a19c04be2d851" in lines[0]
        assert "5 slices" in lines[0]
        assert [line.split()[0] for line in lines[1:7]] == list(LABELS)
        assert "90 %" in lines[6]
        assert "slice 3 at 2.5 mm" in lines[6]
        assert "tilt, gap" in lines[7]
        assert "not for diagnosis" in lines[-1]

    def test_bars_are_as_long_as_the_probability(self, make_prediction):
        probabilities = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.0])
        lines = repr(make_prediction(scan_probabilities=probabilities)).splitlines()[1:7]
        assert [line.count("█") / 24 for line in lines] == probabilities.tolist()

    def test_one_slice(self, make_prediction):
        assert "1 slice," in repr(make_prediction(1))

    def test_notebook_table_is_escaped_and_well_formed(self, make_prediction):
        html = make_prediction(model_name="<script>x</script>")._repr_html_()
        assert "<script" not in html
        assert "not for diagnosis" in html
        opened: list[str] = []

        class Balance(HTMLParser):
            def handle_starttag(self, tag, attrs):
                if tag != "img":
                    opened.append(tag)

            def handle_endtag(self, tag):
                assert opened.pop() == tag

        Balance().feed(html)
        assert opened == []


def test_page_is_written_and_its_path_returned(make_prediction, tmp_path):
    path = make_prediction().to_html(str(tmp_path / "page.html"))
    assert path == tmp_path / "page.html"
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_import_is_light():
    heavy = {"matplotlib", "jinja2", "pandas", "torch", "cv2"}
    code = f"import sys, ich_lstm.prediction, ich_lstm.pages.plots.curves; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


class TestOperatingPoint:
    @pytest.fixture
    def chosen(self, make_prediction):
        """Thresholds of 0.3 for slices and 0.5 for the scan, but none for epidural, which is not calibrated either."""
        corrected = np.full((5, 6), 0.25)
        corrected[:, 0] = np.nan
        thresholds = [np.where(np.arange(6) == 0, np.nan, value) for value in (0.3, 0.5)]
        return make_prediction(
            operating_point=OperatingPoint("sensitivity=0.9", *thresholds, "validation patients"),
            calibrated=CalibratedProbabilities(corrected, corrected[0], "platt per label"),
        )

    def test_calls_stand_in_the_tables(self, chosen):
        slices, scan = chosen.to_frame(), chosen.scan_frame()
        further = [prefix + label for prefix in ("calibrated_", "called_") for label in LABELS]
        assert list(slices.columns) == ["scan_id", "slice", "slice_id", "position_mm", *LABELS, *further]
        assert list(scan.columns) == ["scan_id", "patient_id", *LABELS, *further, "flags", "status"]
        assert slices["called_any"].tolist() == [1, 1, 1, 1, 1]
        assert slices["called_subdural"].tolist() == [0, 0, 1, 1, 1]
        assert scan[["called_any", "called_subdural", "called_subarachnoid"]].to_numpy().tolist() == [[1, 1, 0]]
        np.testing.assert_array_equal(slices[list(LABELS)].to_numpy(), chosen.slice_probabilities)

    def test_what_there_is_not_is_an_empty_cell(self, chosen):
        for frame in (chosen.to_frame(), chosen.scan_frame()):
            header, *rows = (line.split(",") for line in frame.to_csv(index=False).splitlines())
            for row in rows:
                cells = dict(zip(header, row, strict=True))
                assert (cells["calibrated_epidural"], cells["called_epidural"]) == ("", "")
                assert cells["called_any"] in ("0", "1")

    def test_slabs_have_the_calls_of_their_slices(self, chosen):
        slabs = tuple(Slab((f"a{i}", f"b{i}"), (i, i + 0.5)) for i in range(5))
        frame = dataclasses.replace(chosen, slabs=slabs).to_frame()
        assert frame["called_subdural"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]

    def test_is_told_in_text(self, chosen):
        for text in (repr(chosen), chosen._repr_html_()):
            assert "sensitivity=0.9: called positive: subdural, any hemorrhage; no threshold for epidural" in text

    def test_positive_by_the_threshold_or_more_probable_than_not(self, chosen, make_prediction):
        probabilities = np.array([0.6, 0.4, 0.5, 0.2, 0.45, 0.9])
        assert make_prediction(scan_probabilities=probabilities).positive_labels == ("epidural", "intraventricular", "any")
        # The threshold of epidural is missing, that of the others 0.5, but one was moved to 0.4.
        point = chosen.operating_point._replace(scan_thresholds=np.array([np.nan, 0.5, 0.55, 0.5, 0.4, 0.5]))
        prediction = make_prediction(scan_probabilities=probabilities, operating_point=point)
        assert prediction.positive_labels == ("epidural", "subdural", "any")

    def test_without_one_nothing_is_called(self, make_prediction):
        prediction = make_prediction()
        assert prediction.scan_calls is prediction.slice_calls is None
        assert "called" not in repr(prediction)


class TestKeySlices:
    def test_where_any_and_the_positive_types_are_highest(self, make_prediction):
        assert make_prediction().key_slices == {2: ("any",), 4: ("subdural",)}

    def test_one_slice_for_two_labels(self, make_prediction):
        assert make_prediction(1).key_slices == {0: ("any",)}
        slices = np.full((5, 6), 0.1)
        slices[3] = 0.9
        found = make_prediction(slice_probabilities=slices, scan_probabilities=slices.max(axis=0)).key_slices
        assert found == {3: ("any", *LABELS[:-1])}

    def test_any_where_nothing_is_positive(self, make_prediction):
        assert make_prediction(scan_probabilities=np.zeros(6)).key_slices == {2: ("any",)}


class TestShownLabels:
    @pytest.mark.parametrize(
        ("probabilities", "shown"),
        [
            ([0.9, 0.1, 0.1, 0.8, 0.7, 0.9], ("subarachnoid", "subdural")),  # epidural is not explained
            ([0.9, 0.1, 0.1, 0.1, 0.1, 0.9], ("any",)),
            ([0.1, 0.1, 0.1, 0.1, 0.1, 0.1], ()),
        ],
    )
    def test_explained_positive_types(self, make_prediction, make_explanation, probabilities, shown):
        prediction = make_prediction(scan_probabilities=np.array(probabilities), explanation=make_explanation())
        assert prediction.shown_labels == shown

    def test_nothing_was_explained(self, make_prediction):
        assert make_prediction().shown_labels == ()


class TestNotebookPicture:
    def test_is_grey_without_and_coloured_with_an_explanation(self, make_prediction, make_explanation):
        plain = picture_of(make_prediction()._repr_html_())
        heated = picture_of(make_prediction(explanation=make_explanation())._repr_html_())
        assert plain.ndim == 2
        assert heated.shape == (*plain.shape, 3)
        hottest = heated[20, 20].astype(int)
        assert hottest[0] > hottest[2] + 20  # sky blue, in OpenCV's order
        np.testing.assert_array_equal(heated[2, 2], plain[2, 2])

    def test_a_slice_of_air_has_none(self, make_prediction):
        assert "<img" not in make_prediction(hu=np.full((5, 8, 8), -1024, np.int16))._repr_html_()


def picture_of(html: str) -> np.ndarray:
    import cv2

    (code,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return cv2.imdecode(np.frombuffer(base64.b64decode(code), np.uint8), cv2.IMREAD_UNCHANGED)


class TestWithExplanation:
    def test_it_is_a_new_prediction_that_shows_it(self, make_prediction, make_explanation):
        prediction, explanation = make_prediction(), make_explanation()
        explained = prediction.with_explanation(explanation)
        assert explained.explanation is explanation
        assert prediction.explanation is None
        np.testing.assert_array_equal(explained.slice_probabilities, prediction.slice_probabilities)
        assert explained.shown_labels == ("subdural",)
        assert explained.with_explanation(None).explanation is None

    def test_one_of_another_number_of_slices_is_refused(self, make_prediction, make_explanation):
        with pytest.raises(ValueError, match=": 4 slices, expected 5"):
            make_prediction().with_explanation(make_explanation(4))
