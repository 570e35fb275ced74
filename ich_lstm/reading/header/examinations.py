"""Decides from headers whether images with one identifier belong to one patient and one examination.

Anonymizers may write one Study or Series Instance UID into the files of many patients, or none, and one Patient ID for all. A
result under another person's name is the most harmful error of this library. Images are therefore combined only if nothing
contradicts it; ambiguous images are kept separate, and a series that cannot be separated safely is refused.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import combinations
from operator import attrgetter
from typing import Literal, NamedTuple

from ich_lstm.errors import SeriesError
from ich_lstm.reading.files.sources import FileRef
from ich_lstm.reading.header.header import SliceHeader

ANONYMOUS = r"anon[a-z]*|unknown|unnamed|nobody|patient|test|none|null|nan|n/?a|no[\W_]?(?:id|name)|x+|0+|[\W_]*"
"""Patient IDs that identify no person, in any case. With a number appended they are pseudonyms, which can be distinguished."""

PATIENT_FIELDS = ("issuer", "name_digest", "birth_digest", "sex")
"""Header fields that serve only to distinguish two patients with the same Patient ID."""

IDENTITY_FIELDS = ("patient_id", *PATIENT_FIELDS, "accession_number", "study_date")
"""Header fields that distinguish patients and examinations."""

MANY = 64
"""Above this number of different origins under one Study UID and Patient ID, no pairs are compared; each origin is separate."""

Relation = Literal["same", "other examination", "other patient", "unclear"]

SAME_EXAMINATION: frozenset[Relation] = frozenset({"same"})
SAME_PATIENT: frozenset[Relation] = frozenset({"same", "other examination"})

ORIGIN_FIELDS = ("source", "study_uid", *IDENTITY_FIELDS)
"""Header fields that make up an origin, in the order of the arguments of :func:`make_origin`."""

_identity_values = attrgetter("study_uid", *IDENTITY_FIELDS)
_is_anonymous = re.compile(ANONYMOUS, re.IGNORECASE).fullmatch
_examination = attrgetter("accession_number", "study_date", "folder")
_SEXES = frozenset("MFO")


class Origin(NamedTuple):
    """The patient and the examination that the header of an image states; fields are empty if the header has no value.

    Args:
        patient_id: Patient ID (0010,0020), without surrounding blanks.
        issuer: Issuer of Patient ID (0010,0021).
        name_digest: Digest of Patient's Name (0010,0010), see :class:`~ich_lstm.reading.header.header.SliceHeader`.
        birth_digest: Digest of Patient's Birth Date (0010,0030), see :class:`~ich_lstm.reading.header.header.SliceHeader`.
        sex: Patient's Sex (0010,0040): ``M``, ``F`` or ``O``.
        accession_number: Accession Number (0008,0050) of the examination.
        study_date: Study Date (0008,0020) of the examination.
        folder: Folder of the file, if Study Instance UID is missing and nothing else identifies the examination; otherwise
            empty.
    """

    patient_id: str = ""
    issuer: str = ""
    name_digest: str = ""
    birth_digest: str = ""
    sex: str = ""
    accession_number: str = ""
    study_date: str = ""
    folder: str = ""

    @property
    def is_anonymous(self) -> bool:
        """Whether the Patient ID identifies no single person."""
        return _is_anonymous(self.patient_id) is not None


class Identity(NamedTuple):
    """The identity under which a result is filed. Private.

    Args:
        patient_id: Patient ID (0010,0020) as stored in the files.
        accession_number: Accession Number (0008,0050) of the examination.
        study_uid: Study Instance UID (0020,000D).
        study_date: Study Date (0008,0020) as ``YYYY-MM-DD``.
    """

    patient_id: str = ""
    accession_number: str = ""
    study_uid: str = ""
    study_date: str = ""


def origin_of(header: SliceHeader) -> Origin:
    """The patient and the examination that a header states."""
    return make_origin(header.source, *_identity_values(header))


def make_origin(
    source: FileRef,
    study_uid: str,
    patient_id: str,
    issuer: str,
    name_digest: str,
    birth_digest: str,
    sex: str,
    accession_number: str,
    study_date: str,
) -> Origin:
    """Make the origin of an image from the header fields listed in ``ORIGIN_FIELDS``.

    Args:
        source: File of the image.
        study_uid: Study Instance UID (0020,000D).
        patient_id: Patient ID (0010,0020) as stored.
        issuer: Issuer of Patient ID (0010,0021).
        name_digest: Digest of Patient's Name (0010,0010).
        birth_digest: Digest of Patient's Birth Date (0010,0030).
        sex: Patient's Sex (0010,0040) as stored.
        accession_number: Accession Number (0008,0050) as stored.
        study_date: Study Date (0008,0020) as stored.
    """
    origin = Origin(
        " ".join(patient_id.split()),
        " ".join(issuer.split()),
        name_digest,
        birth_digest,
        sex if sex in _SEXES else "",
        accession_number,
        study_date,
    )
    if study_uid or not (origin.is_anonymous or not (origin.accession_number or origin.study_date)):
        return origin
    return origin._replace(folder=folder_of_file(source))


def folder_of(header: SliceHeader) -> str:
    """The folder of a slice's file; for a member of an archive, the archive and the member's folder in it."""
    return folder_of_file(header.source)


def folder_of_file(source: FileRef) -> str:
    """The folder of a file; for a member of an archive, the archive and the member's folder in it."""
    if source.member is None:
        return str(source.path.parent)
    return f"{source.path}!{source.member.rpartition('/')[0]}"


