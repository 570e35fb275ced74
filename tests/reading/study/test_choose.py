"""Which series of a study is read, and what its words mean."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from body_parts import Shape, chest, make, neck, skull
from dicom_files import make_series

from ich_lstm.errors import SeriesError, StudyError
from ich_lstm.reading import (
    FileRef,
    Ledger,
    Series,
    SliceHeader,
    Study,
    choose_series,
    index_source,
    load_scan,
    rank_series,
)
from ich_lstm.reading.terms import vocabulary


def make_study(folder: Path, *series: dict[str, Any]) -> Study:
    for number, elements in enumerate(series, 1):
        own: dict[str, Any] = {"SeriesInstanceUID": f"1.2.3.100.{number}", "SeriesNumber": number}
        make_series(folder / str(number), **(own | elements))
    (study,) = index_source(folder).studies()
    return study


THICK: dict[str, Any] = {"SeriesDescription": "Plain"}
THIN: dict[str, Any] = {"SeriesDescription": "Plain THIN", "SliceThickness": "0.625", "step": 1.0, "count": 40}
BONE: dict[str, Any] = {"SeriesDescription": "BONE"}
CONTRAST: dict[str, Any] = {"SeriesDescription": "POST CONTRAST"}


class TestRank:
    def test_plain_thick_then_thin_then_never(self, tmp_path: Path) -> None:
        ranked = rank_series(make_study(tmp_path, BONE, CONTRAST, THIN, THICK))
        assert [candidate.series.series_uid[-1] for candidate in ranked] == ["4", "3", "1", "2"]
        assert [candidate.rank for candidate in ranked] == [1, 2, 3, 4]
        assert [candidate.eligible for candidate in ranked] == [True, True, False, False]
        assert [candidate.code for candidate in ranked] == ["", "", "bone_kernel", "contrast"]
        assert all(candidate.reason for candidate in ranked)

    def test_part_of_the_head_is_not_chosen_beside_the_whole(self, tmp_path: Path) -> None:
        ranked = rank_series(make_study(tmp_path, THICK | {"count": 5}, THIN | {"count": 100}))
        assert [candidate.code for candidate in ranked] == ["", "partial_coverage"]
        assert ranked[0].series.series_uid[-1] == "2"

    def test_a_tie_is_resolved_by_number_then_uid(self, tmp_path: Path) -> None:
        study = make_study(tmp_path, THICK | {"SeriesNumber": 9}, THICK | {"SeriesNumber": 3}, THICK | {"SeriesNumber": 3})
        turned = Study(study.study_uid, study.patient_id, study.series[::-1])
        for each in (study, turned):
            assert [candidate.series.series_uid[-1] for candidate in rank_series(each)] == ["2", "3", "1"]

    def test_contrast_may_be_allowed_and_comes_last(self, tmp_path: Path) -> None:
        ranked = rank_series(make_study(tmp_path, CONTRAST, THIN), allow_contrast=True)
        assert [(candidate.series.series_uid[-1], candidate.eligible) for candidate in ranked] == [("2", True), ("1", True)]


class TestChoose:
    def test_none_fits_says_why_for_each(self, tmp_path: Path) -> None:
        with pytest.raises(StudyError) as error:
            choose_series(make_study(tmp_path, BONE, CONTRAST))
        assert error.value.code == "no_series"
        assert "bone kernel" in str(error.value)
        assert "contrast" in str(error.value)

    def test_a_named_series_is_taken_though_it_is_bone(self, tmp_path: Path) -> None:
        study = make_study(tmp_path, BONE, THICK)
        assert choose_series(study, "1.2.3.100.1").series.series_uid == "1.2.3.100.1"

    @pytest.mark.parametrize("other", [CONTRAST, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, {"count": 2}])
    def test_a_named_series_that_is_no_plain_scan_is_refused(self, other: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(StudyError):
            choose_series(make_study(tmp_path, other, THICK), "1.2.3.100.1")

    @pytest.mark.parametrize("uid", ["1.2.3", "9.9"])
    def test_a_name_must_mean_one_series(self, uid: str, tmp_path: Path) -> None:
        with pytest.raises(StudyError) as error:
            choose_series(make_study(tmp_path, BONE, THICK), uid)
        assert error.value.code == "no_such_series"


# The names as the folders show them, and as the headers may: an export drops the signs that a file's name cannot have.
CQ500_WANTED = (
    *("Plain", "55mm Plain", "5mm", "PRE CONTRAST 5MM STD", "Plain 3mm", "2.55mm", "BRAIN PLAIN"),
    *("5/5mm Plain", "2.5/5mm", "PRE-CONTRAST 5MM STD"),
)
CQ500_SECOND = ("PLAIN THIN", "Thin Plain", "PRE CONTRAST THIN", "0.625mm", "Plain THIN", "SOFT THIN", "Thin Stnd")
CQ500_NEVER = (
    *("BONE", "BONE THIN", "PRE CONTRAST BONE", "POST CONTRAST", "4cc sec 150cc D3D on", "CONTRAST", "CECT", "ORAL IV"),
    *("PRE-CONTRAST BONE", "POST-CONTRAST", "4cc/sec 150cc D3D on", "ORAL & IV"),
)


def in_memory(number: int, name: str, step: float, **own: Any) -> Series:
    """A series of a head without its files."""
    headers = [
        SliceHeader(
            source=FileRef(Path(f"{number}-{i}")),
            sop_uid=f"{number}.{i}",
            series_uid=f"1.2.{number}",
            study_uid="1.2",
            modality="CT",
            image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
            orientation=(1, 0, 0, 0, 1, 0),
            position=(0, 0, i * step),
            thickness=step,
            series_description=name,
            series_number=number,
            **own,
        )
        for i in range(int(150 / step))
    ]
    return Series(f"1.2.{number}", tuple(headers))


class TestCQ500:
    """The names of its 1,267 series: each may carry the prefix ``CT `` and, where it repeats, the suffix ``-2``."""

    @pytest.mark.parametrize("form", ["{}", "CT {}", "CT {}-2"])
    @pytest.mark.parametrize("wanted", CQ500_WANTED)
    def test_wanted_before_all_others(self, wanted: str, form: str) -> None:
        others = [in_memory(i, form.format(name), 0.625) for i, name in enumerate(CQ500_SECOND, 1)]
        others += [in_memory(i, form.format(name), 5) for i, name in enumerate(CQ500_NEVER, 20)]
        series = in_memory(50, form.format(wanted), 5)
        assert choose_series(Study("1.2", "", (*others, series))).series is series

    @pytest.mark.parametrize("form", ["{}", "CT {}", "CT {}-2"])
    @pytest.mark.parametrize("second", CQ500_SECOND)
    def test_second_choice(self, second: str, form: str) -> None:
        never = [in_memory(i, form.format(name), 5) for i, name in enumerate(CQ500_NEVER, 20)]
        series = in_memory(50, form.format(second), 0.625)
        assert choose_series(Study("1.2", "", (*never, series))).series is series

    @pytest.mark.parametrize("form", ["{}", "CT {}", "CT {}-2"])
    @pytest.mark.parametrize("never", CQ500_NEVER)
    def test_never(self, never: str, form: str) -> None:
        study = Study("1.2", "", (in_memory(1, form.format(never), 5),))
        with pytest.raises(StudyError) as error:
            choose_series(study)
        assert error.value.code in ("bone_kernel", "contrast")

    def test_of_two_thick_ones_always_the_same(self) -> None:
        two = in_memory(4, "CT Plain", 5), in_memory(7, "CT Plain-2", 5)
        assert {choose_series(Study("1.2", "", order)).series.series_uid for order in (two, two[::-1])} == {"1.2.4"}

    def test_of_two_thick_ones_that_show_half_a_head_each_none_is_read_beside_a_thin_whole(self) -> None:
        """As where an examination was begun anew: two acquisitions, and one reconstruction of both."""
        whole = in_memory(1, "CT PLAIN THIN", 0.625)
        thick = in_memory(2, "CT Plain", 5)
        halves = [Series(f"1.2.{i}", thick.headers[part]) for i, part in ((4, slice(15)), (7, slice(15, None)))]
        ranked = rank_series(Study("1.2", "", (*halves, whole)))
        assert ranked[0].series is whole
        assert [candidate.code for candidate in ranked] == ["", "partial_coverage", "partial_coverage"]

    def test_contrast_alone_is_refused_for_prediction_and_flagged_in_training(self, tmp_path: Path) -> None:
        study = make_study(tmp_path, {"SeriesDescription": "CT POST CONTRAST"}, {"SeriesDescription": "CT BONE"})
        with pytest.raises(StudyError):
            choose_series(study)
        series = choose_series(study, allow_contrast=True).series
        assert series.headers[0].series_description == "CT POST CONTRAST"
        assert "contrast" in {flag.code for flag in load_scan(series, training=True).flags}

    @pytest.mark.parametrize("other", [chest, neck])
    def test_slices_that_are_not_of_the_head_are_left_out_and_said(self, other: Shape, tmp_path: Path) -> None:
        index = index_source(make(tmp_path, lambda z: skull if z >= 150 else other, count=50, SeriesDescription="CT 5mm"))
        (study,) = index.studies()
        scan = load_scan(choose_series(study, ledger=index.ledger).series, training=True, ledger=index.ledger, slab_mm=None)
        assert [note.code for note in scan.repairs] == ["neck"]
        assert len(scan) == 28  # 100 mm of skull, and the 40 mm below it that are kept
        assert index.ledger.counts() == {"used": 28, "skipped": 22, "refused": 0}


class TestOptions:
    def test_other_parts_of_the_body_may_be_allowed_and_come_last(self) -> None:
        neck, head = in_memory(1, "C-SPINE", 2), in_memory(2, "5mm", 5)
        study = Study("1.2", "", (neck, head))
        assert [candidate.eligible for candidate in rank_series(study)] == [True, False]
        ranked = rank_series(study, allow_other_part=True)
        assert [(candidate.series, candidate.eligible) for candidate in ranked] == [(head, True), (neck, True)]
        assert choose_series(Study("1.2", "", (neck,)), allow_other_part=True).series is neck

    def test_an_axial_reformat_is_eligible(self) -> None:
        reformat = in_memory(1, "Axial MPR", 5)
        turned = [replace(header, image_type=("DERIVED", "SECONDARY", "REFORMATTED")) for header in reformat.headers]
        assert rank_series(Study("1.2", "", (Series("1.2.1", turned),)))[0].eligible

    def test_a_named_series_with_contrast_needs_the_option(self) -> None:
        study = Study("1.2", "", (in_memory(1, "CTA", 5), in_memory(2, "Plain", 5)))
        with pytest.raises(StudyError):
            choose_series(study, "1.2.1")
        assert choose_series(study, "1.2.1", allow_contrast=True).series.series_uid == "1.2.1"


class TestMaps:
    """What is no plain HU is never read unasked, and never as if it were plain."""

    @pytest.mark.parametrize(
        "elements",
        [
            {"SeriesDescription": "VNC"},
            {"SeriesDescription": "Virtual Non-Contrast 5mm"},
            {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MAT_REMOVED"]},
            {"RescaleType": "HU_MOD"},
            {"RescaleType": "US", "ImageType": ["DERIVED", "SECONDARY"]},
        ],
    )
    def test_only_a_named_one_is_read_and_it_is_flagged(self, elements: dict[str, Any], tmp_path: Path) -> None:
        study = make_study(tmp_path, elements, THIN)
        ranked = rank_series(study)
        assert [(candidate.series.series_uid[-1], candidate.code) for candidate in ranked] == [("2", ""), ("1", "derived_map")]
        with pytest.raises(StudyError):
            choose_series(Study("1", "", (ranked[1].series,)))
        flags = {flag.code for flag in load_scan(choose_series(study, "1.2.3.100.1").series).flags}
        assert "derived_map" in flags

    @pytest.mark.parametrize("unit", ["Z_EFF", "MGML", "ED", "EDW", "PCT", "mg/ml"])
    def test_another_unit_is_refused_even_if_named(self, unit: str, tmp_path: Path) -> None:
        study = make_study(tmp_path, {"RescaleType": unit}, THICK)
        ledger = Ledger()
        with pytest.raises(SeriesError) as error:
            load_scan(choose_series(study, "1.2.3.100.1").series, ledger=ledger)
        assert error.value.code == "not_hu"
        assert {row.code for row in ledger.rows()} == {"not_hu"}

    def test_a_unit_is_repeated_only_if_it_is_a_term_of_the_standard(self, tmp_path: Path) -> None:
        study = make_study(tmp_path, {"RescaleType": "Miller"}, {"RescaleType": "Z_EFF"})
        reasons = [candidate.reason for candidate in rank_series(study)]
        assert "Z_EFF" in reasons[1]
        assert "MILLER" not in reasons[0].upper()

    def test_one_slice_of_another_unit_is_enough(self, tmp_path: Path) -> None:
        make_series(tmp_path, change=lambda i: {"RescaleType": "MGML" if i == 6 else "HU"})
        (study,) = index_source(tmp_path).studies()
        assert [candidate.code for candidate in rank_series(study)] == ["derived_map"]


PLAIN_NAMES = """
    Plain | 55mm Plain | 5mm | PRE CONTRAST 5MM STD | Plain 3mm | 2.55mm | BRAIN PLAIN | CT Plain-2 | PLAIN THIN | Thin Plain
    PRE CONTRAST THIN | 0.625mm | SOFT THIN | CT Thin Stnd | STD BRAIN 1MM, iDose | HEAD W/O CONTRAST | Head without IV contrast
    Schädel nativ | SIN CONTRASTE | sans injection | ohne KM | Post fossa 2.5mm | POST-OP HEAD | NON-CONTRAST | Low dose head
    UNENHANCED | Axial 5.0 H31s
