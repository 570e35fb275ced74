"""Two real scans, where they lie beside the repository."""

import numpy as np
import pytest
from shared_files import DATA

from ich_lstm.reading import choose_series, index_source, load_scan, rank_series, read_scan

TILTED = DATA / "ge_head_tilt"
EXPORT = DATA / "philips_exam.zip"

pytestmark = pytest.mark.skipif(not (TILTED.is_dir() and EXPORT.is_file()), reason="the real files are not in ../shared/data")


class TestTiltedHead:
    def test_order_and_flags(self) -> None:
        scan = read_scan(TILTED)
        assert len(scan) == 28
        assert scan.positions_mm[[0, -1]] == pytest.approx([-33.67, 110.42], abs=0.01)
        steps = np.diff(scan.positions_mm)
        assert steps[:13] == pytest.approx([4.0] * 13, abs=0.01)
        assert steps[13] == pytest.approx(1.08, abs=0.01)
        assert steps[14:] == pytest.approx([7.0] * 13, abs=0.01)
        assert scan.tilt_degrees == pytest.approx(18.5, abs=0.01)
        assert {flag.code for flag in scan.flags} == {"tilt", "uneven_spacing"}
        assert {repair.code for repair in scan.repairs} == {"padding"}

    def test_hu_are_those_of_the_plain_way(self) -> None:
        import pydicom

        scan = read_scan(TILTED)
        for i, path in enumerate(sorted(TILTED.glob("*.dcm"))):
            data_set = pydicom.dcmread(path)
            hu = data_set.pixel_array * float(data_set.RescaleSlope) + float(data_set.RescaleIntercept)
            np.testing.assert_array_equal(scan.hu[i], np.clip(hu, -1024, 3071))

    def test_the_nose_is_up_and_the_neck_first(self) -> None:
        scan = read_scan(TILTED)
        first, last = ((image > -300) for image in (scan.hu[0], scan.hu[-1]))
        assert first.sum() > last.sum()
        air_in_the_nose = (scan.hu[4, 100:200, 200:312] < -500).sum()
        assert air_in_the_nose > (scan.hu[4, 300:400, 200:312] < -500).sum()


class TestExport:
    def test_choice_and_reasons(self) -> None:
        index = index_source(EXPORT)
        (study,) = index.studies()
        reasons = {
            (candidate.series.headers[0].series_description, candidate.code): candidate.reason for candidate in rank_series(study)
        }
        assert set(reasons) == {
            ("STD BRAIN 5MM", ""),
            ("", "localizer"),
            ("STD BRAIN 1MM, iDose", "partial_coverage"),
            ("BONE BRAIN 1MM", "bone_kernel"),
            ("Exam Summary", "secondary_capture"),
        }
        scan = load_scan(choose_series(study, ledger=index.ledger).series, ledger=index.ledger)
        assert scan.description == "STD BRAIN 5MM"
        assert len(scan) == 28
        assert scan.spacing_mm[0] == pytest.approx(5)
        assert [flag.code for flag in scan.flags] == ["no_brain"]  # a skull around plastic
        assert index.ledger.counts() == {"used": 28, "skipped": 114, "refused": 0}

    def test_series_by_name(self) -> None:
        (study,) = index_source(EXPORT).studies()
        bone = next(candidate for candidate in rank_series(study) if candidate.code == "bone_kernel")
        scan = read_scan(EXPORT, bone.series.series_uid)
        assert len(scan) == 8  # slabs of 5 mm
        assert len(scan.file_sop_uids) == 40
        assert "kernel" in {flag.code for flag in scan.flags}
