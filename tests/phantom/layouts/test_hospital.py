import csv
import datetime
from collections import defaultdict
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ich_lstm.errors import ConfigError
from ich_lstm.labels import LABELS
from ich_lstm.phantom import HospitalLayout, PhantomSettings, make_head, write_phantom
from ich_lstm.phantom.layouts.hospital import MAX_STUDIES
from ich_lstm.reading import choose_series, index_source, load_scan

SETTINGS = PhantomSettings(patients=4, slices=10, size=48, seed=6, prevalence=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_phantom(SETTINGS, tmp_path_factory.mktemp("hospital") / "set", layout=HospitalLayout(slice_rows=True), workers=1)


@pytest.fixture(scope="module")
def index(folder):
    return index_source(folder)


@pytest.fixture(scope="module")
def rows(folder) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_files_have_no_extension(folder):
    images = [path for path in (folder / "DICOM").rglob("*") if path.is_file() and path.name != "README.TXT"]
    assert {path.suffix for path in images} == {""}
    assert {len(path.relative_to(folder).parts) for path in images} == {5}


def test_patients_have_several_studies_on_days_that_follow(folder):
    studies = defaultdict(dict)
    for path in (folder / "DICOM").rglob("IMG00000"):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        list(dataset)
        studies[dataset.PatientID].setdefault(dataset.AccessionNumber, set()).add((dataset.StudyDate, dataset.StudyInstanceUID))
    assert len(studies) == SETTINGS.patients
    counts = [len(of_patient) for of_patient in studies.values()]
    assert max(counts) > 1
    for of_patient in studies.values():
        assert all(len(facts) == 1 for facts in of_patient.values())  # one date and one UID per accession number
        days = [date for facts in of_patient.values() for date, _ in facts]
        assert len(set(days)) == len(days)
    numbers = [number for of_patient in studies.values() for number in of_patient]
    assert len(set(numbers)) == len(numbers)


def test_the_plain_thick_series_is_read(index):
    studies = index.studies()
    heads = {}
    for study in studies:
        chosen = choose_series(study).series
        assert chosen.headers[0].series_description == "HEAD 5.0 NATIV"
        heads[study.study_uid] = load_scan(chosen)
    first = make_head(SETTINGS, 0)
    assert sum(np.array_equal(scan.hu, first.hu) for scan in heads.values() if scan.hu.shape == first.hu.shape) == 1
    descriptions = {series.headers[0].series_description for study in studies for series in study.series}
    assert descriptions >= {"HEAD 1.25 NATIV", "HEAD 2.5 BONE", "HEAD 5.0 + C", "Topogram 0.6 T20f"}


def test_what_is_no_image_is_accounted_for(index):
    codes = [row.code for row in index.ledger.rows() if row.code]
    assert codes.count("not_ct") == len(index.studies())  # one dose report each
    assert "not_dicom" in codes  # the leaflet and the table


class TestTable:
    def test_scan_rows_tell_what_is_in_the_scan_or_leave_it_open(self, rows):
        scans = [row for row in rows if not row["sop_uid"]]
        assert scans
        for row in scans:
            number = int(row["accession_number"][1:]) - 20_000_000
            assert row["patient_id"] == str(10_000_000 + number // MAX_STUDIES)
            datetime.date.fromisoformat(row["study_date"])
            truth = make_head(SETTINGS, number).slice_labels.max(axis=0)
            for name, label in zip(LABELS, truth, strict=True):
                assert row[name] in ({str(label), ""} if name != "any" else {str(label)})

    def test_slice_rows_are_named_by_image(self, index, rows):
        slices = {row["sop_uid"]: row for row in rows if row["sop_uid"]}
        assert len(slices) % 10 == 0
        assert slices
        named = {header.sop_uid for header in index.headers}
        assert set(slices) <= named
        scans = {row["accession_number"] for row in rows if not row["sop_uid"]}
        assert not scans & {row["accession_number"] for row in slices.values()}

    def test_without_slice_rows_there_is_one_row_per_study(self, tmp_path):
        small = PhantomSettings(patients=2, slices=8, size=48, seed=1)
        folder = write_phantom(small, tmp_path / "set", layout=HospitalLayout(most_studies=1), workers=1)
        lines = (folder / "labels.csv").read_text().splitlines()
        assert lines[0].split(",") == ["accession_number", "patient_id", "study_date", *LABELS]
        assert len(lines) == 3


@pytest.mark.parametrize("count", [0, 9, True])
def test_options_out_of_range_are_refused(count, tmp_path):
    with pytest.raises(ConfigError, match="phantom_option_out_of_range"):
        write_phantom(SETTINGS, tmp_path / "new", layout=HospitalLayout(most_studies=count), workers=1)
