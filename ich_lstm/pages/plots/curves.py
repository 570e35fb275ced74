"""Matplotlib figures of a training history, a scan, a prediction and an explanation, without global state."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ich_lstm.files.atomic_write import atomic_write
from ich_lstm.formatting import RESEARCH_USE, millimetres, percent, side_marks
from ich_lstm.labels import ANY, LABEL_NAMES, LABEL_SHORT, LABELS
from ich_lstm.pages.style import LABEL_COLORS, LABEL_DASHES
from ich_lstm.window import BRAIN, Window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from ich_lstm.explanation import Explanation
    from ich_lstm.prediction import ScanPrediction
    from ich_lstm.scan import Scan

INK, QUIET, RULE = "#1c1f23", "#5d646c", "#d9dcdf"
MODEL_COLORS = {"sequence": "#b35900", "encoder": "#0072b2"}
DPI = 150
PICTURES_PER_ROW = 6
LEGEND_LINE = 13
"""Height of one line of a legend in points."""


def plot_history(frame: "DataFrame") -> "Figure":
    """Plot training and validation loss per epoch, and the AUC of "any" in validation if it was logged.

    Args:
        frame: The contents of Lightning's ``metrics.csv``: ``epoch``, and some of ``train/slice_loss``, ``val/loss``,
            ``val/encoder_loss``, ``val/auroc_any`` or, for scans, ``train/scan_loss``, ``val/scan_loss`` and
            ``val/scan_auroc_any``; a row has NaN in columns that were not logged with it. ``train/loss`` is a sum of
            several terms and is not comparable; it is shown only if there is no other training loss.
    """
    # If the AUC is defined only for scans, labels name whole scans, so the columns of scans are shown.
    has = {name: name in frame and frame[name].notna().any() for name in ("val/auroc_any", "val/scan_auroc_any")}
    of_scans = has["val/scan_auroc_any"] and not has["val/auroc_any"]
    training, validation, auroc = (
        ("train/scan_loss", "val/scan_loss", "val/scan_auroc_any")
        if of_scans
        else ("train/slice_loss", "val/loss", "val/auroc_any")
    )
    losses = {
        "training": (training if training in frame else "train/loss", QUIET, ":"),
        "validation, sequence model": (validation, MODEL_COLORS["sequence"], "-"),
        "validation, encoder alone": ("val/encoder_loss", MODEL_COLORS["encoder"], (0, (4, 2))),
    }
    has_auroc = auroc in frame and frame[auroc].notna().any()
    figure = _figure(10 if has_auroc else 6, 3.8)
    panels = figure.subplots(1, 2 if has_auroc else 1, squeeze=False)[0]
    for name, (column, color, dash) in losses.items():
        if column in frame and frame[column].notna().any():
            _plot_epochs(panels[0], frame, column, color=color, linestyle=dash, label=name)
    _finish(panels[0], title="Loss", x="epoch", y="weighted log loss")
    panels[0].set_ylim(bottom=0)
    if panels[0].lines:
        _legend_above(panels[0], columns=len(panels[0].lines))
    if has_auroc:
        _plot_epochs(panels[1], frame, auroc, color=MODEL_COLORS["sequence"])
        _finish(panels[1], title="AUC of any hemorrhage, validation", x="epoch", y="AUC")
        panels[1].set_ylim(min(0.5, panels[1].get_ylim()[0]), 1.005)
    return figure


def plot_scan(prediction: "ScanPrediction") -> "Figure":
    """Plot probabilities along the scan, and the slice where "any" is most probable with the heat maps of `shown_labels`."""
    from ich_lstm.pages.picture import is_blank

    figure = _figure(11, 4.6)
    curve, picture = figure.subplots(1, 2, width_ratios=(1.55, 1))
    for k, label in enumerate(LABELS):
        curve.plot(
            prediction.positions_mm,
            prediction.slice_probabilities[:, k],
            color=LABEL_COLORS[label],
            linestyle=LABEL_DASHES[label],
            linewidth=2.6 if label == ANY else 1.6,
            marker="o" if len(prediction) == 1 else None,
            label=f"{LABEL_NAMES[label]}  {percent(prediction.scan_probabilities[k])}",
        )
    _finish(curve, title=f"Scan {prediction.scan_id}", x="position, {} to {} (mm)".format(*prediction.end_marks), y="probability")
    curve.set_ylim(-0.02, 1.02)

    peak = int(prediction.slice_probabilities[:, LABELS.index(ANY)].argmax())
    position = float(prediction.positions_mm[peak])
    curve.axvline(position, color=RULE, linewidth=6, zorder=0)
    curve.legend(
        frameon=False,
        fontsize=9,
        title="In the scan",
        title_fontsize=9,
        alignment="left",
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),  # beside the curves, so that it never covers them
    )
    _show_slice(picture, prediction.hu[peak], prediction.spacing_mm, BRAIN)
    if is_blank(prediction.hu[peak]):
        picture.text(0.5, 0.5, "not shown", color="#a9aeb3", ha="center", va="center", transform=picture.transAxes)
    elif prediction.explanation is not None:
        _lay_heat(picture, prediction.explanation, peak, prediction.shown_labels, prediction.hu.shape[1:])
    picture.set_title(f"Slice {peak + 1} of {len(prediction)}, {millimetres(position)}", fontsize=11, color=INK, loc="left")
    _mark_sides(picture, prediction.side_marks)
    figure.supxlabel(_plain(f"Model {prediction.model_name}. {RESEARCH_USE}"), fontsize=8, color=QUIET, x=0.99, ha="right")
    return figure


def plot_slices(scan: "Scan", *, window: Window = BRAIN, most: int = 12) -> "Figure":
    """Show slices of a scan side by side, evenly spaced from the inferior to the superior end.

    Args:
        scan: The scan to show.
        window: The grey-scale window, with level and width in HU.
        most: Maximum number of slices to show, at least 1.

    Raises:
        ValueError: If ``most`` is below 1.
    """
    if most < 1:
        raise ValueError(f"plot: most is {most}, expected at least 1 slice")
    count = min(most, len(scan))
    numbers = np.linspace(0, len(scan) - 1, count).round().astype(int).tolist() if count > 1 else [len(scan) // 2]
    columns = min(PICTURES_PER_ROW, count)
    rows = -(-count // columns)
    figure = _figure(max(2.2 * columns, 3.4), 2.4 * rows + 0.7)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for number, axes in zip(numbers, panels, strict=False):
        _show_slice(axes, scan.hu[number], scan.spacing_mm, window)
        axes.set_title(f"{number + 1}: {millimetres(scan.positions_mm[number])}", fontsize=9, color=INK, loc="left")
        _mark_sides(axes, side_marks(scan.flags), size=8)
    for axes in list(panels):
        axes.remove()
    name = _plain(scan.description) or "Scan"
    figure.suptitle(
        f"{name}: {count} of {len(scan)} slices, level {window.level:g}, width {window.width:g}",
        fontsize=11,
        color=INK,
        x=0.01,
        ha="left",
    )
    return figure


def plot_explanation(explanation: "Explanation", scan: "Scan | None" = None) -> "Figure":
    """Plot the contributions of every explained label along the scan, below the slice with the peak of its heat map.

    Args:
        explanation: The explanation to show.
        scan: The explained scan, over whose slices the heat maps are drawn; None draws only the maps.

    Raises:
        ValueError: If the explanation has no label, or its number of slices differs from that of the scan.
    """
    from matplotlib.ticker import MaxNLocator

    if scan is not None and len(scan) != len(explanation):
        raise ValueError(f"Explanation.plot: the scan has {len(scan)} slices, the explanation {len(explanation)}")
    labels = explanation.labels
    if not labels:
        raise ValueError("Explanation.plot: no label was explained, expected at least one")
    figure = _figure(max(2.6 * len(labels), 3.6), 4.9)
    pictures, bars = figure.subplots(2, len(labels), squeeze=False, height_ratios=(2.2, 1))
    numbers = np.arange(1, len(explanation) + 1)
    for picture, axes, label in zip(pictures, bars, labels, strict=True):
        k = LABELS.index(label)
        number = int(explanation.maps[:, k].max(axis=(1, 2)).argmax())
        if scan is None:
            picture.imshow(explanation.maps[number, k], cmap="magma", vmin=0, vmax=float(explanation.maps[:, k].max()) or 1)
            picture.set_axis_off()
        else:
            _show_slice(picture, scan.hu[number], scan.spacing_mm, BRAIN)
            _lay_heat(picture, explanation, number, (label,), scan.hu.shape[1:])
            _mark_sides(picture, side_marks(scan.flags), size=8)
        picture.set_title(f"{LABEL_NAMES[label]}\nslice {number + 1} of {len(explanation)}", fontsize=10, color=INK, loc="left")
        axes.bar(numbers, explanation.contributions[:, k], width=0.8, color=LABEL_COLORS[label])
        axes.axhline(0, color=RULE, linewidth=1)
        _finish(axes, title="", x="slice", y="adds to the logit" if k == LABELS.index(labels[0]) else "")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    return figure


def _show_slice(axes: "Axes", hu: np.ndarray, spacing_mm: Sequence[float], window: Window) -> None:
    """Show a slice in a window, with its true aspect ratio if the pixel spacing is known."""
    axes.imshow(
        hu,
        cmap="gray",
        vmin=window.level - window.width / 2,
        vmax=window.level + window.width / 2,
        aspect=spacing_mm[1] / spacing_mm[2] if min(spacing_mm[1:]) > 0 else 1,
    )
    axes.set_axis_off()


def _mark_sides(axes: "Axes", marks: Sequence[str], size: int = 10) -> None:
    for side, x in zip(marks, (0.03, 0.97), strict=True):
        align = "left" if x < 0.5 else "right"
        axes.text(x, 0.5, side, color="#e8e6e1", ha=align, va="center", transform=axes.transAxes, fontsize=size)


def _lay_heat(axes: "Axes", explanation: "Explanation", number: int, labels: Sequence[str], shape: tuple[int, int]) -> None:
    """Draw the heat maps of some labels over a slice in colour, with the named contours that the page also has."""
    from matplotlib.colors import to_rgb
    from matplotlib.patheffects import AbstractPathEffect, withStroke

    from ich_lstm.pages.heat_maps import CONTOUR
    from ich_lstm.pages.picture import HEAT_STRENGTH

    aspect = axes.get_aspect()
    for label in labels:
        heat = explanation.share_on_slice(number, label, shape)  # (h, w)
        # "Any" is white instead of the black of its curve, which would be invisible on a dark picture.
        color = "white" if label == ANY else LABEL_COLORS[label]
        film = np.concatenate([np.broadcast_to(to_rgb(color), (*heat.shape, 3)), HEAT_STRENGTH * heat[..., None]], axis=2)
        axes.imshow(film, aspect=aspect)
        if heat.max() <= CONTOUR:
            continue
        halo: list[AbstractPathEffect] = [withStroke(linewidth=3, foreground="white" if label != ANY else "black")]
        lines = axes.contour(heat, levels=[CONTOUR], colors=[color], linewidths=1.5)
        lines.set_path_effects(halo)
        row, column = divmod(int(heat.argmax()), heat.shape[1])
        axes.text(
            column, row, LABEL_SHORT[label], color=color, fontsize=9, weight="bold", ha="center", va="center", path_effects=halo
        )


def save_figure(figure: "Figure", path: str | Path) -> Path:
    """Write a PNG file without metadata about the machine, the folder or the time."""
    path = Path(path)
    with atomic_write(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=DPI, metadata={"Software": None})
    return path


def _figure(width: float, height: float) -> "Figure":
    from ich_lstm.pages.plots.notebook_figure import ShownFigure

    return ShownFigure(figsize=(width, height), layout="constrained", facecolor="white")


def _plain(text: str) -> str:
    """Escape dollar signs, which would start a formula in matplotlib."""
    return text.replace("$", r"\$")


def _finish(axes: "Axes", *, title: str, x: str, y: str) -> None:
    axes.set_title(_plain(title), fontsize=11, color=INK, loc="left")
    axes.set_xlabel(x, color=QUIET, fontsize=9)
    axes.set_ylabel(y, color=QUIET, fontsize=9)
    axes.tick_params(colors=QUIET, labelsize=8, length=0)
    axes.grid(True, color=RULE, linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE)


def _legend_above(axes: "Axes", columns: int = 1) -> None:
    """Draw the legend between title and frame, so that it covers no curve."""
    title, entries = axes.get_title(loc="left"), len(axes.lines)
    axes.set_title(title, fontsize=11, color=INK, loc="left", pad=8 + LEGEND_LINE * -(-entries // columns))
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0, borderaxespad=0.3, ncols=columns)


def _plot_epochs(axes: "Axes", frame: "DataFrame", column: str, **style: object) -> None:
    """Plot the mean of a column in each epoch; stages whose epochs restart at 0 are concatenated in the order of rows."""
    from matplotlib.ticker import MaxNLocator

    rows = frame[["epoch", column]].dropna()
    stage = (rows["epoch"].diff() < 0).cumsum()
    means = rows.groupby([stage, rows["epoch"]], sort=True)[column].mean()
    epochs = means.index.get_level_values(1) if stage.max() == 0 else range(len(means))
    axes.plot(list(epochs), means.to_numpy(), linewidth=2, marker="o", markersize=3, **style)  # type: ignore[arg-type]
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