def relate(one: Origin, other: Origin) -> Relation:
    """Decide how two images under one Study Instance UID are related.

    - Different Patient IDs, issuers, birth dates, sexes or names mean different patients. Names change and are misspelled, so a
      different name alone does not count if the Patient ID identifies a person and the birth dates agree.
    - Different accession numbers or study dates mean different examinations.
    - A value that only one image has is no evidence. The relation is unclear, however, if this value is the Patient ID itself,
      if two Patient IDs differ only in case, or if the Patient ID is anonymous and only one image has an issuer, a name, a
      birth date or a sex.
    - Without Study Instance UID and Patient ID, different folders mean different patients.

    Args:
        one: Origin of the first image.
        other: Origin of the second image.
    """
    if one == other:
        return "same"
    if one.patient_id != other.patient_id:
        is_alike = one.patient_id.casefold() == other.patient_id.casefold()
        return "unclear" if is_alike or not one.patient_id or not other.patient_id else "other patient"
    if one.is_anonymous and one.folder != other.folder:
        return "other patient"
    personal = (one.issuer, other.issuer), (one.birth_digest, other.birth_digest), (one.sex, other.sex)
    names = one.name_digest, other.name_digest
    is_known = not one.is_anonymous and one.birth_digest != "" and one.birth_digest == other.birth_digest
    if any(map(_differ, personal)) or (_differ(names) and not is_known):
        return "other patient"
    if one.is_anonymous and any(bool(a) != bool(b) for a, b in (*personal, names)):
        return "unclear"
    differs = any(map(_differ, zip(_examination(one), _examination(other), strict=True)))
    return "other examination" if differs else "same"


def _differ(values: tuple[str, str]) -> bool:
    return values[0] != values[1] and "" not in values


def is_same_patient(one: Origin, other: Origin) -> bool:
    """Whether images of two studies certainly belong to one patient; false if the Patient ID identifies no person."""
    return not one.is_anonymous and relate(one, other) in SAME_PATIENT


def split_patients(origins: Iterable[Origin]) -> list[set[Origin]] | None:
    """Group the images of one Series Instance UID by patient.

    Args:
        origins: Origins of the images.

    Returns:
        The origins of each patient, in a stable order; None if the grouping is ambiguous.
    """
    found = set(origins)
    ids = {origin.patient_id for origin in found}
    if len(ids) > 1 and ("" in ids or len({patient.casefold() for patient in ids}) < len(ids)):
        return None
    parts: list[set[Origin]] = []
    for of_id in _by_id(found).values():
        components = _components(of_id, SAME_PATIENT)
        if components is None or any(
            relate(one, other) == "unclear" for a, b in combinations(components, 2) for one in a for other in b
        ):
            return None
        parts += components
    return sorted(parts, key=min)


def split_examinations(series: Iterable[frozenset[Origin]]) -> dict[frozenset[Origin], int]:
    """Group the series of one Study Instance UID by patient and examination.

    Args:
        series: Origins of the images of each series. Each series belongs to one patient, or cannot be separated.

    Returns:
        The number of the study, from 0, to which each series belongs. A series is a study of its own if it contradicts itself,
        or if it matches several studies that do not match each other.
    """
    found = sorted(set(series), key=sorted)
    alone = {of_one for of_one in found if any(relate(*pair) != "same" for pair in combinations(of_one, 2))}
    studies: list[set[frozenset[Origin]]] = [{of_one} for of_one in alone]
    by_id: dict[tuple[str, str], list[frozenset[Origin]]] = defaultdict(list)
    for of_one in found:
        if of_one not in alone:
            first = min(of_one)
            by_id[first.patient_id, first.folder].append(of_one)
    for of_id in by_id.values():
        components = _components({origin for of_one in of_id for origin in of_one}, SAME_EXAMINATION)
        if components is None:
            studies += [{of_one} for of_one in of_id]
        else:
            studies += [{of_one for of_one in of_id if of_one <= component} for component in components]
    studies.sort(key=lambda study: sorted(map(sorted, study)))
    return {of_one: number for number, study in enumerate(studies) for of_one in study}


