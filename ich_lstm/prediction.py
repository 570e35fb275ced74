"""The prediction of a model for one scan, with the tables, pictures and page that show it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ich_lstm.explanation import Explanation
from ich_lstm.formatting import RESEARCH_USE, millimetres, percent, side_marks
from ich_lstm.labels import ANY, LABEL_NAMES, LABELS
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
"""Where there is no threshold: a label from here on is more probable than not. It decides what is shown first, nothing else."""


class LabelResult(NamedTuple):
    """One label's result in a scan, and the slice where it is most probable (its index, from 0)."""

    label: str
    probability: float
    peak_slice: int
    peak_probability: float
    peak_position_mm: float


class OperatingPoint(NamedTuple):
    """Where labels are called positive.

    Args:
        name: The rule that chose it.
        slice_thresholds: ``(k,)``: a slice's label is called positive at or above; NaN: there is no threshold.
        scan_thresholds: ``(k,)``: a scan's label is called positive at or above; NaN: there is no threshold.
        chosen_on: On whom, in words.
        sensitivity: ``(k, 3)``: of scans of those patients, and the limits of its 95 % interval; NaN: unknown. None: of no
            label.
        specificity: ``(k, 3)``: of scans of those patients, and the limits of its 95 % interval; NaN: unknown. None: of no
            label.
    """

    name: str
    slice_thresholds: np.ndarray
    scan_thresholds: np.ndarray
    chosen_on: str
    sensitivity: np.ndarray | None = None
    specificity: np.ndarray | None = None


