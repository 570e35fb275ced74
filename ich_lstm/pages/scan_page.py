"""The HTML page of one scan with every slice in HU, its probabilities and its heat maps."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ich_lstm.formatting import millimetres, percent
from ich_lstm.labels import ANY, HEMORRHAGE_TYPES, LABEL_NAMES, LABEL_SHORT, LABELS
from ich_lstm.pages.heat_maps import CONTOUR, Peak, encode_heat, find_peaks
from ich_lstm.pages.picture import encode_slice, is_blank, shown_size
from ich_lstm.pages.stack import EncodedStack, encode_stack
from ich_lstm.pages.style import HEAT_COLORS, HEAT_DASHES, render
from ich_lstm.prediction import EVEN, HASH_DIGITS_SHOWN, OperatingPoint, ScanPrediction
from ich_lstm.scan import Note
from ich_lstm.window import BONE, BRAIN, SUBDURAL

THUMBNAIL_SIDE, KEY_SIDE = 128, 512
"""Longest sides in pixels of thumbnails and of key slices; key slices are shown in large if there is no JavaScript."""

WINDOWS = (("Brain", BRAIN), ("Subdural", SUBDURAL), ("Bone", BONE))
NOT_SHOWN = "This slice is not shown."

TICK_STEPS_MM = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
MAX_TICKS = 8

FLAG_MEANINGS = {
    "burned_in": "Text or marks are burned into the pixels. They can identify the patient and mislead the model.",
    "character_set": "Text of the header could not be decoded. It may name contrast medium or the body part.",
    "child": "The patient is a child. Skull, sutures and brain differ from those of adults.",
    "constant_slice": "A slice has no content. The head cannot be assessed there.",
    "contrast": "Contrast medium was given. Enhanced vessels and membranes can look like blood.",
    "defaced": "Software removed the face before the scan was read. Hemorrhage near the removed region cannot be assessed.",
    "derived_map": "The values were computed, not measured. Blood can be missing or look like something else.",
    "few_slices": "There are fewer slices than in a whole head. Regions outside them were not assessed.",
    "gap": "A part of the head is missing between two slices. Hemorrhage there cannot be detected.",
    "incomplete": "A part of the head is not in the images or could not be used. Hemorrhage there cannot be detected.",
    "kernel": "A sharp kernel increases noise and enhances edges, which can hide or mimic thin hemorrhages.",
    "kvp": "The tube voltage is unusual for head CT, so blood and brain have unusual HU.",
    "lossy": "The images were lossily compressed. Fine detail may be lost.",
    "metal": "Metal causes streaks that can hide or mimic hemorrhage.",
    "no_orientation": "The header does not contain the orientation. R and L on this page are an assumption.",
    "no_brain": "Little inside the skull has the density of brain. This may be a plastic phantom.",
    "synthetic_model": "This model was trained only on synthetic heads. Its probabilities are meaningless for patients.",
    "no_skull": "No skull was found around the brain. This may be a phantom, another body part, or a part of the head.",
    "order_assumed": "The header does not contain the order of the slices. Inferior and superior on this page are an assumption.",
    "rounded_positions": "Positions in the header are rounded, so the order of neighbouring slices is an assumption.",
    "several_acquisitions": "The series contains several acquisitions of the head. Only the latest complete one was assessed.",
    "thick_slices": "Slices are thick. Small hemorrhages are averaged with the surrounding tissue.",
    "tilt": "The gantry was tilted, as is common in head CT, so slices are oblique to the body axis.",
    "unspecified_unit": "The header does not state that values are HU. Values in another unit would mislead the model.",
    "uneven_spacing": "The spacing of slices varies. Positions on this page are the true positions.",
}
"""The meaning of each flag for readers of the result; the note of a scan contains the details."""


MOST_BAR = 10.0
"""Maximum width of the bar of a contribution in percent of the scan's length, used for a scan of one slice."""


class SliceView(NamedTuple):
    """One slice in the form that the template needs."""

    number: int
    position: str
    probability: float
    key: str
    """Abbreviations of the labels for which this is a key slice; empty for other slices."""
    picture: str
    """Base64 of a small PNG; empty if the slice is not shown."""
    large: str
    """Base64 of a PNG; empty unless this is a key slice."""
    blank: str
    """The reason why the slice is not shown; empty if it is shown."""


