"""Chooses the plain axial brain series of a study, and states why the others were not chosen."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ich_lstm.errors import FileError, StudyError
from ich_lstm.reading.header.examinations import (
    IDENTITY_FIELDS,
    ORIGIN_FIELDS,
    Origin,
    common_identity,
    folder_of,
    make_origin,
    origin_of,
    split_examinations,
    split_patients,
)
from ich_lstm.reading.header.geometry import SAME_POSITION_MM, is_position
from ich_lstm.reading.header.header import SliceHeader, read_frames
from ich_lstm.reading.ledger.header_table import HeaderRows, Rows, take_headers, values_of
from ich_lstm.reading.ledger.ledger import Ledger
from ich_lstm.reading.series.load import Series, name_series, short_uid
from ich_lstm.reading.study.acquisitions import Acquisitions
from ich_lstm.reading.study.rules import Facts, describe, facts_of, first_exclusion, preference

WHOLE_HEAD_MM = 120.0
COVERAGE_SHARE = 0.75
"""A series shows only part of the head if it covers less than this share of what another one covers (120 mm at most)."""

SOFT_OVERRIDES = frozenset({"derived_map", "not_head", "bone_kernel", "partial_coverage"})
"""Reasons that are overridden if the user names the series. Other reasons mean that it is not a scan, or not a plain one."""


@dataclass(frozen=True)
class Study:
    """One examination of a patient.

    Args:
        study_uid: Study Instance UID (0020,000D).
        patient_id: Patient ID (0010,0020); empty if the images do not agree on one.
        series: Series of the study, at least one.
        qualifier: Text that distinguishes studies under one UID: patient, examination, folder. Private; usually empty.
        origins: Patient and examination as stated by the images; empty if unknown, as for a NIfTI file.
    """

    study_uid: str
    patient_id: str
    series: tuple[Series, ...]
    qualifier: str = ""
    origins: frozenset[Origin] = frozenset()

    @property
    def identifier(self) -> str:
        """An identifier that is unique in the source: the UID, with the qualifier if several studies share the UID."""
        return f"{self.study_uid}|{self.qualifier}" if self.qualifier else self.study_uid

    def decoded(self) -> "Study":
        """The study with decoded headers.

        An index holds millions of headers undecoded. A function that ranks, chooses or loads the series of a study decodes
        its headers once.
        """
        return replace(self, series=tuple(series.decoded() for series in self.series))


class Candidate(NamedTuple):
    """A series and its rank in its study.

    Args:
        series: The series that was ranked.
        eligible: Whether the series may be read for prediction.
        rank: Rank in the study, 1 for the best; series that are not eligible come last.
        code: Reason code if the series is not eligible; otherwise empty.
        reason: Text for a person: why the series is not eligible, or a description of it. Contains no identity.
    """

    series: Series
    eligible: bool
    rank: int
    code: str
    reason: str


def rank_series(study: Study, *, allow_contrast: bool = False, allow_other_part: bool = False) -> list[Candidate]:
    """Rank the series of a study, best first, each with a reason.

    Args:
        study: The study whose series are ranked.
        allow_contrast: Accept contrast-enhanced series; they rank last.
        allow_other_part: Accept series that are of another part of the body by their names; they rank last.
    """
    allowed = {code for code, allow in (("contrast", allow_contrast), ("not_head", allow_other_part)) if allow}
    eligible: list[Facts] = []
    others: list[tuple[Facts, str, str]] = []
    for facts in map(facts_of, study.series):
        code, reason = first_exclusion(facts, allowed)
        if code:
            others.append((facts, code, reason))
        else:
            eligible.append(facts)
    most = min(max((facts.coverage_mm for facts in eligible), default=0.0), WHOLE_HEAD_MM)
    for facts in list(eligible):
        if facts.coverage_mm < COVERAGE_SHARE * most:
            eligible.remove(facts)
            reason = f"covers {facts.coverage_mm:.0f} mm, another series at least {most:.0f} mm"
            others.append((facts, "partial_coverage", reason))
    eligible.sort(key=preference)
    others.sort(key=lambda other: (other[0].number, other[0].series.series_uid, other[1], str(other[0].first.source)))
    ranked = [Candidate(facts.series, True, i, "", describe(facts)) for i, facts in enumerate(eligible, 1)]
    ranked += [Candidate(facts.series, False, i, code, reason) for i, (facts, code, reason) in enumerate(others, len(ranked) + 1)]
    return ranked


def choose_series(
    study: Study,
    series_uid: str | None = None,
    *,
    allow_contrast: bool = False,
    allow_other_part: bool = False,
    ledger: Ledger | None = None,
) -> Candidate:
    """Choose the series of a study that is read.

    The headers of the study are decoded here. The returned series holds them, so that :func:`load_scan` does not build them
    again.

    Args:
        study: The study to choose from.
        series_uid: UID of the series to take in place of the best, or the beginning of the UID. It may be a bone or partial
            series, but not a localizer, a screenshot, or a contrast-enhanced series (unless allowed).
        allow_contrast: Accept contrast-enhanced series.
        allow_other_part: Accept series that are of another part of the body by their names.
        ledger: Records all slices that are not read, with the reason.

    Raises:
        StudyError: ``no_series`` if no series is suitable; ``no_such_series`` if the named series does not exist or is not
            unique. The message states the reason for every candidate.
    """
    study = study.decoded()
    ranked = rank_series(study, allow_contrast=allow_contrast, allow_other_part=allow_other_part)
    return choose_among(study, ranked, series_uid, ledger=ledger)


def choose_among(
    study: Study, ranked: list[Candidate], series_uid: str | None = None, *, ledger: Ledger | None = None
) -> Candidate:
    """Choose the series that is read from an existing ranking, by the rules of :func:`choose_series`.

    Args:
        study: The study to choose from.
        ranked: The ranking from :func:`rank_series`.
        series_uid: UID of the series to take in place of the best, or the beginning of the UID.
        ledger: Records all slices that are not read, with the reason.

    Raises:
        StudyError: ``no_series`` or ``no_such_series``, see :func:`choose_series`.
    """
    chosen: Candidate | None = ranked[0] if ranked and ranked[0].eligible else None
    if series_uid is not None:
        named = [candidate for candidate in ranked if series_uid in candidate.series.series_uids] or [
            candidate for candidate in ranked if any(uid.startswith(series_uid) for uid in candidate.series.series_uids)
        ]
        if len({candidate.series.series_uid for candidate in named}) != 1:
            raise StudyError(
                "no_such_series",
                where=_name_study(study),
                got=f"{len(named)} series whose UID begins with {series_uid}",
                expected="one",
                todo=f"Choose among: {_list_candidates(ranked)}",
            )
        chosen = named[0] if named[0].eligible or named[0].code in SOFT_OVERRIDES else None
        if chosen is None:
            ranked = named
    if ledger is not None:
        for candidate in ranked:
            if candidate is not chosen:
                reason = candidate.reason if candidate.code else _why_not(candidate.series, chosen)
                ledger.mark(candidate.series.headers, candidate.code or "not_chosen", reason)
    if chosen is None:
        raise StudyError(
            ranked[0].code if len(ranked) == 1 else "no_series",
            where=_name_study(study),
            got=f"no plain axial head series: {_list_candidates(ranked)}",
            todo="If one of them is the right series, name it (--series of ich-predict, --choices of ich-prepare).",
        )
    return chosen


def _why_not(series: Series, chosen: Candidate | None) -> str:
    """The reason for an eligible series that was not chosen."""
    of_its_series = chosen is not None and series.acquisition and series.series_uid == chosen.series.series_uid
    return f"another {'acquisition of the series' if of_its_series else 'series of the study'} is read"


def _name_study(study: Study) -> str:
    return f"study {short_uid(study.study_uid) or 'without UID'}"


def _list_candidates(candidates: Sequence[Candidate]) -> str:
    return "; ".join(
        f"{name_series(candidate.series)} {candidate.series.headers[0].series_description!r}: {candidate.reason}"
        for candidate in candidates
    )


def group_studies(headers: HeaderRows) -> list[Study]:
    """Group headers into studies, ordered by UID, each with its series ordered by UID.

    A study is defined by Study Instance UID, patient and examination (:mod:`ich_lstm.reading.header.examinations`). One Series
    Instance UID in the files of two patients is two series. A series whose images cannot be assigned to patients is kept as a
    study of its own, which is refused.
    """
    table = headers.table
    study_codes, study_uids = table.codes("study_uid")
    series_codes, series_uids = table.codes("series_uid")
    kernel_codes, _ = table.codes("kernel")
    multi_frame = table.column("frames").to_numpy() > 1
    acquisitions = Acquisitions(table)
    order = headers.rows[np.lexsort((series_codes[headers.rows], study_codes[headers.rows]))]
    starts = np.flatnonzero(np.diff(study_codes[order]) | np.diff(series_codes[order])) + 1
    groups = np.split(order, starts) if len(order) else []
    is_mixed = np.logical_or.reduceat(_differs_from_last(table, order, starts), [0, *starts]) if groups else np.zeros(0, bool)
    found: dict[str, list[_OneSeries]] = {}
    firsts = HeaderRows(table, order[[0, *starts]] if groups else order)
    first_values = zip(_origins_of(firsts), firsts.values("patient_id"), strict=True)
    for rows, mixed, (origin, patient_id) in zip(groups, is_mixed, first_values, strict=True):
        study_uid, series_uid = study_uids[study_codes[rows[0]]].as_py(), series_uids[series_codes[rows[0]]].as_py()
        for mine, origins in _split_by_patient(table, rows) if mixed or not study_uid else [(rows, frozenset({origin}))]:
            # The sort makes a copy: a view would keep the order of the whole table in memory.
            series = Series(series_uid, HeaderRows(table, np.sort(mine).astype(np.uint32)))
            if multi_frame[mine].any():
                series = with_frames(series)
            patient = patient_id if len(origins) == 1 and not mixed else common_identity(series.headers).patient_id
            one_kernel = bool((kernel_codes[mine] == kernel_codes[mine[0]]).all())
            split = [each for one in ([series] if one_kernel else split_by_kernel(series)) for each in acquisitions.split(one)]
            found.setdefault(study_uid, []).extend(_OneSeries(origins, patient, each) for each in split)
    return make_identifiers_unique(
        [study for uid in sorted(found) for study in _split_by_examination(uid, found[uid], acquisitions)]
    )


class _OneSeries(NamedTuple):
    """A series of one patient, or one that cannot be split by patient.

    Args:
        origins: Patient and examination as stated by the images.
        patient_id: Patient ID on which the images agree; otherwise empty.
        series: The series itself.
    """

    origins: frozenset[Origin]
    patient_id: str
    series: Series


def _differs_from_last(table: Rows, order: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Whether each row has another patient or examination than the row before it in its series, bool ``(n,)`` in this order."""
    differs = np.zeros(len(order), bool)
    for name in IDENTITY_FIELDS:
        codes, values = table.codes(name)
        if len(values) > 1:
            differs[1:] |= np.diff(codes[order]) != 0
    differs[starts] = False
    return differs


