"""Patients and examinations of images: decides whether images with one identifier belong to one patient.

Anonymizers write one Study or Series Instance UID into the files of many patients, or none, and one Patient ID for all. A result
under another person's name is the worst that this library could do, so that images come together only if nothing speaks against
it; where it cannot be told, they are kept apart, and one series that cannot be parted safely is refused.
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
"""Ids that name nobody, in any case. With a number behind them they are pseudonyms, and may be told apart."""

TELLING_FIELDS = ("issuer", "name_digest", "birth_digest", "sex")
"""Fields of a header that serve only to tell two patients of one Patient ID apart."""

TOLD_BY = ("patient_id", *TELLING_FIELDS, "accession_number", "study_date")
"""Fields of a header that tell patients and examinations apart."""

MANY = 64
"""More kinds of images than this under one Study UID and Patient ID are not compared pair by pair: each stands alone."""

Relation = Literal["same", "other examination", "other patient", "unclear"]

SAME_EXAMINATION: frozenset[Relation] = frozenset({"same"})
SAME_PATIENT: frozenset[Relation] = frozenset({"same", "other examination"})

ORIGIN_FIELDS = ("source", "study_uid", *TOLD_BY)
"""Fields of a header from which its origin is made, in the order of the arguments of :func:`make_origin`."""

_told = attrgetter("study_uid", *TOLD_BY)
_is_anonymous = re.compile(ANONYMOUS, re.IGNORECASE).fullmatch
_examination = attrgetter("accession_number", "study_date", "folder")
_SEXES = frozenset("MFO")


class Origin(NamedTuple):
    """What the header of an image says of its patient and its examination; empty where it says nothing.

    Args:
        patient_id: Patient ID (0010,0020), without blanks around it.
        issuer: Issuer of Patient ID (0010,0021).
        name_digest: Of Patient's Name (0010,0010), as :class:`~ich_lstm.reading.header.header.SliceHeader` has it.
        birth_digest: Of Patient's Birth Date (0010,0030), as :class:`~ich_lstm.reading.header.header.SliceHeader` has it.
        sex: Patient's Sex (0010,0040): ``M``, ``F`` or ``O``.
        accession_number: Accession Number (0008,0050).
        study_date: Study Date (0008,0020).
        folder: Where the file lies, if Study Instance UID is missing and nothing else tells the examination; else empty.
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
    def is_nobody(self) -> bool:
        """Whether the Patient ID names no single person."""
        return _is_anonymous(self.patient_id) is not None


class Identity(NamedTuple):
    """What a result is filed under; private.

    Args:
        patient_id: Patient ID (0010,0020), as the files have it.
        accession_number: Accession Number (0008,0050).
        study_uid: Study Instance UID (0020,000D).
        study_date: Study Date (0008,0020) as ``YYYY-MM-DD``.
    """

    patient_id: str = ""
    accession_number: str = ""
    study_uid: str = ""
    study_date: str = ""


def origin_of(header: SliceHeader) -> Origin:
    """What a header says of its patient and its examination."""
    return make_origin(header.source, *_told(header))


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
    """The origin of an image by the fields of its header that tell patients and examinations apart (``ORIGIN_FIELDS``).

    Args:
        source: The image's file.
        study_uid: Study Instance UID (0020,000D).
        patient_id: Patient ID (0010,0020).
        issuer: Issuer of Patient ID (0010,0021).
        name_digest: Digest of Patient's Name (0010,0010).
        birth_digest: Digest of Patient's Birth Date (0010,0030).
        sex: Patient's Sex (0010,0040).
        accession_number: Accession Number (0008,0050).
        study_date: Study Date (0008,0020).
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
    if study_uid or not (origin.is_nobody or not (origin.accession_number or origin.study_date)):
        return origin
    return origin._replace(folder=folder_of_file(source))


def folder_of(header: SliceHeader) -> str:
    """The folder of a slice's file; in an archive, of the archive and of the member."""
    return folder_of_file(header.source)


def folder_of_file(source: FileRef) -> str:
    """The folder of a file; in an archive, of the archive and of the member."""
    if source.member is None:
        return str(source.path.parent)
    return f"{source.path}!{source.member.rpartition('/')[0]}"