def _by_id(origins: Iterable[Origin]) -> dict[str, set[Origin]]:
    by_id: dict[str, set[Origin]] = defaultdict(set)
    for origin in origins:
        by_id[origin.patient_id].add(origin)
    return by_id


def _components(origins: set[Origin], together: Collection[Relation]) -> list[set[Origin]] | None:
    """Sets in which all pairs belong together, while no pair across sets does; None if no such sets exist."""
    if len(origins) > MANY:
        return None
    components: list[set[Origin]] = []
    for origin in origins:
        mine = [component for component in components if any(relate(origin, other) in together for other in component)]
        components = [component for component in components if component not in mine] + [{origin}.union(*mine)]
    if any(relate(*pair) not in together for component in components for pair in combinations(component, 2)):
        return None
    return components


def find_mixture(headers: Sequence[SliceHeader]) -> tuple[str, str]:
    """Code and reason, without identity, if slices are not from one examination of one patient; empty otherwise."""
    by_identity = {_identity_values(header): header for header in headers}
    if len(by_identity) == 1 and (first := next(iter(by_identity.values()))).study_uid and not origin_of(first).is_anonymous:
        return "", ""  # the usual case, decided without reading each slice
    origins = set(map(origin_of, headers))
    parts = split_patients(origins)
    if parts is None:
        return "mixed_patients", "slices that may belong to several patients"
    if len(parts) > 1:
        return "mixed_patients", f"slices of {len(parts)} patients"
    if any(relate(*pair) != "same" for pair in combinations(origins, 2)):
        return "mixed_examinations", "slices of several examinations, by accession number or study date"
    if any(origin.is_anonymous for origin in origins) and _share_positions(headers):
        return "mixed_patients", "slices at the same positions in several folders, under a Patient ID that identifies no patient"
    return "", ""


def _share_positions(headers: Iterable[SliceHeader]) -> bool:
    """Whether different slices at one position lie in several folders; copies of a file share its SOP Instance UID."""
    seen: dict[tuple[object, ...], SliceHeader] = {}
    for header in headers:
        if header.position is None:
            continue
        known = seen.setdefault((header.kernel, *(round(value, 1) for value in header.position)), header)
        if known.sop_uid != header.sop_uid and folder_of(known) != folder_of(header):
            return True
    return False


def identity_of(headers: Sequence[SliceHeader], name: str = "series") -> Identity:
    """The identity under which a result on these slices is filed; tables, reports and pictures all use it.

    Args:
        headers: The slices that were read, at least one.
        name: Name of the series in messages.

    Raises:
        SeriesError: ``mixed_patients`` or ``mixed_examinations`` if the slices are not from one examination of one patient.
    """
    code, reason = find_mixture(headers)
    if not code and len({header.study_uid for header in headers}) > 1:
        code, reason = "mixed_examinations", "slices of several studies, by Study Instance UID"
    if code:
        raise SeriesError(
            code,
            where=name,
            got=reason,
            expected="one patient and one examination",
            todo="Export the studies of each patient again, with separate identifiers.",
        )
    return common_identity(headers)


_VALUES = tuple(map(attrgetter, Identity._fields))


def common_identity(headers: Iterable[SliceHeader]) -> Identity:
    """The values on which headers agree, regardless of patient; used for refused studies, which have no result.

    Args:
        headers: Headers of any slices.

    Returns:
        An identity whose Patient ID is empty if the headers differ or one has none; each other value is empty if they differ.
    """
    known: list[dict[str, str]] = [{} for _ in _VALUES]
    for header in headers:
        for values, value_of in zip(known, _VALUES, strict=True):
            value = value_of(header)
            values.setdefault(" ".join(value.split()), value)
    patients, *others = known
    for values in others:
        values.pop("", None)
    return Identity(*(next(iter(values.values())) if len(values) == 1 else "" for values in (patients, *others)))
