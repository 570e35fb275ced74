"""Labels never attach to another patient's pixels: names that several patients have stop, and are no match."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from labelled_scans import label_scans
from persons import make_person, persons_in

from ich_lstm.data.labels.table import read_label_table
from ich_lstm.data.prepare.prepare import prepare
from ich_lstm.data.prepared.folder import PreparedFolder
from ich_lstm.data.prepared.scan_cache import read_cached
from ich_lstm.errors import SourceError, TableError
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.privacy import ProjectKey
from ich_lstm.reading import index_source
from ich_lstm.reading.study.shared_names import find_shared_names

BONE = {"ConvolutionKernel": "Hr68"}
"""What makes a study unusable whose report is in the table all the same."""

COLLISIONS: dict[str, dict[str, Any]] = {
    "accession_number": {"AccessionNumber": "A0"},
    "study_uid": {"StudyInstanceUID": "1.2.9.0"},
    "series_uid": {"SeriesInstanceUID": "1.2.9.0.1"},
    "sop_uid": {"StudyInstanceUID": "1.2.9.0", "SeriesInstanceUID": "1.2.9.0.1"},
}
NAMES = {"accession_number": "A0", "study_uid": "1.2.9.0", "series_uid": "1.2.9.0.1", "sop_uid": "1.2.9.0.1.3"}

Prepare = Callable[..., PreparedFolder]


@pytest.fixture
def prepared_of(project_key: ProjectKey, tmp_path: Path) -> Prepare:
    """Prepare made studies: person 0 as usual, person 1 with these elements."""

    def _prepare(*, labels: str | None = None, **elements: Any) -> PreparedFolder:
        make_person(tmp_path / "dicom/0", 0)
        make_person(tmp_path / "dicom/1", 1, **elements)
        table = None if labels is None else read_of(tmp_path, labels)
        return prepare(
            tmp_path / "dicom",
            tmp_path / "out",
            preprocessing=Preprocessing(size=32, crop="none"),
            key=project_key,
            labels=table,
            workers=1,
        )

    return _prepare


def read_of(folder: Path, labels: str) -> Any:
    (folder / "labels.csv").write_text(labels)
    return read_label_table(folder / "labels.csv")


@pytest.mark.parametrize("kind", COLLISIONS)
class TestNamesOfTwoPatients:
    @pytest.mark.parametrize("other", [{}, BONE], ids=["both-prepared", "one-refused"])
    def test_they_stop(self, kind: str, other: dict[str, Any], prepared_of: Prepare, tmp_path: Path) -> None:
        folder = prepared_of(**COLLISIONS[kind], **other)
        assert folder.key["scan_id"].nunique() == (1 if other else 2)
        with pytest.raises(TableError) as error:
            label_scans(folder, read_of(tmp_path, f"{kind},any\n{NAMES[kind]},1\n"))
        assert error.value.code == "several_scans"
        assert "line 2" in str(error.value)

    def test_they_stop_when_the_labels_choose_what_is_prepared(self, kind: str, prepared_of: Prepare, tmp_path: Path) -> None:
        labels = f"{kind},any\n{NAMES[kind]},1\n"
        with pytest.raises((TableError, SourceError)):
            label_scans(prepared_of(labels=labels, **COLLISIONS[kind], **BONE), read_of(tmp_path, labels))

    def test_what_is_told_by_another_name_is_labelled(self, kind: str, prepared_of: Prepare, tmp_path: Path) -> None:
        folder = prepared_of(**COLLISIONS[kind])
        other = "folder" if kind != "accession_number" else "study_uid"
        names = ("0", "1") if other == "folder" else ("1.2.9.0", "1.2.9.1")
        known = label_scans(folder, read_of(tmp_path, f"{other},any\n{names[0]},0\n{names[1]},1\n"))
        found = {scan.patient_id: (float(scan.scan_labels[-1]), whose(scan.cache_path)) for scan in known}
        assert found == {"P0": (0.0, {0}), "P1": (1.0, {1})}
        assert len({scan.scan_id for scan in known}) == len({scan.cache_path for scan in known}) == 2


def whose(path: Path) -> set[int]:
    """Whose pixels are cached."""
    return persons_in(read_cached(path))  # type: ignore[arg-type]  # it has HU as a scan has


def test_the_table_s_patient_must_be_that_of_the_images(prepared_of: Prepare, tmp_path: Path) -> None:
    with pytest.raises(TableError) as error:
        label_scans(prepared_of(), read_of(tmp_path, "accession_number,patient_id,any\nA0,P1,1\n"))
    assert error.value.code == "contradicting_patients"


def test_one_patient_s_studies_may_share_a_number(prepared_of: Prepare, tmp_path: Path) -> None:
    """A head and a neck, ordered together: the neck is not read."""
    folder = prepared_of(PatientID="P0", PatientName="Name0^Of", AccessionNumber="A0", SeriesDescription="NECK")
    (known,) = label_scans(folder, read_of(tmp_path, "accession_number,any\nA0,1\n"))
    assert (known.patient_id, whose(known.cache_path)) == ("P0", {0})


def test_of_sound_studies_nothing_is_shared(tmp_path: Path) -> None:
    for person in range(4):
        make_person(tmp_path / str(person), person)
    assert find_shared_names(index_source(tmp_path).studies()) == frozenset()


@pytest.mark.parametrize("patient", ["", "ANON", "0"])
def test_two_of_nobody_s_studies_are_not_taken_for_one_patient_s(patient: str, tmp_path: Path) -> None:
    for person in range(2):
        make_person(tmp_path / str(person), person, PatientID=patient, PatientName=None, AccessionNumber="A0")
    assert find_shared_names(index_source(tmp_path).studies()) == {("accession_number", "A0")}


def test_a_folder_of_an_earlier_version_is_still_labelled(prepared_of: Prepare, tmp_path: Path) -> None:
    folder = prepared_of()
    path = folder.folder / "private/key.parquet"
    folder.key.drop(columns="shared").to_parquet(path)
    assert len(label_scans(PreparedFolder.open(folder.folder), read_of(tmp_path, "accession_number,any\nA0,1\n"))) == 1
