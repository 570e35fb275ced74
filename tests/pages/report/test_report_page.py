"""The pieces of an evaluation's page, from plain values."""

from typing import Any, ClassVar

import pytest

from ich_lstm.labels import LABELS
from ich_lstm.pages.report.figures import confusion_cells, figure_cell, number
from ich_lstm.pages.report.panels import LEFT, SIDE, TOP, calibration_panels, precision_recall_panels, roc_panels
from ich_lstm.pages.report.sections import INTERVAL_ELSEWHERE, comparison_sections, forest_rows, reader_points

CORNERS = {"bottom left": (LEFT, TOP + SIDE), "top left": (LEFT, TOP), "top right": (LEFT + SIDE, TOP)}


def make_row(**changes: Any) -> dict[str, Any]:
    row = {"label": "any", "metric": "auroc", "prevalence": None, "value": 0.9, "low": 0.8, "high": 0.95}
    return row | {"cases": 40, "positives": 12, "patients": 30, "note": "", "method": "patient bootstrap"} | changes


def make_view(curve: dict[str, list], rows: list[dict[str, Any]] = ()) -> dict[str, Any]:
    bins = {"x": [0.1, 0.9], "value": [0.0, None], "low": [0.0, None], "high": [0.2, None], "cases": [36, 4]}
    curves = {**dict.fromkeys(("roc", "precision_recall", "smoothed"), curve), "reliability": bins, "note": ""}
    return {"figures": list(rows), "curves": dict.fromkeys(LABELS, curves)}


def points(text: str) -> list[tuple[float, ...]]:
    return [tuple(map(float, pair.split(","))) for pair in text.split()]


@pytest.mark.parametrize(("value", "text"), [(0.12345, "0.123"), (-0.5, "\u22120.500"), (-0.0001, "0.000"), (12, "12.000")])
def test_numbers_have_a_true_minus_and_no_negative_zero(value: float, text: str) -> None:
    assert number(value, 3) == text


class TestCells:
    def test_show_value_and_interval(self) -> None:
        cell = figure_cell(make_row())
        assert (cell.value, cell.interval) == ("0.900", "0.800 to 0.950")

    def test_of_losses_have_four_digits(self) -> None:
        assert figure_cell(make_row(metric="log_loss")).value == "0.9000"

    def test_without_interval_say_so(self) -> None:
        assert figure_cell(make_row(low=None, high=None, note="one patient")).interval == "no interval"

    def test_that_are_undefined_keep_their_reason(self) -> None:
        cell = figure_cell(make_row(value=None, low=None, high=None, note="no positive case"))
        assert (cell.value, cell.interval, cell.note) == ("undefined", "", "no positive case")

    def test_of_a_confusion_matrix_are_shares_of_the_truth(self) -> None:
        counts = {"true_positive": 3, "false_negative": 1, "false_positive": 0, "true_negative": 0}
        matrix = confusion_cells({"label": "any", "threshold": 0.5, **counts})
        assert [(name, share) for name, _, share, _ in matrix["cells"]] == [
            ("true_positive", 0.75),
            ("false_negative", 0.25),
            ("false_positive", None),
            ("true_negative", None),
        ]


PERFECT = {"x": [0.0, 1.0], "value": [1.0, 1.0], "low": [0.9, 1.0], "high": [1.0, 1.0]}


class TestPanels:
    def test_a_perfect_curve_goes_through_three_corners(self) -> None:
        panel = roc_panels(make_view(PERFECT), {})[0]
        assert points(panel.line) == list(CORNERS.values())

    def test_the_band_goes_there_and_back(self) -> None:
        band = points(roc_panels(make_view(PERFECT), {})[0].band)
        assert len(band) == 4
        assert band[0] == pytest.approx((LEFT, TOP + 0.1 * SIDE), abs=0.06)

    def test_the_operating_point_lies_at_its_sensitivity_and_specificity(self) -> None:
        rows = [make_row(metric="sensitivity", value=0.75), make_row(metric="specificity", value=0.75)]
        panels = {panel.label: panel for panel in roc_panels(make_view(PERFECT, rows), {"any": [("Ann", 1.0, 1.0)]})}
        reader, point = panels["any"].marks
        assert (point.x, point.y) == (LEFT + SIDE / 4, TOP + SIDE / 4)
        assert (reader.x, reader.y) == CORNERS["top left"]
        assert panels["subdural"].marks == []

    def test_bins_without_a_share_have_no_dot_but_their_cases(self) -> None:
        panel = calibration_panels(make_view(PERFECT))[0]
        assert len(panel.marks) == 1
        heights = [bar[3] for bar in panel.bars]
        assert heights[1] == pytest.approx(heights[0] / 3, abs=0.02)  # square roots of 36 and 4

    def test_undefined_points_are_left_out(self) -> None:
        curve = {"x": [0.0, 0.5, 1.0], "value": [0.0, None, 1.0], "low": [None, None, 0.9], "high": [None, None, 1.0]}
        panel = roc_panels(make_view(curve), {})[0]
        assert len(points(panel.line)) == 3  # with the origin
        assert len(points(panel.band)) == 2


