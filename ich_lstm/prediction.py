"""The prediction of a model for one scan, with the tables, pictures and page that show it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ich_lstm.explanation import Explanation
from ich_lstm.files.atomic_write import write_text
from ich_lstm.formatting import RESEARCH_USE, millimetres, percent, side_marks
from ich_lstm.labels import ANY, LABEL_NAMES, LABELS
from ich_lstm.printable import printable
from ich_lstm.scan import Note, Slab

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CALIBRATED_PREFIX = "calibrated_"
CALLED_PREFIX = "called_"

HASH_DIGITS_SHOWN = 8
BAR_CELLS = 24
PICTURE_SIDE = 224
"""Longest side in pixels of the picture in a notebook."""

EVEN = 0.5
"""Probability from which a label without a threshold counts as positive. It only decides which labels are shown first."""


class LabelResult(NamedTuple):
    """The result of one label in a scan.

    Args:
        label: One of ``LABELS``.
        probability: Probability that the scan shows the label, in [0, 1].
        peak_slice: Index, from 0, of the slice where the label is most probable.
        peak_probability: Probability of the label in that slice, in [0, 1].
        peak_position_mm: Position of that slice along the slice normal, in mm.
    """

    label: str
    probability: float
    peak_slice: int
    peak_probability: float
    peak_position_mm: float


class OperatingPoint(NamedTuple):
    """The thresholds at or above which labels are called positive.

    Args:
        name: The rule that chose the thresholds.
        slice_thresholds: Threshold of each label in a slice, in [0, 1], ``(k,)``; NaN for labels without a threshold.
        scan_thresholds: Threshold of each label in a scan, in [0, 1], ``(k,)``; NaN for labels without a threshold.
        chosen_on: Description of the patients on whom the thresholds were chosen.
        sensitivity: Sensitivity of each label in the scans of these patients, with the lower and upper limit of its 95 %
            interval, ``(k, 3)``; NaN where unknown. None if it is unknown for all labels.
        specificity: Specificity of each label in the scans of these patients, with the lower and upper limit of its 95 %
            interval, ``(k, 3)``; NaN where unknown. None if it is unknown for all labels.
    """

    name: str
    slice_thresholds: np.ndarray
    scan_thresholds: np.ndarray
    chosen_on: str
    sensitivity: np.ndarray | None = None
    specificity: np.ndarray | None = None


class CalibratedProbabilities(NamedTuple):
    """Probabilities after a recalibration that was fitted to other patients.

    Args:
        slice_probabilities: Probabilities of each slice, in [0, 1], ``(n, k)``; NaN for labels that could not be calibrated.
        scan_probabilities: Probabilities of the scan, in [0, 1], ``(k,)``; NaN for labels that could not be calibrated.
        how: Description of the recalibration, in words.
    """

    slice_probabilities: np.ndarray
    scan_probabilities: np.ndarray
    how: str


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ScanPrediction:
    """Probabilities of the six labels for one scan and for each of its slices.

    Slices are in the order of the scan, inferior to superior; tables, pictures and pages number them from 1.

    Args:
        slice_probabilities: Probabilities of each slice, in [0, 1], float64 ``(n, k)``, with labels in the order of ``LABELS``.
        scan_probabilities: Probabilities of the scan, in [0, 1], float64 ``(k,)``, with labels in the order of ``LABELS``.
        scan_id: Keyed hash of the series.
        slice_ids: Keyed hash of each slice.
        patient_id: Keyed hash of the patient; empty if unknown.
        positions_mm: Position of each slice along the slice normal, in mm, ``(n,)``, not decreasing.
        spacing_mm: Slice spacing, row spacing and column spacing, in mm.
        hu: Hounsfield units of the slices, for pictures and pages, int16 ``(n, h, w)``, in the radiological display convention.
        flags: Properties of the scan or the model that a reader of the result should know.
        repairs: Errors in the files that were repaired.
        model_name: Name of the model.
        model_hash: Hash of the model's weights.
        tilt_degrees: Angle between the slice normal and the body axis, in degrees.
        slabs: For each slice that is a slab, the keyed hashes and positions of the thin slices that were averaged; empty if the
            slices are those of the files. Tables have one row for each thin slice, with the probabilities of its slab.
        calibrated: Calibrated probabilities; None if the model has no calibration.
        operating_point: Thresholds at which labels are called positive; None if the model has none.
        explanation: Heat maps and contributions of slices; None if there is no explanation.
    """

    slice_probabilities: np.ndarray
    scan_probabilities: np.ndarray
    scan_id: str
    slice_ids: tuple[str, ...]
    patient_id: str = ""
    positions_mm: np.ndarray
    spacing_mm: tuple[float, float, float]
    hu: np.ndarray = field(repr=False)
    flags: tuple[Note, ...] = ()
    repairs: tuple[Note, ...] = ()
    model_name: str
    model_hash: str
    tilt_degrees: float = 0.0
    slabs: tuple[Slab, ...] = ()
    calibrated: CalibratedProbabilities | None = None
    operating_point: OperatingPoint | None = None
    explanation: Explanation | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        count = len(self.slice_ids)
        if count == 0:
            raise ValueError("ScanPrediction: no slices, expected at least one")
        _check_probabilities("slice_probabilities", self.slice_probabilities, (count, len(LABELS)))
        _check_probabilities("scan_probabilities", self.scan_probabilities, (len(LABELS),))
        if self.positions_mm.shape != (count,) or not np.isfinite(self.positions_mm).all():
            raise ValueError(f"ScanPrediction.positions_mm: {self.positions_mm.shape}, expected {count} finite positions")
        if (np.diff(self.positions_mm) < 0).any():
            raise ValueError("ScanPrediction.positions_mm: decreasing, expected slices ordered inferior to superior")
        if len(self.spacing_mm) != 3 or not all(np.isfinite(self.spacing_mm)) or min(self.spacing_mm) < 0:
            raise ValueError(f"ScanPrediction.spacing_mm: {self.spacing_mm}, expected slice, row and column spacing in mm")
        if self.slabs and len(self.slabs) != count:
            raise ValueError(f"ScanPrediction.slabs: {len(self.slabs)}, expected one per slice, or none at all")
        if self.explanation is not None and len(self.explanation) != count:
            raise ValueError(f"ScanPrediction.explanation: {len(self.explanation)} slices, expected {count}")
        if self.hu.dtype != np.int16 or self.hu.ndim != 3 or len(self.hu) != count or 0 in self.hu.shape:
            raise ValueError(f"ScanPrediction.hu: {self.hu.dtype} {self.hu.shape}, expected int16 ({count}, h, w)")

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.slice_ids)

    @property
    def side_marks(self) -> tuple[str, str]:
        """The side marks at the left and the right of a picture, with a question mark if the header does not give the sides."""
        return side_marks(self.flags)

    @property
    def end_marks(self) -> tuple[str, str]:
        """The names of the scan's first and last end, with a question mark if the header does not give the direction."""
        is_assumed = any(note.code == "order_assumed" for note in self.flags)
        return ("inferior?", "superior?") if is_assumed else ("inferior", "superior")

    @property
    def slice_calls(self) -> np.ndarray | None:
        """Calls of each slice ``(n, k)``: 1 positive, 0 negative, NaN without a threshold; None without an operating point."""
        return self.operating_point and _calls(self.slice_probabilities, self.operating_point.slice_thresholds)

    @property
    def scan_calls(self) -> np.ndarray | None:
        """Calls of the scan ``(k,)``: 1 positive, 0 negative, NaN without a threshold; None without an operating point."""
        return self.operating_point and _calls(self.scan_probabilities, self.operating_point.scan_thresholds)

    @property
    def positive_labels(self) -> tuple[str, ...]:
        """Labels that are called positive, and labels without a threshold that have a probability of at least `EVEN`."""
        calls = self.scan_calls
        probable = self.scan_probabilities >= EVEN
        return tuple(
            label for k, label in enumerate(LABELS) if (probable[k] if calls is None or np.isnan(calls[k]) else calls[k] == 1)
        )

    @property
    def shown_labels(self) -> tuple[str, ...]:
        """The labels whose heat maps are shown first: the explained types that are positive, or "any" if no type is."""
        explained = () if self.explanation is None else self.explanation.labels
        positive = tuple(label for label in self.positive_labels if label in explained)
        return tuple(label for label in positive if label != ANY) or positive

    @property
    def key_slices(self) -> dict[int, tuple[str, ...]]:
        """The slices where "any" and the positive types are most probable, as a mapping from the slice's index to these labels.

        The slice of "any" comes first, followed by the slices of the types, the most probable type first.
        """
        found: dict[int, list[str]] = {}
        types = [label for label in self.positive_labels if label != ANY]
        types.sort(key=lambda label: -self.scan_probabilities[LABELS.index(label)])
        for label in (ANY, *types):
            found.setdefault(int(self.slice_probabilities[:, LABELS.index(label)].argmax()), []).append(label)
        return {number: tuple(labels) for number, labels in found.items()}

    @property
    def calls_in_words(self) -> str:
        """The scan's positive calls as a text; empty without an operating point."""
        if self.operating_point is None:
            return ""
        calls = dict(zip(LABELS, _calls(self.scan_probabilities, self.operating_point.scan_thresholds).tolist(), strict=True))
        called = ", ".join(LABEL_NAMES[label].lower() for label, call in calls.items() if call == 1) or "nothing"
        without = ", ".join(LABEL_NAMES[label].lower() for label, call in calls.items() if np.isnan(call))
        return f"called positive: {called}" + (f"; no threshold for {without}" if without else "")

    def results(self) -> Iterator[LabelResult]:
        """Yield the result of each label in the order of ``LABELS``."""
        for k, label in enumerate(LABELS):
            peak = int(self.slice_probabilities[:, k].argmax())
            yield LabelResult(
                label,
                float(self.scan_probabilities[k]),
                peak,
                float(self.slice_probabilities[peak, k]),
                float(self.positions_mm[peak]),
            )

    def to_frame(self) -> "DataFrame":
        """The table of slices, as in ``slices.csv``: ``scan_id, slice`` (from 1), ``slice_id, position_mm``, six labels.

        With a calibration, six columns with the prefix ``calibrated_`` follow. With an operating point, six columns with the
        prefix ``called_`` follow: 1 positive, 0 negative, empty without a threshold.

        There is one row per slice of the files. A thin slice has the probabilities of its slab.
        """
        from pandas import DataFrame

        slabs = self.slabs or [Slab((i,), (p,)) for i, p in zip(self.slice_ids, self.positions_mm, strict=True)]
        ids = [slice_id for slab in slabs for slice_id in slab.ids]
        columns = {
            "scan_id": self.scan_id,
            "slice": np.arange(1, len(ids) + 1),
            "slice_id": ids,
            "position_mm": [position for slab in slabs for position in slab.positions_mm],
        }
        probabilities = np.repeat(self.slice_probabilities, [len(slab.ids) for slab in slabs], axis=0)
        frame = DataFrame(columns | dict(zip(LABELS, probabilities.T, strict=True)))
        places = np.repeat(np.arange(len(self)), [len(slab.ids) for slab in slabs])
        corrected = None if self.calibrated is None else self.calibrated.slice_probabilities[places]
        calls = self.slice_calls
        return frame.join(_further_columns(corrected, None if calls is None else calls[places]))

    def scan_frame(self) -> "DataFrame":
        """The row of the scan, as in ``scans.csv``: ``scan_id, patient_id``, six labels, ``flags, status``.

        Columns of the calibration and the operating point follow the labels, as in `to_frame`.
        """
        from pandas import DataFrame

        ids = {"scan_id": self.scan_id, "patient_id": self.patient_id}
        probabilities = dict(zip(LABELS, self.scan_probabilities.tolist(), strict=True))
        flags = ";".join(note.code for note in self.flags)
        corrected = None if self.calibrated is None else self.calibrated.scan_probabilities[None]
        calls = self.scan_calls
        further = _further_columns(corrected, None if calls is None else calls[None])
        return DataFrame([ids | probabilities]).join(further).assign(flags=flags, status="ok")

    def with_explanation(self, explanation: Explanation | None) -> "ScanPrediction":
        """Add an explanation, which pictures and pages of the prediction then show.

        Args:
            explanation: Explanation of this scan, made by `ich_lstm.explain`; None removes the present one.

        Returns:
            A new prediction; this one stays as it is.

        Raises:
            ValueError: If the explanation has another number of slices.
        """
        return replace(self, explanation=explanation)

    def plot(self) -> "Figure":
        """Plot the six probabilities along the scan, next to the slice where "any" is most probable, with heat maps if any.

        Returns:
            A matplotlib figure. A notebook displays it if it is the last line of a cell; ``figure.savefig(path)`` writes it.
        """
        from ich_lstm.pages.plots.curves import plot_scan

        return plot_scan(self)

    def to_html(self, path: str | Path) -> Path:
        """Write a self-contained HTML page of this scan.

        Args:
            path: Path of the page; its folder must exist.

        Returns:
            The path.
        """
        from ich_lstm.pages.scan_page import prediction_page

        path = Path(path)
        write_text(path, prediction_page(self))
        return path

    def __repr__(self) -> str:
        spacing = f"{self.spacing_mm[0]:.1f} mm apart"
        lines = [
            f"ScanPrediction {self.scan_id}: {_slices(len(self))}, {spacing}, "
            f"model {self.model_name} {self.model_hash[:HASH_DIGITS_SHOWN]}"
        ]
        for result in self.results():
            where = f"highest in slice {result.peak_slice + 1} at {millimetres(result.peak_position_mm)}"
            bar = _text_bar(result.probability)
            lines.append(
                f"  {result.label:<16} {percent(result.probability):>5} {bar}  {where} ({percent(result.peak_probability)})"
            )
        if self.operating_point is not None:
            lines.append(f"  operating point {self.operating_point.name}: {self.calls_in_words}")
        lines.append(f"  flags: {', '.join(note.code for note in self.flags) or 'none'}")
        lines.append(f"  {RESEARCH_USE}")
        return "\n".join(map(printable, lines)).replace("\u00a0", " ")

    def _repr_html_(self) -> str:
        """The display in notebooks: a table next to the first key slice, with the heat maps of `shown_labels` if any."""
        cell = 'style="text-align:left;padding:.2em 1em .2em 0"'
        rows = "".join(
            f"<tr><td {cell}>{LABEL_NAMES[result.label]}</td>"
            f'<td {cell}><span style="display:inline-block;width:8em;height:.7em;background:#8883">'
            f'<span style="display:block;height:100%;width:{100 * result.probability:.1f}%;background:#c77700"></span>'
            "</span></td>"
            f"<td {cell}>{escape(percent(result.probability))}</td>"
            f"<td {cell}>slice {result.peak_slice + 1}, {millimetres(result.peak_position_mm)} "
            f"({escape(percent(result.peak_probability))})</td></tr>"
            for result in self.results()
        )
        flags = escape(", ".join(note.code for note in self.flags) or "none")
        if self.operating_point is not None:
            flags += escape(f"; operating point {self.operating_point.name}: {self.calls_in_words}")
        return (
            f'<div style="display:flex;flex-wrap:wrap;gap:1.5em;align-items:flex-start">{self._picture()}'
            f"<div><p><b>Scan {escape(self.scan_id)}</b>: {_slices(len(self))}; model {escape(self.model_name)} "
            f"{escape(self.model_hash[:HASH_DIGITS_SHOWN])}; flags: {flags}</p>"
            f"<table><thead><tr><th {cell}>Label</th><th {cell}></th><th {cell}>Scan</th><th {cell}>Highest in</th></tr></thead>"
            f"<tbody>{rows}</tbody></table><p><small>{RESEARCH_USE}</small></p></div></div>"
        )

    def _picture(self) -> str:
        """The first key slice as HTML; empty if the slice is blank."""
        from ich_lstm.pages.picture import encode_heated_slice, encode_slice, is_blank, shown_size

        number = next(iter(self.key_slices))
        hu = self.hu[number]
        if is_blank(hu):
            return ""
        size = shown_size(hu.shape, self.spacing_mm[1:], PICTURE_SIDE)
        if self.explanation is not None and self.shown_labels:
            code = encode_heated_slice(hu, size, self.explanation, number, self.shown_labels)
            what = f"slice {number + 1}, heat maps: {', '.join(LABEL_NAMES[label].lower() for label in self.shown_labels)}"
        else:
            code, what = encode_slice(hu, size), f"slice {number + 1}"
        return (
            f'<figure style="margin:0"><img src="data:image/png;base64,{code}" width="{size[1]}" height="{size[0]}" alt="{what}">'
            f"<figcaption><small>{what}</small></figcaption></figure>"
        )