class RateView(NamedTuple):
    """Sensitivity and specificity of a label's operating point as texts for the template."""

    sensitivity: str
    specificity: str


def prediction_page(
    prediction: ScanPrediction,
    *,
    title: str | None = None,
    notice: str | None = None,
    blank_reasons: Mapping[int, str] | None = None,
) -> str:
    """Make the page of one scan as HTML text: self-contained, readable without JavaScript, printable.

    The page contains all HU losslessly in 16 bits. A scan whose HU would need more than `MOST_TEXT` bytes is stored at half
    resolution or less, which the page states. A slice that contains only air is not shown.

    Args:
        prediction: The prediction to show.
        title: The heading of the page; None for "Scan" and its id.
        notice: A sentence below the picture, for example that the picture was cropped.
        blank_reasons: The text in place of each slice that must not be shown, by its index from 0; the page does not contain
            the HU of these slices.
    """
    blanks = _blanks(prediction, blank_reasons or {})
    positions = _fractions(prediction.positions_mm)
    stack = encode_stack(prediction.hu, blanks)
    explanation = prediction.explanation
    peaks = {} if explanation is None else find_peaks(explanation, prediction.hu)
    key_slices = prediction.key_slices
    rows, columns = prediction.hu.shape[1:]
    true_rows, true_columns = shown_size((rows, columns), prediction.spacing_mm[1:], KEY_SIDE)
    return render(
        "page.html.j2",
        title=title or f"Scan {prediction.scan_id}",
        notice=notice or "",
        prediction=prediction,
        short_hash=prediction.model_hash[:HASH_DIGITS_SHOWN],
        results={result.label: result for result in prediction.results()},
        any_label=ANY,
        types=HEMORRHAGE_TYPES,
        short=LABEL_SHORT,
        slices=_slice_views(prediction, blanks),
        first=next(iter(key_slices)),
        keys=_key_chips(prediction),
        calls={} if prediction.scan_calls is None else dict(zip(LABELS, prediction.scan_calls.tolist(), strict=True)),
        flags=[(note, FLAG_MEANINGS.get(note.code, "")) for note in prediction.flags],
        flag_title=flag_title,
        marks=_marks(prediction),
        rates=_rates(prediction.operating_point),
        corrected=_corrected(prediction),
        sides=prediction.side_marks,
        ends=prediction.end_marks,
        aspect=true_rows / true_columns,
        windows=WINDOWS,
        curves={label: _curve(positions, prediction.slice_probabilities[:, k]) for k, label in enumerate(LABELS)},
        contributions=_contributions(prediction, positions),
        half_bar=_bar_width(positions) / 2 if explanation is not None and len(prediction) > 1 else 0,
        ticks=_ticks(prediction.positions_mm),
        stack=stack,
        heat="" if explanation is None else encode_heat(explanation),
        heat_colors=HEAT_COLORS,
        explained=() if explanation is None else tuple(label for label in (*HEMORRHAGE_TYPES, ANY) if label in peaks),
        shown_labels=prediction.shown_labels,
        why_shown=_why_shown(prediction),
        cell_mm=_cell_mm(prediction),
        outside=_outside({label: peaks[label] for label in prediction.shown_labels}, blanks),
        contour=CONTOUR,
        data=_viewer_data(prediction, positions, stack, blanks, peaks),
    )


def _blanks(prediction: ScanPrediction, reasons: Mapping[int, str]) -> dict[int, str]:
    wrong = [number for number in reasons if not 0 <= number < len(prediction)]
    if wrong:
        raise ValueError(f"blank_reasons: slices {wrong}, expected indices below {len(prediction)}")
    empty = {number: NOT_SHOWN for number, hu in enumerate(prediction.hu) if is_blank(hu)}
    return dict(sorted((empty | dict(reasons)).items()))


def _slice_views(prediction: ScanPrediction, blanks: Mapping[int, str]) -> list[SliceView]:
    keys = prediction.key_slices
    sizes = {side: shown_size(prediction.hu.shape[1:], prediction.spacing_mm[1:], side) for side in (THUMBNAIL_SIDE, KEY_SIDE)}
    return [
        SliceView(
            number=number + 1,
            position=millimetres(prediction.positions_mm[number]),
            probability=float(prediction.slice_probabilities[number, LABELS.index(ANY)]),
            key=" ".join(LABEL_SHORT[label] for label in keys.get(number, ())),
            picture="" if number in blanks else encode_slice(hu, sizes[THUMBNAIL_SIDE]),
            large=encode_slice(hu, sizes[KEY_SIDE]) if number in keys and number not in blanks else "",
            blank=blanks.get(number, ""),
        )
        for number, hu in enumerate(prediction.hu)
    ]