class TestComparisons:
    def rows(self) -> list[dict[str, Any]]:
        about = {"model": "sequence", "other": "encoder", "level": "slice", "aggregation": "none", "prevalence": None}
        numbers = {"label": "any", "first": 0.9, "second": 0.8, "difference": 0.1, "cases": 9, "positives": 3, "note": ""}
        bootstrap = about | numbers | {"low": 0.05, "high": 0.15, "p_value": 0.01, "method": "patient bootstrap"}
        test = about | numbers | {"low": None, "high": None, "p_value": 0.00001, "method": "McNemar"}
        return [bootstrap | {"metric": "sensitivity"}, test | {"metric": "sensitivity"}]

    def test_a_test_without_an_interval_borrows_that_of_the_bootstrap(self) -> None:
        (section,) = comparison_sections(self.rows())
        (row,) = section["rows"]
        assert row["interval"] == "0.050 to 0.150"
        assert row["p"].endswith("0.001")
        assert "McNemar" in row["method"]
        assert "bootstrap" in row["method"]

    def test_a_row_with_its_interval_does_not_point_to_another_row(self) -> None:
        bootstrap, test = self.rows()
        for note, shown in ((INTERVAL_ELSEWHERE, ""), ("3 cases left out", "3 cases left out")):
            (section,) = comparison_sections([bootstrap, test | {"note": note}])
            assert [row["note"] for row in section["rows"]] == [shown]

    def test_each_pair_of_models_has_its_table(self) -> None:
        rows = self.rows()
        sections = comparison_sections(rows + [row | {"level": "scan"} for row in rows])
        assert [section["level"] for section in sections] == ["slice", "scan"]


def test_strata_share_an_axis_that_holds_all_intervals() -> None:
    rows = [
        make_row(metric=metric, grouping="slice_mm", stratum=stratum, level="scan", aggregation="own", low=low)
        | {"scans": 20, "positive_patients": 5, "negative_patients": 9, "small": True}
        for metric in ("auroc", "sensitivity", "specificity")
        for stratum, low in (("thin", 0.33), ("thick", None))
    ]
    forest = forest_rows(rows)
    assert forest is not None
    assert forest["start"] == 0.3
    thin, thick = forest["groups"]["Distance of slices (mm)"]
    assert 0 < thin["whiskers"][0].low < thin["whiskers"][0].at < 100
    assert thick["whiskers"][0].low is None
    assert forest_rows([]) is None


def test_readers_are_drawn_only_by_the_truth_of_the_curve() -> None:
    row = {"label": "any", "rater": "Ann", "truth": "labels"}
    table = [row | {"metric": "sensitivity", "value": 0.9}, row | {"metric": "specificity", "value": 0.8}]
    others = [each | {"truth": "Bob and Eve agree", "value": 0.1} for each in table]
    assert reader_points({"table": [*table, *others]}) == {"any": [("Ann", 0.9, 0.8)]}
    assert reader_points(None) == {}


class TestThePrecisionRecallRing:
    """It lies on the curve wherever the operating point is: every threshold is a point of the curve."""

    CURVE: ClassVar[dict[str, list]] = {"x": [0.0, 0.5, 1.0], "value": [1.0, 0.9, 0.8], "low": [None] * 3, "high": [None] * 3}

    @pytest.mark.parametrize(("recall", "precision"), [(1.0, 0.55), (1.0, 0.3), (1.0, 0.8), (0.5, 0.7), (0.75, 0.6), (0.0, 1.0)])
    def test_lies_on_the_line(self, recall: float, precision: float) -> None:
        rows = [make_row(metric="sensitivity", value=recall), make_row(metric="ppv", value=precision)]
        panel = precision_recall_panels(make_view(self.CURVE, rows))[-1]
        (ring,) = panel.marks
        line = points(panel.line)
        assert (round(ring.x, 1), round(ring.y, 1)) in line
        assert [x for x, _ in line] == sorted(x for x, _ in line)

    def test_the_line_ends_where_every_case_is_called(self) -> None:
        panel = precision_recall_panels(make_view(self.CURVE, [make_row(cases=40, positives=12)]))[-1]
        x, y = points(panel.line)[-1]
        assert (x, y) == pytest.approx((LEFT + SIDE, TOP + SIDE * (1 - 12 / 40)), abs=0.1)

    def test_an_undefined_curve_stays_empty(self) -> None:
        none = {"x": [0.0, 1.0], "value": [None, None], "low": [None] * 2, "high": [None] * 2}
        assert precision_recall_panels(make_view(none, [make_row()]))[-1].line == ""
