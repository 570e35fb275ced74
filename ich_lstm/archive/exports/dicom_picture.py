"""The image of a Secondary Capture: a scan's probabilities and the slices that contribute most to them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ich_lstm.formatting import RESEARCH_USE, millimetres, percent
from ich_lstm.labels import ANY, LABEL_NAMES, LABEL_SHORT, LABELS
from ich_lstm.pages.picture import HEAT_STRENGTH
from ich_lstm.pages.style import HEAT_COLORS, LABEL_COLORS, LABEL_DASHES
from ich_lstm.prediction import HASH_DIGITS_SHOWN, ScanPrediction
from ich_lstm.window import BRAIN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 1024
"""Rows and columns of the image, which viewers show without scaling."""

GROUND, INK, QUIET, RULE, WARNING = "#0b0d10", "#e8ebee", "#9aa3ad", "#343b43", "#f0c040"
COLORS = LABEL_COLORS | {ANY: INK}
MAX_PICTURES = 4
DPI = 100
HEAT_SHOWN = 0.35
"""Heat is drawn above this share of the label's maximum in the scan; lower values would only obscure the brain."""

WORDS = {1.0: "present", 0.0: "absent"}


def shown_slices(prediction: ScanPrediction) -> dict[int, tuple[str, ...]]:
    """The first key slices that fit into the image, from the lower end up."""
    return dict(sorted(list(prediction.key_slices.items())[:MAX_PICTURES]))