class CalibratedProbabilities(NamedTuple):
    """Probabilities after a correction that was fitted on other patients.

    Args:
        slice_probabilities: ``(n, k)``; NaN for labels that could not be corrected.
        scan_probabilities: ``(k,)``; NaN for labels that could not be corrected.
        how: In words.
    """

    slice_probabilities: np.ndarray
    scan_probabilities: np.ndarray
    how: str


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ScanPrediction:
    """Probabilities of the six labels for one scan and for each of its slices.

    Slices are in the order of the scan, inferior to superior; tables, pictures and pages number them from 1.

    Args:
        slice_probabilities: float64 ``(n, k)`` within [0, 1], labels in the order of ``LABELS``.
        scan_probabilities: float64 ``(k,)`` within [0, 1].
        scan_id: Keyed hash of the series.
        slice_ids: Keyed hash of each slice.
        patient_id: Keyed hash of the patient; empty if unknown.
        positions_mm: Position of each slice along the slice normal, ``(n,)``, not decreasing.
        spacing_mm: Distance of slices, row spacing, column spacing.
        hu: What the page shows: Hounsfield units, int16 ``(n, h, w)``, in the radiological display convention.
        flags: What a reader of the result should know.
        repairs: What was wrong in the files and has been put right.
        model_name: Name of the model.
        model_hash: Hash of its weights.
        tilt_degrees: Angle between the slice normal and the body axis.
        slabs: Where each slice is a slab of thin ones: the keyed hashes and positions of those. Tables have a row for each
            of them, with the probabilities of its slab.
        calibrated: Corrected probabilities, beside those of the model; None if nothing was fitted.
        operating_point: Where labels are called positive; None if nothing was chosen.
        explanation: Heat maps, and what each slice contributes; None if the model was not asked.
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
            raise ValueError(f"ScanPrediction.explanation: of {len(self.explanation)} slices, expected {count}")
        if self.hu.dtype != np.int16 or self.hu.ndim != 3 or len(self.hu) != count or 0 in self.hu.shape:
            raise ValueError(f"ScanPrediction.hu: {self.hu.dtype} {self.hu.shape}, expected int16 ({count}, h, w)")

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.slice_ids)

    @property
    def side_marks(self) -> tuple[str, str]:
        """What stands at the left and the right of a picture, with a question mark where the header did not say."""
        return side_marks(self.flags)

    @property
    def end_marks(self) -> tuple[str, str]:
        """The names of the scan's first and last end, with a question mark where the header did not say."""
        is_assumed = any(note.code == "order_assumed" for note in self.flags)
        return ("inferior?", "superior?") if is_assumed else ("inferior", "superior")

    @property
    def slice_calls(self) -> np.ndarray | None:
        """What is called positive (1) or not (0), ``(n, k)``; NaN without a threshold; None without an operating point."""
        return self.operating_point and _calls(self.slice_probabilities, self.operating_point.slice_thresholds)

    @property
    def scan_calls(self) -> np.ndarray | None:
        """Which labels of the scan are called positive, ``(k,)``; None without an operating point."""
        return self.operating_point and _calls(self.scan_probabilities, self.operating_point.scan_thresholds)

    @property
    def positive_labels(self) -> tuple[str, ...]:
        """Labels that are called positive; where there is no threshold, those with a probability of at least `EVEN`."""
        calls = self.scan_calls
        probable = self.scan_probabilities >= EVEN
        return tuple(
            label for k, label in enumerate(LABELS) if (probable[k] if calls is None or np.isnan(calls[k]) else calls[k] == 1)
        )

    @property
    def shown_labels(self) -> tuple[str, ...]:
        """The labels whose heat maps are shown at first: the explained types that are positive, or "any" if it alone is."""
        explained = () if self.explanation is None else self.explanation.labels
        positive = tuple(label for label in self.positive_labels if label in explained)
        return tuple(label for label in positive if label != ANY) or positive

    @property
    def key_slices(self) -> dict[int, tuple[str, ...]]:
        """The slices where "any" and the positive types are most probable: index from 0 to those labels.

        "Any" is first, then the most probable type.
        """
        found: dict[int, list[str]] = {}
        types = [label for label in self.positive_labels if label != ANY]
        types.sort(key=lambda label: -self.scan_probabilities[LABELS.index(label)])
        for label in (ANY, *types):
            found.setdefault(int(self.slice_probabilities[:, LABELS.index(label)].argmax()), []).append(label)
        return {number: tuple(labels) for number, labels in found.items()}

    @property
    def calls_in_words(self) -> str:
        """What the operating point makes of the scan; empty without one."""
        if self.operating_point is None:
            return ""
        calls = dict(zip(LABELS, _calls(self.scan_probabilities, self.operating_point.scan_thresholds).tolist(), strict=True))
        called = ", ".join(LABEL_NAMES[label].lower() for label, call in calls.items() if call == 1) or "nothing"
        without = ", ".join(LABEL_NAMES[label].lower() for label, call in calls.items() if np.isnan(call))
        return f"called positive: {called}" + (f"; no threshold for {without}" if without else "")

    def results(self) -> Iterator[LabelResult]:
        """Each label's result in the order of ``LABELS``, with the slice where it is most probable."""
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
        """One row per slice, as in ``slices.csv``: ``scan_id, slice`` (from 1), ``slice_id, position_mm``, six labels.

        With ``calibrated_`` before them six corrected probabilities, and with ``called_`` what is called positive (1, 0 or
        empty), if there are any.

        Of slabs, one row per slice of the files, with its slab's probabilities.
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
        """One row for the scan, as in ``scans.csv``: ``scan_id, patient_id``, six labels, ``flags, status``.

        After the labels stand the further columns of `to_frame`, if there are any.
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
        """This prediction with heat maps and contributions, which its pictures and its page then show.

        Args:
            explanation: Explanation of this scan, made by `ich_lstm.explain`; None removes the present one.

        Returns:
            A new prediction; this one stays as it is.

        Raises:
            ValueError: If the explanation has another number of slices.
        """
        return replace(self, explanation=explanation)

    def plot(self) -> "Figure":
        """The six probabilities along the scan, beside the slice where "any" is most probable, with heat maps if any.

        In a notebook the figure shows itself where it is a cell's last line; ``figure.savefig(path)`` writes it.
        """
        from ich_lstm.pages.plots.curves import plot_scan

        return plot_scan(self)

    def to_html(self, path: str | Path) -> Path:
        """Write the self-contained page of this scan; the folder must exist."""
        from ich_lstm.pages.scan_page import prediction_page

        path = Path(path)
        path.write_text(prediction_page(self), encoding="utf-8")
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
        return "\n".join(lines).replace("\u00a0", " ")

    def _repr_html_(self) -> str:
        """For notebooks: a table beside the first key slice, with the heat maps of `shown_labels` if there are any."""
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
    # float64 from the logits on: the log loss of a probability that went through float32 is wrong near 0 and 1.
    if values.dtype != np.float64 or values.shape != shape:
        raise ValueError(f"ScanPrediction.{name}: {values.dtype} {values.shape}, expected float64 {shape}")
    if not ((values >= 0) & (values <= 1)).all():  # NaN fails both
        raise ValueError(f"ScanPrediction.{name}: outside [0, 1] or not finite, expected probabilities")


def _calls(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(thresholds), np.nan, probabilities >= thresholds)


def _further_columns(corrected: np.ndarray | None, calls: np.ndarray | None) -> "DataFrame":
    """Six columns of each that is there; ``(m, k)`` each."""
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
    """A bar of eighths of a cell."""
    eighths = round(probability * BAR_CELLS * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(BAR_CELLS, "·")