def _split_by_patient(table: Rows, rows: np.ndarray) -> list[tuple[np.ndarray, frozenset[Origin]]]:
    """The rows of one Series Instance UID, split by patient if that is safe, with the origins of each group."""
    origins = _origins_of(HeaderRows(table, rows))
    patients = split_patients(origins)
    if patients is None:
        return [(rows, frozenset(origins))]
    return [(rows[[origin in patient for origin in origins]], frozenset(patient)) for patient in patients]


def _origins_of(headers: HeaderRows) -> list[Origin]:
    """The origin of each header, read from the columns of the table."""
    return list(map(make_origin, *map(headers.values, ORIGIN_FIELDS)))


def _split_by_examination(study_uid: str, found: list[_OneSeries], acquisitions: Acquisitions) -> list[Study]:
    """The studies that share a Study Instance UID; within each, series of one acquisition are joined."""
    number_of = split_examinations(one.origins for one in found)
    studies: dict[int, list[_OneSeries]] = {}
    for one in found:
        studies.setdefault(number_of[one.origins], []).append(one)
    grouped = []
    for _, mine in sorted(studies.items()):
        (patient, *others) = sorted({one.patient_id for one in mine})
        series = sorted(acquisitions.join([one.series for one in mine]), key=lambda series: series.series_uid)
        origins = frozenset().union(*(one.origins for one in mine))
        grouped.append(Study(study_uid, "" if others else patient, tuple(series), origins=origins))
    return grouped


