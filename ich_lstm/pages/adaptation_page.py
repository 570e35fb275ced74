"""The page of an adaptation: what was decided and why, before and after, what to do every month."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ich_lstm.pages.style import render

LEVEL_NAMES = {"scan": "Scans", "slice": "Slices"}
FIGURE_NAMES = {"weighted_log_loss": "Weighted log loss", "auroc": "AUC of any hemorrhage"}


class Change(NamedTuple):
    """A figure before and after, as texts."""

    level: str
    figure: str
    before: str
    after: str
    difference: str


class Bar(NamedTuple):
    """A candidate in the list of those that were tried."""

    name: str
    about: str
    loss: str
    width: float
    """In percent of the widest bar."""
    change: str
    is_chosen: bool


def adaptation_page(summary: Mapping[str, Any]) -> str:
    """Make the page of an adaptation as HTML text: self-contained, readable without JavaScript, printable on one or two sheets.

    Args:
        summary: The contents of ``adaptation.json``.
    """
    return render(
        "adaptation_page.html.j2",
        title="Adaptation: " + ("adapted" if summary["is_adapted"] else "left as it is"),
        summary=summary,
        verdict=_verdict(summary),
        changes=[_change(row) for row in summary["before_and_after"]],
        plots=[
            (LEVEL_NAMES[level], _slope(each["before"]), _slope(each["after"]), _dots(each["before"]), _dots(each["after"]))
            for level, each in summary["calibration"].items()
        ],
        bars=_bars(summary["candidates"], summary["chosen"]),
        points=[_point(point) for point in summary["operating_points"]],
        noise=[row for row in summary["noise"] if row["wrong"] is not None],
        share=_percent(summary["share"]),
        training_share="not recorded" if summary["training_share"] is None else _percent(summary["training_share"]),
        percent_of=_percent,
        unavailable=_by_reason(summary["unavailable"]),
    )


def _verdict(summary: Mapping[str, Any]) -> str:
    if not summary["is_adapted"]:
        return "The model stays as it is"
    row = next(row for row in summary["candidates"] if row["candidate"] == summary["chosen"])
    return "The model's probabilities are corrected" if row["trains"] == "nothing" else f"The model's {row['trains']} is adapted"


def _change(row: Mapping[str, Any]) -> Change:
    digits = 4 if row["metric"] == "weighted_log_loss" else 3
    return Change(
        LEVEL_NAMES[row["level"]],
        FIGURE_NAMES[row["metric"]],
        _number(row["second"], digits),
        _number(row["first"], digits),
        _difference(row["difference"], row["low"], row["high"], digits),
    )


def _bars(rows: Sequence[Mapping[str, Any]], chosen: str) -> list[Bar]:
    widest = max(row["loss"] for row in rows)
    return [
        Bar(
            row["candidate"],
            row["about"],
            f"{row['loss']:.4f}",
            100 * row["loss"] / widest,
            ""
            if row is rows[0]
            else f"{_signed(row['change'], 4)} ({_signed(row['change_low'], 4)} to {_signed(row['change_high'], 4)})",
            row["candidate"] == chosen,
        )
        for row in rows
    ]


def _by_reason(unavailable: Mapping[str, str]) -> dict[str, list[str]]:
    """The names of what was not tried, by the reason."""
    found: dict[str, list[str]] = {}
    for name, reason in unavailable.items():
        found.setdefault(reason, []).append(name)
    return found


def _point(point: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Rule, threshold, sensitivity and specificity of "any" for scans, as texts."""
    scan = point["scan"]
    return point["rule"], _number(scan["threshold"], 3), _rate(scan["sensitivity"]), _rate(scan["specificity"])


def _rate(values: Sequence[float | None]) -> str:
    value, low, high = values
    return "–" if value is None or low is None or high is None else f"{_percent(value)} ({_percent(low)} to {_percent(high)})"


def _slope(calibration: Mapping[str, Any]) -> str:
    return _number(calibration["slope"], 2)


def _dots(calibration: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    """Place and radius of each bin in a box of 100 by 100."""
    bins = calibration["bins"]
    most = max((row["cases"] for row in bins), default=1)
    return [
        (100 * row["mean_probability"], 100 - 100 * row["observed"], 1.2 + 3.3 * (row["cases"] / most) ** 0.5) for row in bins
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if value < 0.1 else f"{100 * value:.0f} %"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "\u2212")


def _difference(value: float | None, low: float | None, high: float | None, digits: int) -> str:
    interval = "" if low is None or high is None else f" ({_signed(low, digits)} to {_signed(high, digits)})"
    return _signed(value, digits) + interval


def _signed(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "\u2212")