"""
CONTRAST_NAMES = """
    POST CONTRAST | 4cc sec 150cc D3D on | CONTRAST | CECT | ORAL IV | CTA HEAD | C+ Head | mit KM | HEAD W CONTRAST | Angio 0.75
    WITH AND WITHOUT CONTRAST | WITHOUT AND WITH CONTRAST | HEAD W/WO CONTRAST | Post
"""
SOFT_KERNELS = "H31s | Hr40f\\3 | J30s | STANDARD | SOFT | STD+ | UB | FC21 | FC64"
BONE_KERNELS = "H60s | H70h | Hr64h\\3 | BONE | BONEPLUS | YA | FC30 | FC81"


def names(text: str) -> list[str]:
    return [name.strip() for line in text.strip().splitlines() for name in line.split("|")]


class TestWords:
    @pytest.mark.parametrize("name", names(PLAIN_NAMES))
    def test_names_of_plain_soft_series(self, name: str) -> None:
        assert not vocabulary.names_contrast(name)
        assert not vocabulary.names_bone(name)
        assert not vocabulary.names_map(name)
        assert not vocabulary.names_other_part(name, "HEAD")
        assert not vocabulary.names_report(name)
        assert not vocabulary.names_localizer(name)

    @pytest.mark.parametrize("name", ["BONE", "BONE THIN", "PRE CONTRAST BONE", "Knochen 1.0", "CT BONE-2"])
    def test_names_of_bone_series(self, name: str) -> None:
        assert vocabulary.names_bone(name)

    @pytest.mark.parametrize("name", names(CONTRAST_NAMES))
    def test_names_of_series_with_contrast(self, name: str) -> None:
        assert vocabulary.names_contrast(name)

    def test_kernels(self) -> None:
        assert [kernel for kernel in names(SOFT_KERNELS) if vocabulary.is_bone_kernel(kernel)] == []
        assert [kernel for kernel in names(BONE_KERNELS) if not vocabulary.is_bone_kernel(kernel)] == []

    @pytest.mark.parametrize(
        ("agent", "given"), [("", False), ("NONE", False), ("No contrast", False), ("OMNIPAQUE 350", True), ("IV", True)]
    )
    def test_agents(self, agent: str, given: bool) -> None:
        assert vocabulary.names_agent(agent) == given

    def test_of_a_kernel_only_the_vendor_s_name_is_repeated(self, tmp_path: Path) -> None:
        """The field is free text, and reasons and flags may be shared."""
        for number, kernel in enumerate(("BONE Miller", "H31s Miller", "Miller")):
            own = {"SeriesInstanceUID": f"1.2.3.100.{number}", "ConvolutionKernel": kernel}
            make_series(tmp_path / str(number), **own)
        (study,) = index_source(tmp_path).studies()
        ranked = rank_series(study)
        assert {candidate.reason for candidate in ranked} == {
            "bone kernel BONE",
            "axial, 8 slices 5.0 mm apart, kernel H31S",
            "axial, 8 slices 5.0 mm apart",
        }
        bone = load_scan(choose_series(study, "1.2.3.100.0").series)
        assert [flag.detail for flag in bone.flags if flag.code == "kernel"] == ["bone kernel BONE"]


class TestOneFigureForTheDistanceOfSlices:
    """Slice Thickness is not the distance: a scan's is the median of its steps, and what describes a series says the same."""

    @pytest.mark.parametrize(
        ("places", "thickness", "expected"),
        [
            ([4.0 * i for i in range(9)] + [39.0 + 7 * i for i in range(7)], "7", 4.0),
            ([5.0 * i for i in range(12)], "10", 5.0),
            ([3.0 * i for i in range(12)], None, 3.0),
            ([5.0 * i for i in range(12)], "0", 5.0),
        ],
        ids=["two-distances", "overlapping", "no-thickness", "thickness-0"],
    )
    def test_e44_is_the_scan_s(self, places: list[float], thickness: str | None, expected: float, tmp_path: Path) -> None:
        make_series(tmp_path, places=places, SliceThickness=thickness)
        (candidate,) = rank_series(index_source(tmp_path).studies()[0])
        assert load_scan(candidate.series).spacing_mm[0] == pytest.approx(expected)
        assert candidate.reason == f"axial, {len(places)} slices {expected:.1f} mm apart"

    def test_e44_without_positions_the_thickness_is_all_that_is_known(self, tmp_path: Path) -> None:
        make_series(tmp_path, ImagePositionPatient=None)
        (candidate,) = rank_series(index_source(tmp_path).studies()[0])
        assert candidate.reason == "axial, 8 slices of 5.0 mm"

    def test_e44_of_a_real_scan_with_two_distances(self, real_data: Path) -> None:
        (candidate,) = rank_series(index_source(real_data / "ge_head_tilt").studies()[0])
        assert "28 slices 4.0 mm apart" in candidate.reason
