"""The page of one scan: every slice, its probabilities, and where in the scan they are high; one file, no network."""

import base64
from typing import Any, NamedTuple

import cv2
import numpy as np

from ich_lstm.labels import ANY, HEMORRHAGE_TYPES, LABELS
from ich_lstm.scan import Note
from ich_lstm.views.look import BRAIN_LEVEL, BRAIN_WIDTH, LABEL_NAMES, millimetres, percent, render
from ich_lstm.views.prediction import HASH_DIGITS_SHOWN, ScanPrediction

MAX_SIDE = 512
"""Longest side of a stored slice in pixels. The pictures are lossless: at worst 40 of them make 14 MB of text."""

KEY_SLICES = 3
"""How many of the most probable slices are marked. By rank, because no threshold has been validated for them."""

TICK_STEPS_MM = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
MAX_TICKS = 8

FLAG_MEANINGS = {
    "burned_in": "Text or marks are part of the pixels. They can name the patient, and can mislead the model.",
    "child": "The patient is a child. Skull, sutures and brain differ from those of adults.",
    "constant_slice": "A slice without any content says nothing about the head there.",
    "contrast": "Enhanced vessels and membranes can look like blood.",
    "few_slices": "Fewer slices than a whole head has. What lies outside them was not judged.",
    "gap": "A part of the head is missing between two slices. A bleed there cannot be seen.",
    "incomplete": "Not all of the series could be used. A bleed in the missing part cannot be seen.",
    "kernel": "A sharp kernel makes noise and edges that can hide or imitate thin bleeds.",
    "kvp": "The tube voltage is unusual for head CT, so that blood and brain have other HU than usual.",
    "lossy": "Images were compressed with loss. Fine detail may be gone.",
    "metal": "Metal makes streaks that can hide or imitate a bleed.",
    "no_orientation": "The header does not say which side is which. R and L on this page are an assumption.",
    "no_brain": "Inside the skull there is little of a brain's density. This may be a phantom made of plastic.",
    "synthetic_model": "This model has seen synthetic heads only. Its probabilities mean nothing for a patient.",
    "no_skull": "No skull was found around the brain. This may be a phantom, another part of the body, or a part of the head.",
    "order_assumed": "The header does not say which end is which. Inferior and superior on this page are an assumption.",
    "thick_slices": "Small bleeds are averaged with the tissue around them.",
    "tilt": "The gantry was tilted, as is common in head CT, so each slice is oblique to the body.",
    "uneven_spacing": "Slices are not equally far apart. The positions on this page are the true ones.",
}
"""What a flag means for the reader of the result; the note's own detail says what was found."""


class SliceView(NamedTuple):
    """One slice as the template needs it."""

    number: int
    position: str
    probability: float
    rank: int
    """From 1, the highest "any" of the scan, to ``KEY_SLICES``; 0 for the others, and for all of a very short scan."""
    picture: str
    """Base64 of a PNG."""


def prediction_page(prediction: ScanPrediction, *, title: str | None = None) -> str:
    """The page of one scan as HTML text: self-contained, readable without JavaScript, printable.

    The slices are stored once, in the brain window, as 8-bit pictures without loss.

    Args:
        prediction: What to show.
        title: Heading of the page; "Scan" and its id by default.
    """
    positions = _fractions(prediction.positions_mm)
    any_probabilities = prediction.slice_probabilities[:, LABELS.index(ANY)]
    # Stable, so that of equal slices the lower one comes first.
    ranking = np.argsort(-any_probabilities, kind="stable").tolist()
    ranks = {i: rank for rank, i in enumerate(ranking[:KEY_SLICES], start=1)} if len(ranking) > KEY_SLICES else {}
    height, width = _shown_size(prediction)
    slices = [
        SliceView(
            number=i + 1,
            position=millimetres(prediction.positions_mm[i]),
            probability=float(any_probabilities[i]),
            rank=ranks.get(i, 0),
            picture=encode_slice(prediction.hu[i], (height, width)),
        )
        for i in range(len(prediction))
    ]
    return render(
        "page.html.j2",
        title=title or f"Scan {prediction.scan_id}",
        prediction=prediction,
        short_hash=prediction.model_hash[:HASH_DIGITS_SHOWN],
        results={result.label: result for result in prediction.results()},
        any_label=ANY,
        types=HEMORRHAGE_TYPES,
        slices=slices,
        key_slice=slices[ranking[0]],
        flags=[(note, FLAG_MEANINGS.get(note.code, "")) for note in prediction.flags],
        flag_title=flag_title,
        marks=_marks(prediction),
        corrected=_corrected(prediction),
        sides=prediction.side_marks,
        ends=prediction.end_marks,
        size=(height, width),
        window=(BRAIN_LEVEL, BRAIN_WIDTH),
        curves={label: _curve(positions, prediction.slice_probabilities[:, k]) for k, label in enumerate(LABELS)},
        ticks=_ticks(prediction.positions_mm),
        data=_viewer_data(prediction, positions, ranking[0]),
    )