def make_identifiers_unique(studies: Sequence[Study]) -> list[Study]:
    """Give a qualifier to studies that share a Study or Series Instance UID with another study, so that identifiers are unique.

    Args:
        studies: Studies of one or several sources.
    """
    known_studies = Counter(study.identifier for study in studies)
    known_series = Counter(series.identifier for study in studies for series in study.series)
    if max(known_studies.values(), default=1) == max(known_series.values(), default=1) == 1:
        return list(studies)
    shared_studies = {identifier for identifier, count in known_studies.items() if count > 1}
    shared_series = {identifier for identifier, count in known_series.items() if count > 1}
    return [with_qualifier(study, shared_studies | shared_series) for study in studies]


def with_qualifier(study: Study, shared: Collection[str]) -> Study:
    """Give a study a qualifier if its identifiers are shared, so that they become unique.

    Args:
        study: The study to qualify.
        shared: Identifiers of studies and series that occur more than once.
    """
    is_shared = study.identifier in shared
    if not is_shared and not any(series.identifier in shared for series in study.series):
        return study
    header = study.series[0].headers[0]
    # The folder distinguishes studies that nothing else does, such as two anonymous exports.
    own = "\x1f".join([study.study_uid, *origin_of(header), folder_of(header)])
    series = (replace(each, qualifier=f"{each.qualifier}|{own}") if each.identifier in shared else each for each in study.series)
    return replace(study, series=tuple(series), qualifier=f"{study.qualifier}|{own}" if is_shared else study.qualifier)


def with_frames(series: Series) -> Series:
    """Expand the multi-frame files of a series to one header per slice."""
    headers: list[SliceHeader] = []
    for header in series.headers:
        try:
            headers += read_frames(header)
        except FileError:
            headers.append(header)  # the file was readable when it was indexed; reading its pixels reports the error
    return Series(series.series_uid, tuple(headers))


def split_by_kernel(series: Series) -> list[Series]:
    """Split a series in which two kernels cover the same positions; a series whose kernel changes along the head stays whole."""
    kernels = np.array(values_of(series.headers, "kernel"), object)
    seen: dict[tuple[int, ...], str] = {}
    for kernel, position in zip(kernels, values_of(series.headers, "position"), strict=True):
        if position is None or not is_position(position):
            continue
        place = tuple(round(value / SAME_POSITION_MM) for value in position)
        if seen.setdefault(place, kernel) != kernel:
            return [
                Series(series.series_uid, take_headers(series.headers, np.flatnonzero(kernels == kernel)), kernel)
                for kernel in sorted(set(kernels))
            ]
    return [series]
