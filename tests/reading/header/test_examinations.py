"""Whose images are, and of which examination."""

import shutil
import zipfile
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import make_slice
from enhanced_files import make_enhanced
from persons import head_of, make_person, persons_in

from ich_lstm.errors import SeriesError, StudyError
from ich_lstm.reading import Ledger, Series, Study, choose_series, index_source, load_scan, read_header
from ich_lstm.reading.files.sources import FileRef
from ich_lstm.reading.header.examinations import Origin, identity_of, relate, split_examinations, split_patients

Elements = dict[str, Any]

SHARED: Elements = {"StudyInstanceUID": "1.2.3"}
NAMELESS: Elements = {
    "PatientID": None,
    "PatientName": None,
    "AccessionNumber": None,
    "StudyDate": None,
    "StudyInstanceUID": None,
}


def studies_of(folder: Path, *persons: Elements) -> list[Study]:
    """The studies of a folder with a series of each person, 0, 1 and so on, under these elements."""
    for person, elements in enumerate(persons):
        make_person(folder / str(person), person, **elements)
    return index_source(folder).studies()


def read_all(studies: list[Study]) -> list[tuple[str, set[int]]]:
    """The patient under whose id each study is filed, and whose pixels its scan has."""
    found = []
    for study in studies:
        scan = load_scan(choose_series(study).series)
        assert scan.patient_id == study.patient_id
        found.append((scan.patient_id, persons_in(scan)))
    return found


class TestTwoPatientsUnderOneStudyUid:
    @pytest.mark.parametrize("uid", ["1.2.3", "", None])
    @pytest.mark.parametrize("second", ["P1", ""])
    def test_each_is_a_study_and_is_read_under_its_own_id(self, uid: str | None, second: str, tmp_path: Path) -> None:
        studies = studies_of(tmp_path, {"StudyInstanceUID": uid}, {"StudyInstanceUID": uid, "PatientID": second})
        assert sorted(read_all(studies)) == sorted([("P0", {0}), (second, {1})])

    @pytest.mark.parametrize("patient", ["ANONYMOUS", "0", "", None, "12345"])
    @pytest.mark.parametrize(
        ("keyword", "one", "other"),
        [
            ("PatientBirthDate", "19500101", "19600101"),
            ("PatientSex", "M", "F"),
            ("PatientName", "Doe^John", "Roe^Jane"),
            ("IssuerOfPatientID", "NORTH", "SOUTH"),
        ],
    )
    def test_one_patient_id_does_not_hide_that_they_differ(
        self, patient: str | None, keyword: str, one: str, other: str, tmp_path: Path
    ) -> None:
        common = SHARED | {"PatientID": patient, "PatientName": None, "AccessionNumber": None, "StudyDate": None}
        studies = studies_of(tmp_path, common | {keyword: one}, common | {keyword: other})
        assert sorted(map(list, (persons for _, persons in read_all(studies)))) == [[0], [1]]

    def test_without_any_identifier_a_folder_is_a_study(self, tmp_path: Path) -> None:
        assert read_all(studies_of(tmp_path, *[NAMELESS] * 3)) == [("", {0}), ("", {1}), ("", {2})]

    def test_without_a_study_uid_the_series_of_one_examination_stay_together(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        make_person(tmp_path / "a", 0, StudyInstanceUID=None)
        make_person(tmp_path / "b", 0, StudyInstanceUID=None, SeriesInstanceUID="1.2.9.0.2")
        (study,) = index_source(tmp_path).studies()
        assert len(study.series) == 2

    def test_scans_studies_and_series_have_ids_of_their_own(self, tmp_path: Path) -> None:
        studies = studies_of(tmp_path, *[NAMELESS | {"SeriesInstanceUID": "1.2.3.4"}] * 2, SHARED, SHARED, {})
        scans = [load_scan(choose_series(study).series) for study in studies]
        for identifiers in (
            [scan.identifier for scan in scans],
            [study.identifier for study in studies],
            [series.identifier for study in studies for series in study.series],
        ):
            assert len(set(identifiers)) == len(studies) == 5

    def test_what_is_sound_keeps_the_id_that_it_had(self, tmp_path: Path) -> None:
        (study,) = studies_of(tmp_path, {})
        assert study.identifier == "1.2.9.0"
        assert load_scan(study.series[0]).identifier == study.series[0].identifier == "1.2.9.0.1"


class TestOnePatientUnderOneStudyUid:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"PatientID": "P0"}, {"PatientID": " P0  "}),
            ({"PatientID": "P0"}, {"PatientID": "P0\0"}),
            ({"PatientName": "Doe^John"}, {"PatientName": "DOE^JOHN^^^ "}),
            ({"PatientName": "Yamada^Tarou"}, {"PatientName": "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"}),
            ({"PatientName": "Doe^Jane"}, {"PatientName": None}),
            (
                {"PatientName": "Doe^Jane", "PatientBirthDate": "19500101"},
                {"PatientName": "Roe", "PatientBirthDate": "1950.01.01"},
            ),
            ({"PatientBirthDate": "19500101"}, {"PatientBirthDate": ""}),
            ({"PatientSex": "F"}, {"PatientSex": None}),
            ({"PatientSex": "F"}, {"PatientSex": "f "}),
            ({"IssuerOfPatientID": "NORTH"}, {}),
            ({"AccessionNumber": "A"}, {"AccessionNumber": None}),
            ({"StudyDate": "20240101"}, {"StudyDate": None}),
        ],
        ids=str,
    )
    def test_what_is_padded_or_missing_parts_nothing(self, one: Elements, other: Elements, tmp_path: Path) -> None:
        common = SHARED | {"PatientID": "P0", "PatientName": None, "AccessionNumber": "A", "StudyDate": "20240101"}
        (study,) = studies_of(tmp_path, common | one, common | other)
        assert (study.patient_id, len(study.series)) == ("P0", 2)

    @pytest.mark.parametrize(("keyword", "values"), [("StudyDate", ("20240101", "20240102")), ("AccessionNumber", ("A", "B"))])
    def test_two_examinations_are_two_studies(self, keyword: str, values: tuple[str, str], tmp_path: Path) -> None:
        common = SHARED | {"PatientID": "P", "PatientName": "N", "AccessionNumber": None, "StudyDate": None}
        studies = studies_of(tmp_path, *(common | {keyword: value} for value in values))
        for study in studies:
            series = choose_series(study).series
            identity = identity_of(series.headers)
            (person,) = persons_in(load_scan(series))
            assert values[person].strip() in (identity.accession_number, identity.study_date.replace("-", ""))

    def test_a_series_that_fits_two_examinations_joins_neither(self, tmp_path: Path) -> None:
        common = SHARED | {"PatientID": "P", "PatientName": "N", "StudyDate": None}
        studies = studies_of(tmp_path, *(common | {"AccessionNumber": number} for number in ("A", None, "B")))
        assert sorted(map(list, (persons for _, persons in read_all(studies)))) == [[0], [1], [2]]
        numbers = [identity_of(study.series[0].headers).accession_number for study in studies]
        assert sorted(numbers) == ["", "A", "B"]

    def test_ids_that_differ_in_case_are_not_taken_for_one(self, tmp_path: Path) -> None:
        studies = studies_of(tmp_path, SHARED | {"PatientID": "aB1"}, SHARED | {"PatientID": "Ab1"})
        assert sorted(read_all(studies)) == [("Ab1", {1}), ("aB1", {0})]


