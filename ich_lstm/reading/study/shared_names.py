"""Finds names that images of several patients share: by such a name, a label or report could be assigned to the wrong person."""

from collections import defaultdict
from collections.abc import Sequence

from ich_lstm.reading.header.examinations import SAME_PATIENT, Origin, is_same_patient, relate
from ich_lstm.reading.series.load import Series
from ich_lstm.reading.study.choose import Study

Name = tuple[str, str]
"""The kind of a name (``accession_number``, ``study_uid`` or ``series_uid``), and the name."""


def find_shared_names(studies: Sequence[Study]) -> frozenset[Name]:
    """Find the accession numbers and UIDs that occur in images of more than one patient; most sources have none.

    Args:
        studies: All studies of a source, including those from which nothing will be read.

    Returns:
        The shared names, including names of two studies whose patient is not certain to be the same.
    """
    known: dict[Name, list[tuple[int, Origin]]] = defaultdict(list)
    shared: set[Name] = set()
    for number, study in enumerate(studies):
        for origin in study.origins:
            for name in _names_of(study, origin):
                if name in shared:
                    continue
                others = known[name]
                if any(not _is_same_patient(number, origin, *other) for other in others):
                    shared.add(name)
                    del known[name]
                else:
                    others.append((number, origin))
    return frozenset(shared)


def _names_of(study: Study, origin: Origin) -> list[Name]:
    uids = {("series_uid", uid) for series in study.series for uid in series.series_uids}
    return [name for name in (("accession_number", origin.accession_number), ("study_uid", study.study_uid), *uids) if name[1]]


def _is_same_patient(number: int, origin: Origin, other_number: int, other: Origin) -> bool:
    return relate(origin, other) in SAME_PATIENT if number == other_number else is_same_patient(origin, other)


def shared_kinds(shared: frozenset[Name], study: Study, series: Series) -> str:
    """The kinds of names by which a series must not be identified, separated by blanks; usually empty.

    Args:
        shared: Shared names from :func:`find_shared_names`.
        study: The study that contains the series.
        series: The series to check.
    """
    if not shared:
        return ""
    mine = {("study_uid", study.study_uid), *(("series_uid", uid) for uid in series.series_uids)}
    kinds = {kind for kind, _ in shared & (mine | {("accession_number", origin.accession_number) for origin in study.origins})}
    if "series_uid" in kinds:
        kinds.add("sop_uid")  # software that copies the UIDs of series also copies those of slices
    return " ".join(sorted(kinds))