def relate(one: Origin, other: Origin) -> Relation:
    """What two images under one Study Instance UID have to do with each other.

    Two Patient IDs, issuers, birth dates, sexes, or names are two patients; a name alone is not where an id that names somebody
    and the birth date agree, for names change and are misspelt. Two accession numbers or study dates are two examinations. What
    is missing in one of two speaks neither for nor against it; but nothing certain can be said if it is the id itself, if two
    ids differ in case alone, or if the id names nobody and one of two has a name, birth date or sex. Where neither Study Instance
    UID nor an id is there, two folders are two patients.

    Args:
        one: Of an image.
        other: Of another image.
    """
    if one == other:
        return "same"
    if one.patient_id != other.patient_id:
        is_alike = one.patient_id.casefold() == other.patient_id.casefold()
        return "unclear" if is_alike or not one.patient_id or not other.patient_id else "other patient"
    if one.is_nobody and one.folder != other.folder:
        return "other patient"
    personal = (one.issuer, other.issuer), (one.birth_digest, other.birth_digest), (one.sex, other.sex)
    names = one.name_digest, other.name_digest
    is_known = not one.is_nobody and one.birth_digest != "" and one.birth_digest == other.birth_digest
    if any(map(_differ, personal)) or (_differ(names) and not is_known):
        return "other patient"
    if one.is_nobody and any(bool(a) != bool(b) for a, b in (*personal, names)):
        return "unclear"
    differs = any(map(_differ, zip(_examination(one), _examination(other), strict=True)))
    return "other examination" if differs else "same"


def _differ(values: tuple[str, str]) -> bool:
    return values[0] != values[1] and "" not in values


def is_same_patient(one: Origin, other: Origin) -> bool:
    """Whether images of two studies are certainly of one patient; never if the Patient ID names nobody."""
    return not one.is_nobody and relate(one, other) in SAME_PATIENT


def split_patients(origins: Iterable[Origin]) -> list[set[Origin]] | None:
    """Part the images of one Series Instance UID by patient.

    Args:
        origins: The origins of its images.

    Returns:
        What belongs to each patient, in a stable order; None if that is not clear.
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
    """Part the series of one Study Instance UID by patient and examination.

    Args:
        series: Of each series the origins of its images, which are of one patient, or cannot be parted.

    Returns:
        The number of the study, from 0, that each belongs to. A series that contradicts itself, or that fits several studies
        which do not fit each other, is a study of its own.
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
    """Sets of which all pairs belong together and none with one of another set; None if there are no such sets."""
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
    """Why slices are not those of one examination of one patient: a code and a reason without identity; empty if they are."""
    told = {_told(header): header for header in headers}
    if len(told) == 1 and (first := next(iter(told.values()))).study_uid and not origin_of(first).is_nobody:
        return "", ""  # as nearly always: no need to look at each
    origins = set(map(origin_of, headers))
    parts = split_patients(origins)
    if parts is None:
        return "mixed_patients", "slices of which it is not clear whether they are of one patient"
    if len(parts) > 1:
        return "mixed_patients", f"slices of {len(parts)} patients"
    if any(relate(*pair) != "same" for pair in combinations(origins, 2)):
        return "mixed_examinations", "slices of several examinations, by accession number or study date"
    if any(origin.is_nobody for origin in origins) and _share_positions(headers):
        return "mixed_patients", "slices at the same positions in several folders, under a Patient ID that identifies no patient"
    return "", ""


def _share_positions(headers: Iterable[SliceHeader]) -> bool:
    """Whether different slices of one place lie in several folders; copies of a file share its SOP Instance UID."""
    seen: dict[tuple[object, ...], SliceHeader] = {}
    for header in headers:
        if header.position is None:
            continue
        known = seen.setdefault((header.kernel, *(round(value, 1) for value in header.position)), header)
        if known.sop_uid != header.sop_uid and folder_of(known) != folder_of(header):
            return True
    return False


def identity_of(headers: Sequence[SliceHeader], name: str = "series") -> Identity:
    """What a result on these slices is filed under: the one place from which tables, reports and pictures have it.

    Args:
        headers: The slices that were read, at least one.
        name: What messages call them.

    Raises:
        SeriesError: ``mixed_patients`` or ``mixed_examinations`` if they are not those of one examination of one patient.
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
            todo="Export the patients' studies again, each with identifiers of its own.",
        )
    return agreed_identity(headers)


_VALUES = tuple(map(attrgetter, Identity._fields))


def agreed_identity(headers: Iterable[SliceHeader]) -> Identity:
    """What headers agree on, whoever's they are: for what was refused, and has no result.

    Args:
        headers: Any slices.

    Returns:
        The Patient ID is empty if one of them has another or none; the rest is empty if two of them have different ones.
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