def draw_summary(prediction: ScanPrediction, *, with_slices: bool) -> np.ndarray:
    """Draw a prediction for a viewer: dark, and without any text about the patient.

    Args:
        prediction: Prediction of the scan; if it has an explanation, its heat maps are drawn over the slices.
        with_slices: Whether slices are shown; False for images that may contain burned-in text.

    Returns:
        An RGB image, uint8 ``(1024, 1024, 3)``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIDE / DPI, SIDE / DPI), dpi=DPI, facecolor=GROUND)
    canvas = FigureCanvasAgg(figure)
    figure.text(0.04, 0.952, "Intracranial hemorrhage: what a model says", color=INK, fontsize=19, weight="bold")
    model = f"model {prediction.model_name} {prediction.model_hash[:HASH_DIGITS_SHOWN]}"
    figure.text(0.04, 0.925, f"{model}  ·  {_operating_point_text(prediction)}", color=QUIET, fontsize=11)
    _draw_bars(figure.add_axes((0.215, 0.655, 0.49, 0.235)), prediction)
    _draw_curve(figure.add_axes((0.075, 0.128, 0.345, 0.42)), prediction)
    _draw_slices(figure, prediction, with_slices)
    flags = ", ".join(note.code.replace("_", " ") for note in prediction.flags) or "none"
    figure.text(0.04, 0.05, f"Quality flags: {_shorten(flags, 110)}", color=QUIET, fontsize=11)
    figure.text(0.04, 0.02, RESEARCH_USE, color=WARNING, fontsize=14, weight="bold")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _operating_point_text(prediction: ScanPrediction) -> str:
    point = prediction.operating_point
    return f"operating point: {_shorten(point.name, 60)}" if point else "no operating point: nothing is called"


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _draw_bars(axes: "Axes", prediction: ScanPrediction) -> None:
    """Draw the six probabilities, with their thresholds and calls."""
    calls = prediction.scan_calls
    for k, label in enumerate(LABELS):
        probability = float(prediction.scan_probabilities[k])
        axes.barh(k, 1, height=0.5, color="#191d22")
        axes.barh(k, probability, height=0.5, color=COLORS[label])
        called = "" if calls is None else WORDS.get(float(calls[k]), "not called")
        axes.text(1.02, k, percent(probability), color=INK, fontsize=14, va="center", clip_on=False)
        strong = called == "present"
        axes.text(
            1.19, k, called, color=WARNING if strong else QUIET, fontsize=13, weight="bold" if strong else "normal", va="center"
        )
        if prediction.operating_point is not None and np.isfinite(prediction.operating_point.scan_thresholds[k]):
            axes.plot([prediction.operating_point.scan_thresholds[k]] * 2, [k - 0.36, k + 0.36], color=WARNING, linewidth=2)
    axes.set(xlim=(0, 1), ylim=(len(LABELS) - 0.5, -0.5), xticks=[0, 0.5, 1])
    ticks = "" if calls is None else "; a tick where a label is called"
    axes.set_xticklabels(["0", f"probability in the scan{ticks}", "1"])
    axes.set_yticks(range(len(LABELS)), [LABEL_NAMES[label] for label in LABELS])
    _style_axes(axes)
    axes.tick_params(axis="y", labelsize=13, labelcolor=INK)


def _draw_curve(axes: "Axes", prediction: ScanPrediction) -> None:
    """Draw the probabilities along the scan, with the superior end at the top."""
    for k, label in enumerate(LABELS):
        axes.plot(
            prediction.slice_probabilities[:, k],
            prediction.positions_mm,
            color=COLORS[label],
            linestyle=LABEL_DASHES[label],
            linewidth=2.4 if label == ANY else 1.6,
            marker="o" if len(prediction) == 1 else None,
        )
    for number in shown_slices(prediction):
        axes.axhline(float(prediction.positions_mm[number]), color=RULE, linewidth=5, zorder=0)
    axes.set(xlim=(-0.02, 1.02), xticks=[0, 0.5, 1])
    axes.set_title("Along the scan", color=INK, fontsize=13, loc="left")
    axes.set_xlabel("probability in a slice", color=QUIET, fontsize=10)
    axes.set_ylabel("position (mm), {} to {}".format(*prediction.end_marks), color=QUIET, fontsize=10)
    _style_axes(axes)


def _draw_slices(figure: "Figure", prediction: ScanPrediction, with_slices: bool) -> None:
    if not with_slices:
        text = "No slice is shown: text is burned\ninto the pixels of this series."
        figure.text(0.72, 0.34, text, color=QUIET, fontsize=13, ha="center", va="center")
        return
    shown = shown_slices(prediction)
    columns = 1 if len(shown) == 1 else 2
    side = 0.46 if columns == 1 else 0.21
    for i, (number, labels) in enumerate(shown.items()):
        left, bottom = 0.5 + (i % 2) * (side + 0.03), 0.565 - side - (i // 2) * (side + 0.045)
        axes = figure.add_axes((left, bottom, side, side))
        axes.set_axis_off()
        axes.imshow(
            prediction.hu[number],
            cmap="gray",
            vmin=BRAIN.level - BRAIN.width / 2,
            vmax=BRAIN.level + BRAIN.width / 2,
            aspect=prediction.spacing_mm[1] / prediction.spacing_mm[2] if min(prediction.spacing_mm[1:]) > 0 else 1,
        )
        _draw_heat(axes, prediction, number, labels)
        for x, mark in zip((0.02, 0.98), prediction.side_marks, strict=True):
            axes.text(x, 0.5, mark, color=QUIET, fontsize=11, ha="left" if x < 0.5 else "right", transform=axes.transAxes)
        where = f"slice {number + 1}, {millimetres(float(prediction.positions_mm[number]))}"
        # Labels are abbreviated, and below the position, so that titles of neighboring images do not overlap.
        title = f"{where}\n{', '.join(LABEL_SHORT[label] for label in labels)}"
        axes.set_title(title, color=INK, fontsize=9 if columns == 2 else 12, loc="left", pad=4)
    heat = "" if prediction.explanation is None else "; color: evidence for the label"
    window = f"brain window, level {BRAIN.level:g}, width {BRAIN.width:g}{heat}"
    figure.text(0.5, 0.07, window, color=QUIET, fontsize=10)


def _draw_heat(axes: "Axes", prediction: ScanPrediction, number: int, labels: Sequence[str]) -> None:
    from matplotlib.colors import to_rgb

    explanation = prediction.explanation
    if explanation is None:
        return
    rows, columns = prediction.hu.shape[1:]
    for label in labels:
        if label not in explanation.labels:
            continue
        heat = explanation.share_on_slice(number, label, (rows, columns))
        color = np.empty((rows, columns, 4), np.float32)
        color[..., :3] = to_rgb(HEAT_COLORS[label])
        color[..., 3] = np.where(heat >= HEAT_SHOWN, HEAT_STRENGTH * heat, 0)
        axes.imshow(color)
        if (heat >= HEAT_SHOWN).any() and (heat < HEAT_SHOWN).any():
            axes.contour(heat, levels=[HEAT_SHOWN], colors=[HEAT_COLORS[label]], linewidths=1.2)


def _style_axes(axes: "Axes") -> None:
    axes.set_facecolor(GROUND)
    axes.tick_params(colors=QUIET, labelsize=10, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