def _key_chips(prediction: ScanPrediction) -> list[tuple[int, str]]:
    """List the number of each key slice, with its labels and their probabilities."""
    return [
        (
            number + 1,
            ", ".join(
                f"{LABEL_SHORT[label]} {percent(prediction.slice_probabilities[number, LABELS.index(label)])}" for label in labels
            ),
        )
        for number, labels in prediction.key_slices.items()
    ]


def _marks(prediction: ScanPrediction) -> dict[str, dict[str, float | None]]:
    """Collect the thresholds to mark on the bars of ``scan`` and ``slice``, by label; None where there is no threshold."""
    point = prediction.operating_point
    thresholds = {"scan": point and point.scan_thresholds, "slice": point and point.slice_thresholds}
    return {
        kind: {label: None if values is None or np.isnan(values[k]) else float(values[k]) for k, label in enumerate(LABELS)}
        for kind, values in thresholds.items()
    }


def _rates(point: OperatingPoint | None) -> dict[str, RateView]:
    """Format sensitivity and specificity of each label's threshold on the cases on which it was chosen; empty if unknown."""
    if point is None or point.sensitivity is None or point.specificity is None:
        return {}
    return {
        label: RateView(*(_rate(*rates[k]) for rates in (point.sensitivity, point.specificity)))
        for k, label in enumerate(LABELS)
        if not np.isnan(point.scan_thresholds[k])
    }