def _check_probabilities(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    # Only float64 is accepted, because a log loss near 0 and 1 is wrong for probabilities that were rounded to float32.
    if values.dtype != np.float64 or values.shape != shape:
        raise ValueError(f"ScanPrediction.{name}: {values.dtype} {values.shape}, expected float64 {shape}")
    if not ((values >= 0) & (values <= 1)).all():  # NaN fails both
        raise ValueError(f"ScanPrediction.{name}: outside [0, 1] or not finite, expected probabilities")


def _calls(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """1 where a probability is at or above its threshold, 0 where it is below, NaN without a threshold."""
    return np.where(np.isnan(thresholds), np.nan, probabilities >= thresholds)


def _further_columns(corrected: np.ndarray | None, calls: np.ndarray | None) -> "DataFrame":
    """The columns of calibrated probabilities and of calls, each ``(m, k)``; None leaves its columns out."""
    from pandas import DataFrame, concat

    frames = []
    if corrected is not None:
        frames.append(DataFrame(corrected, columns=[CALIBRATED_PREFIX + label for label in LABELS]))
    if calls is not None:
        frames.append(DataFrame(calls, columns=[CALLED_PREFIX + label for label in LABELS]).astype("Int64"))
    return concat(frames, axis=1) if frames else DataFrame()


def _slices(count: int) -> str:
    return "1 slice" if count == 1 else f"{count} slices"


def _text_bar(probability: float) -> str:
    """A text bar with a resolution of an eighth of a character."""
    eighths = round(probability * BAR_CELLS * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(BAR_CELLS, "·")