UNDER_ONE_SERIES: Elements = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}


class TestTwoPatientsUnderOneSeriesUid:
    @pytest.mark.parametrize("shift_mm", [0.0, 2.5, 200.0], ids=["equal", "interleaved", "above"])
    @pytest.mark.parametrize("same_uids", [False, True], ids=["own-sop-uids", "the-same-sop-uids"])
    @pytest.mark.parametrize("persons", [2, 3])
    def test_they_are_parted(self, persons: int, same_uids: bool, shift_mm: float, tmp_path: Path) -> None:
        for person in range(persons):
            uids = {} if same_uids else {"change": lambda i, person=person: {"SOPInstanceUID": f"1.2.7.{person}.{i}"}}
            make_person(tmp_path / "all" / str(person), person, start_mm=-20 + person * shift_mm, **UNDER_ONE_SERIES, **uids)
        studies = index_source(tmp_path).studies()
        assert read_all(studies) == [(f"P{person}", {person}) for person in range(persons)]
        assert all(len(study.series[0]) == 8 for study in studies)

    def test_they_are_parted_where_each_is_one_file_of_many_frames(self, tmp_path: Path) -> None:
        for person in range(2):
            uids = {**UNDER_ONE_SERIES, "SOPInstanceUID": "1.2.7"}
            make_enhanced(tmp_path / f"{person}.dcm", PatientID=f"P{person}", **uids)
        studies = index_source(tmp_path).studies()
        scans = [load_scan(choose_series(study).series) for study in studies]
        assert [scan.patient_id for scan in scans] == ["P0", "P1"]
        assert len({len(scan) for scan in scans}) == 1
        assert scans[0].identifier != scans[1].identifier

    def test_folders_of_a_zip_are_folders(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for person in range(2):
                for path in make_person(tmp_path / "made", person, **NAMELESS, SeriesInstanceUID="1.2.3.4"):
                    archive.write(path, f"{person}/{path.name}")
        assert read_all(index_source(tmp_path / "x.zip").studies()) == [("", {0}), ("", {1})]

    def test_they_are_parted_in_one_folder(self, tmp_path: Path) -> None:
        for person in range(2):
            for path in make_person(tmp_path / "made", person, **UNDER_ONE_SERIES):
                (tmp_path / "all").mkdir(exist_ok=True)
                shutil.move(path, tmp_path / "all" / f"{path.stem}-{person}")
        assert read_all(index_source(tmp_path / "all").studies()) == [("P0", {0}), ("P1", {1})]

    @pytest.mark.parametrize(
        "strange",
        [{"PatientID": ""}, {"PatientID": None}, {"PatientID": "p0"}, {"PatientID": "ANON", "PatientBirthDate": "19500101"}],
        ids=str,
    )
    def test_slices_of_nobody_among_them_refuse_the_series(self, strange: Elements, tmp_path: Path) -> None:
        first = {"PatientID": "ANON"} if "PatientBirthDate" in strange else {}
        own = {"PatientName": None}
        make_person(tmp_path, 0, **UNDER_ONE_SERIES, **own, **first, change=lambda i: strange if i == 3 else {})
        index = index_source(tmp_path)
        (study,) = index.studies()
        with pytest.raises(StudyError) as error:
            choose_series(study, ledger=index.ledger)
        assert error.value.code == "mixed_patients"
        assert index.ledger.counts() == {"used": 0, "skipped": 0, "refused": 8}
        assert study.patient_id == ("ANON" if first else "")

    def test_the_sound_series_beside_it_is_read(self, tmp_path: Path) -> None:
        make_person(tmp_path / "0", 0, SeriesInstanceUID="1.2.3.4", change=lambda i: {"PatientID": "" if i == 3 else "P0"})
        make_person(tmp_path / "1", 0, SeriesInstanceUID="1.2.3.5")
        sound, mixed = sorted(index_source(tmp_path).studies(), key=lambda study: study.patient_id, reverse=True)
        assert read_all([sound]) == [("P0", {0})]
        with pytest.raises(StudyError, match="mixed_patients"):
            choose_series(mixed)

    @pytest.mark.parametrize("strange", [{"AccessionNumber": "B"}, {"StudyDate": "20240505"}], ids=str)
    def test_two_examinations_in_one_series_are_refused(self, strange: Elements, tmp_path: Path) -> None:
        make_person(tmp_path, 0, change=lambda i: strange if i > 3 else {})
        (study,) = index_source(tmp_path).studies()
        with pytest.raises(StudyError, match="mixed_examinations"):
            choose_series(study)

    def test_a_series_that_was_put_together_otherwise_is_refused_too(self, tmp_path: Path) -> None:
        studies = studies_of(tmp_path, UNDER_ONE_SERIES, UNDER_ONE_SERIES)
        headers = [header for study in studies for header in study.series[0].headers]
        ledger = Ledger()
        with pytest.raises(SeriesError, match="mixed_patients"):
            load_scan(Series("1.2.3.4", headers), training=True, ledger=ledger)
        assert ledger.counts()["refused"] == 16

    @pytest.mark.parametrize("patient", ["", "ANONYMOUS", "000"])
    def test_folders_with_the_same_positions_are_not_one_nobody(self, patient: str, tmp_path: Path) -> None:
        """Nothing in the headers tells the two apart; a re-scan of one patient would lie in the same folder."""
        nobody = NAMELESS | UNDER_ONE_SERIES | {"PatientID": patient}
        for person in range(2):
            make_person(
                tmp_path / str(person),
                person,
                **nobody,
                change=lambda i, person=person: {"SOPInstanceUID": f"1.2.7.{person}.{i}"},
            )
        (study,) = index_source(tmp_path).studies()
        with pytest.raises(StudyError, match="mixed_patients"):
            choose_series(study)

    def test_slices_of_nobody_may_lie_in_several_folders(self, tmp_path: Path) -> None:
        for i, path in enumerate(make_person(tmp_path / "made", 0, **(NAMELESS | UNDER_ONE_SERIES | {"PatientID": "ANON"}))):
            (tmp_path / "all" / str(i % 3)).mkdir(parents=True, exist_ok=True)
            shutil.move(path, tmp_path / "all" / str(i % 3) / path.name)
        assert read_all(index_source(tmp_path / "all").studies()) == [("ANON", {0})]


class TestTheSameFileTwice:
    def test_equal_pixels_are_read_once_however_the_file_differs(self, tmp_path: Path) -> None:
        make_person(tmp_path, 0)
        make_slice(
            tmp_path / "again.dcm",
            **{keyword: read_of(tmp_path / "3.dcm", keyword) for keyword in COPIED},
            hu=head_of(0, -5),
            StationName="OTHER",
        )
        scan = load_scan(index_source(tmp_path).studies()[0].series[0])
        assert (len(scan), [note.code for note in scan.repairs]) == (8, ["duplicate_file"])

    @pytest.mark.parametrize("change", ["pixels", "one pixel", "rescale"])
    def test_other_pixels_under_the_same_uid_refuse_the_series(self, change: str, tmp_path: Path) -> None:
        make_person(tmp_path, 0)
        hu = head_of(1 if change == "pixels" else 0, -5)
        if change == "one pixel":
            hu[16, 16] += 1
        more = {"intercept": -1000, "stored": np.uint16(hu + 1024)} if change == "rescale" else {}
        make_slice(tmp_path / "again.dcm", **{keyword: read_of(tmp_path / "3.dcm", keyword) for keyword in COPIED}, hu=hu, **more)
        with pytest.raises(SeriesError, match="conflicting_uids"):
            load_scan(index_source(tmp_path).studies()[0].series[0])

    @pytest.mark.parametrize("spoilt", ["3.dcm", "again.dcm"])
    def test_of_two_copies_the_one_that_can_be_read_is_used(self, spoilt: str, tmp_path: Path) -> None:
        make_person(tmp_path, 0)
        shutil.copy(tmp_path / "3.dcm", tmp_path / "again.dcm")
        (tmp_path / spoilt).write_bytes((tmp_path / spoilt).read_bytes()[:-200])
        index = index_source(tmp_path)
        scan = load_scan(index.studies()[0].series[0], ledger=index.ledger)
        assert (len(scan), persons_in(scan)) == (8, {0})
        assert {Path(row.path).name: row.code for row in index.ledger.rows()} == {spoilt: "truncated_pixels"}


COPIED = (
    *("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber", "StudyDate"),
    *("ImagePositionPatient", "InstanceNumber"),
)


def read_of(path: Path, keyword: str) -> Any:
    """A value of a file, as `make_slice` takes it."""
    import pydicom

    value = pydicom.dcmread(path)[keyword].value
    return [str(each) for each in value] if keyword == "ImagePositionPatient" else value


class TestRelate:
    ORIGINS = (
        *(Origin(patient, issuer="N") for patient in ("", "0", "P", "p")),
        *(Origin("P", birth_digest=date) for date in ("", "1950-01-01", "1960-01-01")),
        *(Origin("", name_digest=name, sex=sex) for name in ("", "ab", "cd") for sex in ("", "M", "F")),
        *(Origin("P", accession_number=number, study_date=date) for number in ("", "A", "B") for date in ("", "2024-01-01")),
        *(Origin(folder=folder) for folder in ("", "a", "b")),
    )

    def test_it_does_not_matter_who_is_asked(self) -> None:
        assert all(relate(one, other) == relate(other, one) for one, other in permutations(self.ORIGINS, 2))

    def test_the_order_of_images_does_not_matter(self) -> None:
        random = np.random.default_rng(0)
        for _ in range(200):
            chosen = [self.ORIGINS[i] for i in random.integers(len(self.ORIGINS), size=5)]
            assert split_patients(chosen) == split_patients(chosen[::-1])
            alone = [frozenset({origin}) for origin in chosen]
            assert split_examinations(alone) == split_examinations(alone[::-1])

    def test_no_part_holds_what_contradicts_itself(self) -> None:
        random = np.random.default_rng(1)
        for _ in range(500):
            chosen = [self.ORIGINS[i] for i in random.integers(len(self.ORIGINS), size=6)]
            for part in split_patients(chosen) or []:
                assert all(relate(*pair) in ("same", "other examination") for pair in permutations(part, 2))
            studies: dict[int, set[Origin]] = {}
            for of_one, number in split_examinations(frozenset({origin}) for origin in chosen).items():
                studies.setdefault(number, set()).update(of_one)
            for study in studies.values():
                assert all(relate(*pair) == "same" for pair in permutations(study, 2))

    def test_thousands_of_patients_under_one_uid_take_no_time(self) -> None:
        many = [Origin("ANON", birth_digest=f"{1900 + i // 360}-{i // 30 % 12 + 1:02}-{i % 30 + 1:02}") for i in range(20_000)]
        assert len(set(split_examinations(frozenset({origin}) for origin in many).values())) == len(set(many))
        assert split_patients(replace_id(many)) is not None


def replace_id(origins: list[Origin]) -> list[Origin]:
    return [origin._replace(patient_id=f"P{number}") for number, origin in enumerate(origins)]


class TestHeader:
    def test_the_name_is_not_kept(self, tmp_path: Path) -> None:
        header = read_header(FileRef(make_slice(tmp_path / "x", PatientName="Secret^Name")))
        assert "ecret^" not in repr(replace(header, patient_id=""))
        assert len(header.name_digest) == 16

    @pytest.mark.parametrize("name", ["", None, "^^^^", "  ", "=="])
    def test_a_name_without_letters_is_none(self, name: str | None, tmp_path: Path) -> None:
        assert read_header(FileRef(make_slice(tmp_path / "x", PatientName=name))).name_digest == ""
