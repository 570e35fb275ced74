"""Curves of a report as inline SVG, in panels of equal size, one per label."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ich_lstm.labels import LABELS
from ich_lstm.pages.report.figures import figures_of

LEFT, TOP, SIDE = 27.0, 6.0, 166.0
"""The square of a panel in its box of 200 by 200; text of size 11 is legible with six panels in a row."""

STRIP = 0.16
"""Height of the tallest bar of cases per bin as a fraction of the panel."""


class Mark(NamedTuple):
    """A point on a panel, with its interval (None without an interval), its text and its kind."""

    x: float
    y: float
    low: float | None
    high: float | None
    text: str
    kind: str


class Panel(NamedTuple):
    """A small plot of one label.

    Args:
        label: The label whose curve is shown.
        line: Points of the curve, as text for SVG.
        band: Points of the outline of the band, as text for SVG.
        marks: Single points on the panel.
        bars: Bars of the histogram below the curve: x, y, width, height and text.
        base: Ends of the reference line, as text for SVG.
        note: The reason why the panel is empty, if it is.
    """

    label: str
    line: str
    band: str
    marks: list[Mark]
    bars: list[tuple[float, float, float, float, str]]
    base: str
    note: str


def roc_panels(view: Mapping[str, Any], readers: Mapping[str, Sequence[tuple[str, float, float]]]) -> list[Panel]:
    """Make ROC curves with the model's operating point, and readers if there are any.

    Args:
        view: One of the views in ``report.json``.
        readers: The name, sensitivity and specificity of each reader, by label.
    """
    panels = []
    for label in LABELS:
        found = figures_of(view, label)
        marks = [
            _mark(1 - spec, sens, f"{name}: sensitivity {sens:.3f}, specificity {spec:.3f}", "reader")
            for name, sens, spec in readers.get(label, ())
        ]
        sensitivity, specificity = (found.get(name, {}).get("value") for name in ("sensitivity", "specificity"))
        if sensitivity is not None and specificity is not None:
            text = f"operating point: sensitivity {sensitivity:.3f}, specificity {specificity:.3f}"
            marks.append(_mark(1 - specificity, sensitivity, text, "point"))
        panels.append(_panel(view, label, "roc", marks))
    return panels


def precision_recall_panels(view: Mapping[str, Any]) -> list[Panel]:
    """Make precision-recall curves with the model's operating point."""
    panels = []
    for label in LABELS:
        found = figures_of(view, label)
        recall, precision = (found.get(name, {}).get("value") for name in ("sensitivity", "ppv"))
        marks = []
        if recall is not None and precision is not None:
            marks = [_mark(recall, precision, f"operating point: sensitivity {recall:.3f}, PPV {precision:.3f}", "point")]
        row = next(iter(found.values()), None)
        share = row["positives"] / row["cases"] if row and row["cases"] else 0
        # The table of the curve has only the highest precision at each recall. Lower thresholds with the same recall have a lower
        # precision, at recall 1 down to the share of positive cases, so the operating point and that end are added.
        attained = [] if recall is None or precision is None else [(recall, precision)]
        attained += [(1.0, share)] if row else []
        panel = _panel(view, label, "precision_recall", marks, attained)
        panels.append(panel._replace(base=_points([(0, share), (1, share)])))
    return panels


def calibration_panels(view: Mapping[str, Any]) -> list[Panel]:
    """Make smoothed calibration curves, with the reliability of bins and bars of their numbers of cases."""
    panels = []
    for label in LABELS:
        bins = view["curves"][label]["reliability"]
        rows = list(zip(bins["x"], bins["value"], bins["low"], bins["high"], bins["cases"], strict=True))
        marks = [
            _mark(x, y, f"{cases:,} cases: mean probability {x:.3f}, observed {y:.3f}", "bin", low, high)
            for x, y, low, high, cases in rows
            if y is not None
        ]
        panels.append(_panel(view, label, "smoothed", marks)._replace(bars=_bars(rows)))
    return panels


def _panel(
    view: Mapping[str, Any], label: str, curve: str, marks: list[Mark], attained: Sequence[tuple[float, float]] = ()
) -> Panel:
    """Make a panel of one of a label's curves; ``attained`` are further points of the curve, inserted by their x."""
    of_label = view["curves"][label]
    points = of_label[curve]
    rows = list(zip(points["x"], points["value"], points["low"], points["high"], strict=True))
    banded = [(x, low, high) for x, _, low, high in rows if low is not None and high is not None]
    around = [(x, low) for x, low, _ in banded] + [(x, high) for x, _, high in reversed(banded)]
    line = [(x, y) for x, y, _, _ in rows if y is not None]
    if line:
        for point in attained:
            line.insert(sum(x <= point[0] for x, _ in line), point)
    if curve == "roc" and line:
        line.insert(0, (0.0, 0.0))
    return Panel(label, _points(line), _points(around), marks, [], _points([(0, 0), (1, 1)]), of_label["note"])


def _bars(rows: Sequence[tuple]) -> list[tuple[float, float, float, float, str]]:
    """Make bars of cases per bin on a square-root scale, so that bins with few cases remain visible."""
    most = max((cases for *_, cases in rows), default=1)
    bars = []
    for x, *_, cases in rows:
        height = SIDE * STRIP * (cases / most) ** 0.5
        bars.append((round(_x(x) - 3, 2), round(TOP + SIDE - height, 2), 6.0, round(height, 2), f"{int(cases):,} cases"))
    return bars


def _mark(x: float, y: float, text: str, kind: str, low: float | None = None, high: float | None = None) -> Mark:
    ends = [None if end is None else _y(end) for end in (low, high)]
    return Mark(_x(x), _y(y), ends[0], ends[1], text, kind)


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)


def _x(value: float) -> float:
    return round(LEFT + SIDE * value, 2)


def _y(value: float) -> float:
    return round(TOP + SIDE * (1 - value), 2)
