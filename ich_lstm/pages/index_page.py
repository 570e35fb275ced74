"""The HTML page that lists many scans, the most urgent first."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from ich_lstm.formatting import percent
from ich_lstm.labels import ANY, HEMORRHAGE_TYPES, LABEL_NAMES, LABEL_SHORT, LABELS
from ich_lstm.pages.picture import encode_slice, is_blank, shown_size
from ich_lstm.pages.style import render
from ich_lstm.prediction import ScanPrediction

OK = "ok"
THUMBNAIL_SIDE = 56


class IndexRow(NamedTuple):
    """One study in the list.

    Args:
        rank: Position by urgency, from 1; None if the study has no result, which places it at the end.
        scan_id: Keyed hash of the scan's identifier.
        title: Title that readers recognize; if empty, the id is shown.
        status: ``ok``, or the code of the reason why there is no result.
        reason: The reason as a readable text; empty if the status is ``ok``.
        probabilities: Probabilities of the scan in the order of ``LABELS``; None without a result.
        called: Labels that are called positive; empty if there are none, or the model has no operating point.
        flags: Codes of the flags of the scan.
        page: Relative address of the study's page; empty if there is no page.
        thumbnail: Base64 of a PNG, made by `encode_thumbnail`; empty if there is no thumbnail.
    """

    rank: int | None
    scan_id: str
    title: str
    status: str
    reason: str
    probabilities: tuple[float, ...] | None
    called: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    page: str = ""
    thumbnail: str = ""


class Cell(NamedTuple):
    """One probability in the form that the template needs."""

    share: str
    text: str
    is_called: bool


def index_page(
    rows: Sequence[IndexRow],
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    has_operating_point: bool | None = None,
) -> str:
    """Make the page as HTML text: self-contained; without JavaScript, it is a plain table.

    Args:
        rows: The studies of the page, in any order.
        title: The heading of the page.
        facts: Facts at the head of the page, such as model and number of studies, by name.
        notes: Sentences at the head of the page that readers must know.
        has_operating_point: Whether the model has an operating point at which labels are called positive; None if unknown.

    Raises:
        ValueError: If a row has a wrong number of probabilities, an unknown label, or a page whose address is not relative.
    """
    for row in rows:
        _check(row)
    ordered = sorted(rows, key=lambda row: (row.rank is None, row.rank or 0))
    done = [row for row in rows if row.probabilities is not None]
    return render(
        "index_page.html.j2",
        title=title,
        facts=facts or {},
        notes=notes,
        rows=[(row, _cells(row)) for row in ordered],
        counts={
            "all": len(rows),
            "done": len(done),
            "failed": len(rows) - len(done),
            "called": sum(bool(row.called) for row in rows),
        },
        columns=(ANY, *HEMORRHAGE_TYPES),
        short=LABEL_SHORT,
        names={label: LABEL_NAMES[label].lower() for label in LABELS},
        called=[label for label in (ANY, *HEMORRHAGE_TYPES) if any(label in row.called for row in rows)],
        statuses=sorted({row.status for row in rows if row.status != OK}),
        flags=sorted({flag for row in rows for flag in row.flags}),
        has_operating_point=has_operating_point,
        has_thumbnails=any(row.thumbnail for row in rows),
        ok=OK,
    )


def encode_thumbnail(prediction: ScanPrediction) -> str:
    """Encode the first key slice as base64 of a small PNG; empty if the slice contains only air."""
    hu = prediction.hu[next(iter(prediction.key_slices))]
    return "" if is_blank(hu) else encode_slice(hu, shown_size(hu.shape, prediction.spacing_mm[1:], THUMBNAIL_SIDE))


def _check(row: IndexRow) -> None:
    if row.probabilities is not None and len(row.probabilities) != len(LABELS):
        raise ValueError(f"IndexRow.probabilities: {len(row.probabilities)}, expected {len(LABELS)}, or None")
    if not set(row.called) <= set(LABELS):
        raise ValueError(f"IndexRow.called: {row.called}, expected labels")
    address = urlsplit(row.page)
    if address.scheme or address.netloc or row.page.startswith(("/", "\\")):
        raise ValueError(f"IndexRow.page: {row.page!r}, expected a relative address")


def _cells(row: IndexRow) -> list[Cell]:
    """Format the probabilities of a row in the order of the columns."""
    if row.probabilities is None:
        return []
    by_label = dict(zip(LABELS, row.probabilities, strict=True))
    return [Cell(f"{by_label[label]:.4f}", percent(by_label[label]), label in row.called) for label in (ANY, *HEMORRHAGE_TYPES)]
