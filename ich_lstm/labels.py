"""The set of labels: what each is called, drawn and coded as, and which label is the union of which.

To add a finding, add it here, teach the reader of the data set that knows it, and test both. Models, tables and reports
take the order, the names and the colours from here.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Label:
    """One label.

    Args:
        name: In arrays, tables and files, in RSNA's spelling.
        title: As people read it.
        short: As radiologists abbreviate it.
        color: On a light ground, as ``#rrggbb``: the palette of Okabe and Ito (2008), which stays distinct to colour-blind eyes.
        heat_color: On a dark image, as ``#rrggbb``.
        dashes: A second cue beside the colour: lengths of line and gap in units of a line's width; empty for a solid line.
        heat_dashes: The second cue of contours: lengths of line and gap in pixels; empty for a solid line.
        finding: What it is, as a DICOM code: value, scheme and meaning. A private code stands where no source could be named for
            a public one of the same meaning.
        site: Where it is, as a DICOM code of CID 7151, which has neither an epidural nor a subdural space.
        weight: In the RSNA 2019 log loss.
        synonyms: What tables of others call its column, in small letters.
        union_of: Names of the labels of which one is present where this one is; empty for a type.
    """

    name: str
    title: str
    short: str
    color: str
    heat_color: str
    dashes: tuple[float, ...]
    heat_dashes: tuple[int, ...]
    finding: tuple[str, str, str]
    site: tuple[str, str, str]
    weight: float = 1.0
    synonyms: tuple[str, ...] = ()
    union_of: tuple[str, ...] = ()


PRIVATE_SCHEME = "99ICHLSTM"
"""Designators of coding schemes that begin with 99 are private (PS3.16, 8)."""

_INTRACRANIAL = ("1101003", "SCT", "Intracranial")

_TYPES = (
    Label(
        name="epidural",
        title="Epidural",
        short="EDH",
        color="#0072b2",
        heat_color="#f0e442",  # the palette's yellow: its blue is too dark beside bone
        dashes=(),
        heat_dashes=(),
        finding=("epidural", PRIVATE_SCHEME, "Epidural hemorrhage"),
        site=_INTRACRANIAL,
        synonyms=("edh",),
    ),
    Label(
        name="intraparenchymal",
        title="Intraparenchymal",
        short="IPH",
        color="#d55e00",
        heat_color="#d55e00",
        dashes=(6, 2),
        heat_dashes=(8, 4),
        finding=("intraparenchymal", PRIVATE_SCHEME, "Intraparenchymal hemorrhage"),
        site=("12738006", "SCT", "Brain"),
        synonyms=("iph",),
    ),
    Label(
        name="intraventricular",
        title="Intraventricular",
        short="IVH",
        color="#009e73",
        heat_color="#009e73",
        dashes=(1.5, 1.5),
        heat_dashes=(2, 3),
        finding=("intraventricular", PRIVATE_SCHEME, "Intraventricular hemorrhage"),
        site=("35764002", "SCT", "Brain ventricle"),
        synonyms=("ivh",),
    ),
    Label(
        name="subarachnoid",
        title="Subarachnoid",
        short="SAH",
        color="#cc79a7",
        heat_color="#cc79a7",
        dashes=(6, 2, 1.5, 2),
        heat_dashes=(10, 3, 2, 3),
        finding=("21454007", "SCT", "Subarachnoid intracranial hemorrhage"),
        site=("35951006", "SCT", "Subarachnoid space"),
        synonyms=("sah",),
    ),
    Label(
        name="subdural",
        title="Subdural",
        short="SDH",
        color="#56b4e9",
        heat_color="#56b4e9",
        dashes=(3, 1.5),
        heat_dashes=(5, 2),
        finding=("subdural", PRIVATE_SCHEME, "Subdural hemorrhage"),
        site=_INTRACRANIAL,
        synonyms=("sdh",),
    ),
)

LABEL_SET = (
    *_TYPES,
    Label(
        name="any",
        title="Any hemorrhage",
        short="Any",
        color="#1c1f23",
        heat_color="#ffffff",
        dashes=(),
        heat_dashes=(),
        finding=("1386000", "SCT", "Intracranial hemorrhage"),
        site=_INTRACRANIAL,
        weight=2.0,
        synonyms=("ich", "hemorrhage"),
        union_of=tuple(label.name for label in _TYPES),
    ),
)
"""All labels, in the one order used for every array, table and file (RSNA's own)."""

LABELS = tuple(label.name for label in LABEL_SET)
HEMORRHAGE_TYPES = tuple(label.name for label in LABEL_SET if not label.union_of)
(ANY,) = (label.name for label in LABEL_SET if label.union_of)

LABEL_WEIGHTS = tuple(label.weight for label in LABEL_SET)
"""Weights of the RSNA 2019 log loss: "any" counts twice."""

LABEL_NAMES = {label.name: label.title for label in LABEL_SET}
LABEL_SHORT = {label.name: label.short for label in LABEL_SET}

UNIONS = {LABELS.index(label.name): tuple(LABELS.index(name) for name in label.union_of) for label in LABEL_SET if label.union_of}
"""The place of each union in the order of labels, and the places of what it is the union of."""


def unions_of(labels: np.ndarray) -> np.ndarray:
    """What the members of each union imply for it: 1 if one of them is 1, 0 if all are 0, otherwise unknown.

    Args:
        labels: ``(rows, k)`` in the order of `LABELS`: 1 present, 0 absent, NaN unknown.

    Returns:
        Float32 ``(rows, k)``; NaN in the columns of labels that are not a union.

    Example:
        >>> unions_of(np.array([[0, 1, 0, 0, np.nan, np.nan]]))
        array([[nan, nan, nan, nan, nan,  1.]], dtype=float32)
    """
    implied = np.full(labels.shape, np.nan, np.float32)
    for union, members in UNIONS.items():
        types = labels[:, list(members)]
        implied[:, union] = np.where((types == 1).any(axis=1), 1, np.where((types == 0).all(axis=1), 0, np.nan))
    return implied


def never_absent(labels: np.ndarray) -> np.ndarray:
    """Find labels that are known only as present. They teach a network nothing but to call them always present.

    This happens if a table has a column for one type alone: "any" is then known where that type is present, and nowhere else.

    Args:
        labels: Labels ``(m, k)``: 1 present, 0 absent, NaN unknown.

    Returns:
        Whether each label is known as present and never as absent, bool ``(k,)``.

    Example:
        >>> never_absent(np.array([[1.0, 0.0], [np.nan, 1.0]])).tolist()
        [True, False]
    """
    return (labels == 1).any(axis=0) & ~(labels == 0).any(axis=0)


def complete_labels(labels: np.ndarray) -> np.ndarray:
    """Fill in unknown labels that follow from known ones.

    A type that is 1 makes its union 1, types that are all 0 make it 0, and a union that is 0 makes its types 0. A union that is 1
    although no type is stays: it is right where readers agree that there is blood and disagree on the type.

    Args:
        labels: ``(rows, k)`` in the order of `LABELS`: 1 present, 0 absent, NaN unknown.

    Returns:
        Float32 ``(rows, k)``; known labels are unchanged.

    Example:
        >>> complete_labels(np.array([[np.nan, 1, np.nan, np.nan, 0, np.nan]]))
        array([[nan,  1., nan, nan,  0.,  1.]], dtype=float32)
    """
    complete = np.where(np.isnan(labels), unions_of(labels), labels).astype(np.float32)
    for union, members in UNIONS.items():
        types = complete[:, list(members)]
        complete[:, list(members)] = np.where(np.isnan(types) & (complete[:, [union]] == 0), 0, types)
    return complete
