"""Chooses the plain axial brain series of a study, and says why the others were not chosen."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ich_lstm.errors import FileError, StudyError
from ich_lstm.reading.header.examinations import (
    ORIGIN_FIELDS,
    TOLD_BY,
    Origin,
    agreed_identity,
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
from ich_lstm.reading.study.rules import Facts, describe, facts_of, first_objection, preference

WHOLE_HEAD_MM = 120.0
COVERAGE_SHARE = 0.75
"""A series is part of the head if it covers less than three quarters of what another one shows (120 mm at most)."""

SOFT_OVERRIDES = frozenset({"derived_map", "not_head", "bone_kernel", "partial_coverage"})
"""Reasons that naming the series overrides. The others say that it is no scan, or no plain one."""


@dataclass(frozen=True)
class Study:
    """One examination of a patient.

    Args:
        study_uid: Study Instance UID (0020,000D).
        patient_id: Patient ID (0010,0020); empty where its images do not agree on one.
        series: At least one.
        qualifier: Tells it apart from another study under the same UID: patient, examination, folder. Private; usually empty.
        origins: What its images say of their patient and examination; empty where nothing is known, as of a NIfTI file.
    """

    study_uid: str
    patient_id: str
    series: tuple[Series, ...]
    qualifier: str = ""
    origins: frozenset[Origin] = frozenset()

    @property
    def identifier(self) -> str:
        """What no other study of the source has: the UID, and the qualifier if the UID stands for several."""
        return f"{self.study_uid}|{self.qualifier}" if self.qualifier else self.study_uid

    def decoded(self) -> "Study":
        """The same study with the headers of its series decoded: each is built once, and held.

        An index holds millions of headers undecoded. What ranks, chooses and loads the series of one study decodes it first.
        """
        return replace(self, series=tuple(series.decoded() for series in self.series))


class Candidate(NamedTuple):
    """A series and its rank in its study.

    Args:
        series: The series.
        eligible: Whether it may be read for prediction.
        rank: 1 is best; those that are not eligible come last.
        code: Why not, or empty.
        reason: For a person, why not, or what it is. No identity.
    """

    series: Series
    eligible: bool
    rank: int
    code: str
    reason: str


def rank_series(study: Study, *, allow_contrast: bool = False, allow_other_part: bool = False) -> list[Candidate]:
    """Order the series of a study, the one to read first; each with its reason.

    Args:
        study: The study.
        allow_contrast: Take series with contrast too; they come last.
        allow_other_part: Take series too that are of another part of the body by their names; they come last.
    """
    allowed = {code for code, allow in (("contrast", allow_contrast), ("not_head", allow_other_part)) if allow}
    eligible: list[Facts] = []
    others: list[tuple[Facts, str, str]] = []
    for facts in map(facts_of, study.series):
        code, reason = first_objection(facts, allowed)
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
    """Choose the series of a study that is to be read.

    The study's headers are decoded here; the series that is returned holds them, so that :func:`load_scan` builds none again.

    Args:
        study: The study.
        series_uid: The series to take instead of the best; its beginning is enough. It may be a bone or partial series,
            but not a localizer, a screenshot, or one with contrast (unless allowed).
        allow_contrast: Take series with contrast too.
        allow_other_part: Take series too that are of another part of the body by their names.
        ledger: Where to note all the slices that are not read, with the reason.

    Raises:
        StudyError: ``no_series`` if none fits, ``no_such_series`` if the one named is not there or not unique. Every
            candidate's reason is in the text.
    """
    study = study.decoded()
    ranked = rank_series(study, allow_contrast=allow_contrast, allow_other_part=allow_other_part)
    return choose_among(study, ranked, series_uid, ledger=ledger)


def choose_among(
    study: Study, ranked: list[Candidate], series_uid: str | None = None, *, ledger: Ledger | None = None
) -> Candidate:
    """Choose the series that is to be read, as :func:`choose_series` does, where the ranking is there already.

    Args:
        study: The study.
        ranked: What :func:`rank_series` gave.
        series_uid: The series to take instead of the best; its beginning is enough.
        ledger: Where to note all the slices that are not read, with the reason.

    Raises:
        StudyError: As :func:`choose_series`.
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
                todo=f"Choose among: {_list(ranked)}",
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
            got=f"no plain axial head series: {_list(ranked)}",
            todo="Name one if it is the right one (--series of ich-predict, --choices of ich-prepare).",
        )
    return chosen


def _why_not(series: Series, chosen: Candidate | None) -> str:
    """Of a series that might have been read."""
    of_its_series = chosen is not None and series.acquisition and series.series_uid == chosen.series.series_uid
    return f"another {'acquisition of the series' if of_its_series else 'series of the study'} is read"


def _name_study(study: Study) -> str:
    return f"study {short_uid(study.study_uid) or 'without UID'}"


def _list(candidates: Sequence[Candidate]) -> str:
    return "; ".join(
        f"{name_series(candidate.series)} {candidate.series.headers[0].series_description!r}: {candidate.reason}"
        for candidate in candidates
    )


