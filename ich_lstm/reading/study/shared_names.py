"""Names shared by images of several patients, with which a label or report could be assigned to the wrong person."""

from collections import defaultdict
from collections.abc import Sequence

from ich_lstm.reading.header.examinations import SAME_PATIENT, Origin, is_same_patient, relate
from ich_lstm.reading.series.load import Series
from ich_lstm.reading.study.choose import Study

Name = tuple[str, str]
"""A kind (``accession_number``, ``study_uid`` or ``series_uid``), and a name of that kind."""


def find_shared_names(studies: Sequence[Study]) -> frozenset[Name]:
    """The accession numbers and UIDs that images of more than one patient have; of most sources none.

    Args:
        studies: All of a source, those too from which nothing will be read.

    Returns:
        Also what two studies share whose patient nobody can tell.
    """
    known: dict[Name, list[tuple[int, Origin]]] = defaultdict(list)
    shared: set[Name] = set()
    for number, study in enumerate(studies):
        for origin in study.origins:
            for name in _names(study, origin):
                if name in shared:
                    continue
                others = known[name]
                if any(not _is_same_patient(number, origin, *other) for other in others):
                    shared.add(name)
                    del known[name]
                else:
                    others.append((number, origin))
    return frozenset(shared)


def _names(study: Study, origin: Origin) -> list[Name]:
    uids = {("series_uid", uid) for series in study.series for uid in series.series_uids}
    return [name for name in (("accession_number", origin.accession_number), ("study_uid", study.study_uid), *uids) if name[1]]


def _is_same_patient(number: int, origin: Origin, other_number: int, other: Origin) -> bool:
    return relate(origin, other) in SAME_PATIENT if number == other_number else is_same_patient(origin, other)


def shared_kinds(shared: frozenset[Name], study: Study, series: Series) -> str:
    """By which kinds of names a series must not be called, with blanks between; usually empty.

    Args:
        shared: The shared names that `find_shared_names` found.
        study: That of the series.
        series: The series.
    """
    if not shared:
        return ""
    mine = {("study_uid", study.study_uid), *(("series_uid", uid) for uid in series.series_uids)}
    kinds = {kind for kind, _ in shared & (mine | {("accession_number", origin.accession_number) for origin in study.origins})}
    if "series_uid" in kinds:
        kinds.add("sop_uid")  # what copies the UID of a series does not stop at its slices
    return " ".join(sorted(kinds))