def _marks(prediction: ScanPrediction) -> dict[str, dict[str, float | None]]:
    """Where on the bars thresholds stand: of ``scan`` and ``slice``, by label; None: nowhere."""
    point = prediction.operating_point
    thresholds = {"scan": point and point.scan_thresholds, "slice": point and point.slice_thresholds}
    return {
        kind: {label: None if values is None or np.isnan(values[k]) else float(values[k]) for k, label in enumerate(LABELS)}
        for kind, values in thresholds.items()
    }


def _corrected(prediction: ScanPrediction) -> list[tuple[str, str]]:
    """The calibrated probabilities of the scan, in words."""
    if prediction.calibrated is None:
        return []
    by_label = dict(zip(LABELS, prediction.calibrated.scan_probabilities.tolist(), strict=True))
    texts = {label: "not calibrated" if np.isnan(p) else percent(p) for label, p in by_label.items()}
    return [(LABEL_NAMES[label].lower(), texts[label]) for label in (ANY, *HEMORRHAGE_TYPES)]


def flag_title(note: Note) -> str:
    """A code as people read it: ``uneven_spacing`` is "Uneven spacing"."""
    return note.code.replace("_", " ").capitalize()


def encode_slice(hu: np.ndarray, size: tuple[int, int]) -> str:
    """One slice in the brain window as base64 of a grey PNG of ``(height, width)`` pixels."""
    grey = (hu.astype(np.float32) - (BRAIN_LEVEL - BRAIN_WIDTH / 2)) * (255 / BRAIN_WIDTH)
    picture = np.rint(np.clip(grey, 0, 255)).astype(np.uint8)
    height, width = size
    if picture.shape != size:
        shrinks = height <= picture.shape[0] and width <= picture.shape[1]
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR).astype(
            np.uint8, copy=False
        )
    _, coded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    return base64.b64encode(coded.tobytes()).decode("ascii")


def _shown_size(prediction: ScanPrediction) -> tuple[int, int]:
    """Height and width in pixels: true to the pixel spacing, never larger than ``MAX_SIDE``."""
    rows, columns = prediction.hu.shape[1:]
    row_mm, column_mm = prediction.spacing_mm[1:]
    if not row_mm or not column_mm:  # unknown spacing: as square as it was stored
        row_mm = column_mm = 1.0
    finest = min(row_mm, column_mm)
    height, width = rows * row_mm / finest, columns * column_mm / finest
    scale = min(1.0, MAX_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _fractions(positions_mm: np.ndarray) -> list[float]:
    """Positions as parts of the scan's length, 0 at its lower end; a scan without length lies in the middle."""
    low, length = positions_mm[0], positions_mm[-1] - positions_mm[0]
    if length == 0:
        return [0.5] * len(positions_mm)
    return [round(float(part), 5) for part in (positions_mm - low) / length]


def _curve(positions: list[float], probabilities: np.ndarray) -> str:
    """Points of an SVG polyline in a box of 100 by 100; a single slice is a level line."""
    if positions[0] == positions[-1]:
        level = 100 * (1 - float(probabilities.max()))
        return f"0,{level:.2f} 100,{level:.2f}"
    return " ".join(f"{100 * x:.2f},{100 * (1 - p):.2f}" for x, p in zip(positions, probabilities, strict=True))


def _ticks(positions_mm: np.ndarray) -> list[tuple[float, str]]:
    """Round positions in mm, with their part of the scan's length."""
    low, high = float(positions_mm[0]), float(positions_mm[-1])
    if low == high:
        return [(0.5, millimetres(low))]
    step = next((step for step in TICK_STEPS_MM if (high - low) / step <= MAX_TICKS), TICK_STEPS_MM[-1])
    values = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    return [((value - low) / (high - low), f"{round(value)}".replace("-", "\u2212")) for value in values.tolist()]


def _viewer_data(prediction: ScanPrediction, positions: list[float], first: int) -> dict[str, Any]:
    """What the page's script needs; the pictures it takes from the grid."""
    return {
        "labels": list(LABELS),
        "names": LABEL_NAMES,
        "probabilities": np.round(prediction.slice_probabilities, 5).tolist(),
        "texts": [[percent(p) for p in row] for row in prediction.slice_probabilities],
        "positions": positions,
        "millimetres": [millimetres(position) for position in prediction.positions_mm],
        "first": first,
    }