def group_studies(headers: HeaderRows) -> list[Study]:
    """Headers as studies, ordered by UID, each with its series ordered by UID.

    A study is what shares a Study Instance UID, a patient and an examination
    (:mod:`ich_lstm.reading.header.examinations`); one Series Instance UID in the files of two patients is two series. Where it is
    not clear whose the images of a series are, the series stays whole, as a study of its own, and is refused.
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
    told_first = zip(_origins_of(firsts), firsts.values("patient_id"), strict=True)
    for rows, mixed, (origin, patient_id) in zip(groups, is_mixed, told_first, strict=True):
        study_uid, series_uid = study_uids[study_codes[rows[0]]].as_py(), series_uids[series_codes[rows[0]]].as_py()
        for mine, origins in _by_patient(table, rows) if mixed or not study_uid else [(rows, frozenset({origin}))]:
            # A copy: a view would keep the order of the whole table alive.
            series = Series(series_uid, HeaderRows(table, np.sort(mine).astype(np.uint32)))
            if multi_frame[mine].any():
                series = with_frames(series)
            patient = patient_id if len(origins) == 1 and not mixed else agreed_identity(series.headers).patient_id
            one_kernel = bool((kernel_codes[mine] == kernel_codes[mine[0]]).all())
            split = [each for one in ([series] if one_kernel else split_by_kernel(series)) for each in acquisitions.split(one)]
            found.setdefault(study_uid, []).extend(_OneSeries(origins, patient, each) for each in split)
    return tell_apart([study for uid in sorted(found) for study in _by_examination(uid, found[uid], acquisitions)])


class _OneSeries(NamedTuple):
    """A series of one patient, or one that cannot be split by patient.

    Args:
        origins: What its images say of their patient and examination.
        patient_id: The Patient ID on which its images agree, or empty.
        series: The series.
    """

    origins: frozenset[Origin]
    patient_id: str
    series: Series


def _differs_from_last(table: Rows, order: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Whether a row tells of another patient or examination than the row before it in its series, bool ``(n,)`` in this order."""
    differs = np.zeros(len(order), bool)
    for name in TOLD_BY:
        codes, values = table.codes(name)
        if len(values) > 1:
            differs[1:] |= np.diff(codes[order]) != 0
    differs[starts] = False
    return differs


def _by_patient(table: Rows, rows: np.ndarray) -> list[tuple[np.ndarray, frozenset[Origin]]]:
    """The rows of one Series Instance UID, split by patient if that is safe, and what they say of patient and examination."""
    origins = _origins_of(HeaderRows(table, rows))
    patients = split_patients(origins)
    if patients is None:
        return [(rows, frozenset(origins))]
    return [(rows[[origin in patient for origin in origins]], frozenset(patient)) for patient in patients]


def _origins_of(headers: HeaderRows) -> list[Origin]:
    """The origin of each header, from the columns of the table alone."""
    return list(map(make_origin, *map(headers.values, ORIGIN_FIELDS)))


def _by_examination(study_uid: str, found: list[_OneSeries], acquisitions: Acquisitions) -> list[Study]:
    """The studies that share a Study Instance UID; in each, the series of one acquisition joined."""
    number_of = split_examinations(one.origins for one in found)
    studies: dict[int, list[_OneSeries]] = {}
    for one in found:
        studies.setdefault(number_of[one.origins], []).append(one)
    made = []
    for _, mine in sorted(studies.items()):
        (patient, *others) = sorted({one.patient_id for one in mine})
        series = sorted(acquisitions.join([one.series for one in mine]), key=lambda series: series.series_uid)
        origins = frozenset().union(*(one.origins for one in mine))
        made.append(Study(study_uid, "" if others else patient, tuple(series), origins=origins))
    return made


def tell_apart(studies: Sequence[Study]) -> list[Study]:
    """Give studies that share a Study or Series Instance UID with another study a qualifier, so that identifiers are unique.

    Args:
        studies: Of one source, or of several.
    """
    known_studies = Counter(study.identifier for study in studies)
    known_series = Counter(series.identifier for study in studies for series in study.series)
    if max(known_studies.values(), default=1) == max(known_series.values(), default=1) == 1:
        return list(studies)
    shared_studies = {identifier for identifier, count in known_studies.items() if count > 1}
    shared_series = {identifier for identifier, count in known_series.items() if count > 1}
    return [with_qualifier(study, shared_studies | shared_series) for study in studies]


def with_qualifier(study: Study, shared: Collection[str]) -> Study:
    """Give a study whose identifiers are shared a qualifier, which makes its identifiers unique.

    Args:
        study: The study.
        shared: Identifiers of studies and series that others have too.
    """
    is_shared = study.identifier in shared
    if not is_shared and not any(series.identifier in shared for series in study.series):
        return study
    header = study.series[0].headers[0]
    # The folder tells apart what nothing else does: two exports of studies that name nobody.
    own = "\x1f".join([study.study_uid, *origin_of(header), folder_of(header)])
    series = (replace(each, qualifier=f"{each.qualifier}|{own}") if each.identifier in shared else each for each in study.series)
    return replace(study, series=tuple(series), qualifier=f"{study.qualifier}|{own}" if is_shared else study.qualifier)


def with_frames(series: Series) -> Series:
    """Expand multi-frame files of a series to one header per slice."""
    headers: list[SliceHeader] = []
    for header in series.headers:
        try:
            headers += read_frames(header)
        except FileError:
            headers.append(header)  # it was sound when it was indexed; reading its pixels will say what became of it
    return Series(series.series_uid, tuple(headers))


def split_by_kernel(series: Series) -> list[Series]:
    """Split a series in which two kernels show the same positions; one that changes its kernel on the way stays whole."""
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