def _rate(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return "unknown"
    interval = "" if np.isnan(low) or np.isnan(high) else f" ({100 * low:.0f} to {100 * high:.0f})"
    return f"{100 * value:.0f}\u00a0%{interval}"


def _corrected(prediction: ScanPrediction) -> list[tuple[str, str]]:
    """Format the calibrated probabilities of the scan."""
    if prediction.calibrated is None:
        return []
    by_label = dict(zip(LABELS, prediction.calibrated.scan_probabilities.tolist(), strict=True))
    texts = {label: "not calibrated" if np.isnan(p) else percent(p) for label, p in by_label.items()}
    return [(LABEL_NAMES[label].lower(), texts[label]) for label in (ANY, *HEMORRHAGE_TYPES)]


def _why_shown(prediction: ScanPrediction) -> str:
    """Write the sentence that says which heat maps are shown initially, and why."""
    point = prediction.operating_point
    rule = f"a probability of {percent(EVEN)} or more" if point is None else f"the operating point {point.name}"
    if not prediction.shown_labels:
        return f"At {rule}, no explained label is positive, so no heat map is shown initially."
    names = ", ".join(LABEL_NAMES[label].lower() for label in prediction.shown_labels)
    return f"Initially shown are the labels that are positive at {rule}: {names}."


def _cell_mm(prediction: ScanPrediction) -> str:
    """Format the larger side of a cell of the heat maps; empty if the spacing is unknown."""
    explanation = prediction.explanation
    if explanation is None or min(prediction.spacing_mm[1:]) <= 0:
        return ""
    rows, columns = explanation.maps.shape[2:]
    _, _, height, width = explanation.box
    return f"{max(height / rows * prediction.spacing_mm[1], width / columns * prediction.spacing_mm[2]):.0f}\u00a0mm"


def _outside(peaks: Mapping[str, list[Peak]], blanks: Mapping[int, str]) -> dict[str, tuple[int, int]]:
    """Count for each label the slices with a contour whose peak is outside the skull, and all slices with a contour."""
    strong = {
        label: [peak for number, peak in enumerate(found) if peak.share >= CONTOUR and number not in blanks]
        for label, found in peaks.items()
    }
    return {label: (sum(peak.is_outside for peak in found), len(found)) for label, found in strong.items()}


def flag_title(note: Note) -> str:
    """Convert a flag's code to a title: ``uneven_spacing`` becomes "Uneven spacing"."""
    return note.code.replace("_", " ").capitalize()


def _fractions(positions_mm: np.ndarray) -> list[float]:
    """Convert positions to fractions of the scan's length, from 0 at the inferior end; a scan of one slice has 0.5."""
    low, length = positions_mm[0], positions_mm[-1] - positions_mm[0]
    if length == 0:
        return [0.5] * len(positions_mm)
    return [round(float(fraction), 5) for fraction in (positions_mm - low) / length]


def _curve(positions: list[float], probabilities: np.ndarray) -> str:
    """Make the points of an SVG polyline in a box of 100 by 100; a single slice gives a horizontal line."""
    if positions[0] == positions[-1]:
        level = 100 * (1 - float(probabilities.max()))
        return f"0,{level:.2f} 100,{level:.2f}"
    return " ".join(f"{100 * x:.2f},{100 * (1 - p):.2f}" for x, p in zip(positions, probabilities, strict=True))


def _ticks(positions_mm: np.ndarray) -> list[tuple[float, str]]:
    """Choose round positions in mm, each with its fraction of the scan's length."""
    low, high = float(positions_mm[0]), float(positions_mm[-1])
    if low == high:
        return [(0.5, millimetres(low))]
    step = next((step for step in TICK_STEPS_MM if (high - low) / step <= MAX_TICKS), TICK_STEPS_MM[-1])
    values = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    return [((value - low) / (high - low), f"{round(value)}".replace("-", "\u2212")) for value in values.tolist()]


def _bar_width(positions: list[float]) -> float:
    """Compute the width of the bar of a slice's contribution, in percent of the scan's length."""
    gaps = np.diff(positions)
    return min(MOST_BAR, 70 * float(np.median(gaps))) if len(gaps) and gaps.max() > 0 else MOST_BAR


def _contributions(prediction: ScanPrediction, positions: list[float]) -> dict[str, tuple[str, str]]:
    """Make the bars of each explained label as an SVG path in a box of 100 by 100, and format the largest value.

    Bars extend up and down from the horizontal centre line. The first and the last bar extend beyond the box by half their width.
    """
    if prediction.explanation is None:
        return {}
    width = _bar_width(positions)
    bars = {}
    for label in prediction.explanation.labels:
        values = np.nan_to_num(prediction.explanation.contributions[:, LABELS.index(label)])
        largest = float(np.abs(values).max())
        heights = 50 * values / (largest or 1)
        path = "".join(
            f"M{100 * x - width / 2:.2f},50h{width:.2f}v{-height:.2f}h{-width:.2f}z"
            for x, height in zip(positions, heights, strict=True)
        )
        bars[label] = path, f"{largest:.2g}"
    return bars


def _viewer_data(
    prediction: ScanPrediction,
    positions: list[float],
    stack: EncodedStack,
    blanks: Mapping[int, str],
    peaks: Mapping[str, list[Peak]],
) -> dict[str, Any]:
    """Collect the data of the page's script; HU and heat maps are in separate scripts, which are decoded on demand."""
    explanation = prediction.explanation
    heat = None
    if explanation is not None:
        heat = {
            "labels": list(peaks),
            "size": list(explanation.maps.shape[2:]),
            "box": [float(side) for side in explanation.box],
            "peaks": [
                [[round(peak.x, 2), round(peak.y, 2), round(peak.share, 4), int(peak.is_outside)] for peak in found]
                for found in peaks.values()
            ],
            "contour": CONTOUR,
            "colors": {label: HEAT_COLORS[label] for label in peaks},
            "dashes": {label: list(HEAT_DASHES[label]) for label in peaks},
            "shown": list(prediction.shown_labels),
        }
    return {
        "labels": list(LABELS),
        "names": LABEL_NAMES,
        "short": LABEL_SHORT,
        "probabilities": np.round(prediction.slice_probabilities, 5).tolist(),
        "texts": [[percent(p) for p in row] for row in prediction.slice_probabilities],
        "positions": positions,
        "millimetres": [millimetres(position) for position in prediction.positions_mm],
        "first": next(iter(prediction.key_slices)),
        "shape": list(prediction.hu.shape[1:]),
        "stored": list(stack.shape),
        "blanks": {str(number): reason for number, reason in blanks.items()},
        "windows": [list(window) for _, window in WINDOWS],
        "heat": heat,
    }
