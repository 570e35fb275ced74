"""One acquisition in several series is joined; several acquisitions in one series are parted; neither is ever silent."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import make_series

from ich_lstm.reading import (
    FileRef,
    Index,
    SliceHeader,
    Study,
    choose_series,
    index_source,
    load_scan,
    rank_series,
    read_scan,
)
from ich_lstm.reading.ledger.header_table import to_files
from ich_lstm.scan import Scan

HEAD = 28
"""Slices of 5 mm."""

SAME: dict[str, Any] = {"FrameOfReferenceUID": "1.2.3.9", "AcquisitionNumber": 1, "AcquisitionTime": "101112.0"}


def add(folder: Path, number: int, places: Sequence[float], **own: Any) -> None:
    """One series of the study."""
    uid = f"1.2.3.100.{number}"
    elements = {"SeriesInstanceUID": uid, "SeriesNumber": number, **SAME, **own}
    make_series(folder / f"s{number}", places=places, **elements)


def only_study(folder: Path) -> Study:
    (study,) = index_source(folder).studies()
    return study


def head(step: float = 5.0, count: int = HEAD, first: float = 0.0) -> list[float]:
    return [first + step * i for i in range(count)]


def codes(scan: Scan) -> set[str]:
    """All but ``incomplete``: the made heads are cylinders of a few slices."""
    return {note.code for note in (*scan.repairs, *scan.flags)} - {"incomplete"}


# What a PACS or a scanner makes of one acquisition: places of each series, and what else differs.
PIECES: dict[str, list[tuple[list[float], dict[str, Any]]]] = {
    "in-the-middle": [(head()[:14], {}), (head()[14:], {})],
    "at-twelve": [(head()[:12], {}), (head()[12:24], {}), (head()[24:], {})],
    "with-one-slice-left-over": [(head()[:27], {}), (head()[27:], {})],
    "odd-and-even": [(head()[::2], {}), (head()[1::2], {})],
    "every-third": [(head()[::3], {}), (head()[1::3], {}), (head()[2::3], {})],
    "later-half-first": [(head()[14:], {}), (head()[:14], {})],
    "step-and-shoot": [
        (head()[:14], {"numbers": range(1, 15)}),
        (head()[14:], {"numbers": range(15, 29), "AcquisitionTime": "101131"}),
    ],
    "numbers-begin-anew": [(head()[:14], {"numbers": range(1, 15)}), (head()[14:], {"numbers": range(1, 15)})],
    "without-times": [(head()[:14], {"AcquisitionTime": None}), (head()[14:], {"AcquisitionTime": None})],
    "without-numbers": [(head()[:14], {"AcquisitionNumber": None}), (head()[14:], {"AcquisitionNumber": None})],
    "with-two-names": [(head()[:14], {"SeriesDescription": "Base"}), (head()[14:], {"SeriesDescription": "Cerebrum"})],
}


def write(folder: Path, pieces: list[tuple[list[float], dict[str, Any]]]) -> int:
    for number, (places, own) in enumerate(pieces, 1):
        elements = dict(own)
        numbers = elements.pop("numbers", None)
        change = (lambda i, numbers=numbers: {"AcquisitionNumber": numbers[i]}) if numbers else None
        add(folder, number, places, change=change, **elements)
    return sum(len(places) for places, _ in pieces)


class TestOneAcquisitionInSeveralSeries:
    @pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
    def test_is_read_as_one_scan_and_said(self, pieces: list[tuple[list[float], dict[str, Any]]], tmp_path: Path) -> None:
        count = write(tmp_path / "parted", pieces)
        make_series(tmp_path / "whole", HEAD)
        index = index_source(tmp_path / "parted")
        (study,) = index.studies()
        (series,) = study.series
        assert series.series_uids == tuple(f"1.2.3.100.{number}" for number in range(1, len(pieces) + 1))
        candidate = choose_series(study, ledger=index.ledger)
        assert f"{len(pieces)} series of one acquisition joined" in candidate.reason
        scan = load_scan(candidate.series, ledger=index.ledger, slab_mm=None)
        whole = read_scan(tmp_path / "whole")
        np.testing.assert_array_equal(scan.hu, whole.hu)
        np.testing.assert_allclose(scan.positions_mm, whole.positions_mm)
        counts = " + ".join(str(len(places)) for places, _ in pieces)
        assert [note.detail for note in scan.repairs] == [f"{len(pieces)} series of one acquisition joined: {counts} slices"]
        assert scan.flags == whole.flags
        frame = index.ledger.to_frame()
        assert index.ledger.counts() == {"used": count, "skipped": 0, "refused": 0}
        assert set(frame.series_uid) == set(series.series_uids)  # each file under its own

    @pytest.mark.parametrize(("base", "cerebrum"), [(2.5, 5.0), (4.0, 7.0), (5.0, 2.5)])
    def test_base_and_cerebrum_of_two_thicknesses_are_joined_and_flagged(
        self, base: float, cerebrum: float, tmp_path: Path
    ) -> None:
        add(tmp_path, 1, head(base, 16), SliceThickness=base, SeriesDescription="Base")
        seam = base * 15 + (base + cerebrum) / 2
        add(tmp_path, 2, head(cerebrum, 16, seam), SliceThickness=cerebrum, SeriesDescription="Cerebrum")
        scan = load_scan(choose_series(only_study(tmp_path)).series, slab_mm=None)
        assert len(scan) == 32
        assert {"joined_series", "uneven_spacing"} <= codes(scan)
        assert "gap" not in codes(scan)

    def test_of_two_reconstructions_of_base_and_cerebrum_each_is_joined_with_its_own(self, tmp_path: Path) -> None:
        for number, step in ((1, 5.0), (3, 2.5)):
            for half in (0, 1):
                places = head(step, int(70 / step), 70.0 * half)
                add(tmp_path, number + half, places, SliceThickness=step, SeriesDescription=f"{step} mm")
        assert {series.series_uids for series in only_study(tmp_path).series} == {
            ("1.2.3.100.1", "1.2.3.100.2"),
            ("1.2.3.100.3", "1.2.3.100.4"),
        }

    def test_the_identifier_does_not_depend_on_files_and_their_order(self, tmp_path: Path) -> None:
        add(tmp_path / "a", 2, head()[:14], SeriesInstanceUID="1.2.3.7")
        add(tmp_path / "a", 1, head()[14:], SeriesInstanceUID="1.2.3.8")
        (series,) = only_study(tmp_path).series
        assert (series.series_uid, series.joined) == ("1.2.3.8", ("1.2.3.7",))  # by Series Number
        assert series.identifier == "1.2.3.8"

    @pytest.mark.parametrize("uid", ["1.2.3.100.1", "1.2.3.100.2"])
    def test_either_uid_names_it(self, uid: str, tmp_path: Path) -> None:
        write(tmp_path, PIECES["in-the-middle"])
        assert len(choose_series(only_study(tmp_path), uid).series) == HEAD
        assert len(read_scan(tmp_path, uid)) == HEAD

    @pytest.mark.parametrize("angle", [15.0, -20.0])
    def test_a_tilted_gantry(self, angle: float, tmp_path: Path) -> None:
        cosine, sine = float(np.cos(np.radians(angle))), float(np.sin(np.radians(angle)))
        for number, places in ((1, range(14)), (2, range(14, 28))):
            # The table moves along z while the slices lean: their origins shift in their plane.
            change = {i: {"ImagePositionPatient": [-96, -96, -20 + 5.3 * place]} for i, place in enumerate(places)}
            add(tmp_path, number, [0.0] * 14, change=change.__getitem__, orientation=(1, 0, 0, 0, cosine, sine))
        (series,) = only_study(tmp_path).series
        assert len(series) == HEAD

    def test_in_memory_as_in_the_table(self, tmp_path: Path) -> None:
        """Two kernels under each of two series UIDs: parted by kernel, and joined over the series."""
        for number, part in ((1, slice(14)), (2, slice(14, None))):
            add(tmp_path, number, head()[part], ConvolutionKernel="H31s")
            uids = {i: {"SOPInstanceUID": f"1.9.{number}.{i}"} for i in range(14)}
            bone = {"SeriesInstanceUID": f"1.2.3.100.{number}", "ConvolutionKernel": "H60s"}
            make_series(tmp_path / f"b{number}", places=head()[part], change=uids.__getitem__, **SAME | bone)
        study = only_study(tmp_path)
        assert sorted((series.qualifier, len(series), len(series.series_uids)) for series in study.series) == [
            ("H31s", 28, 2),
            ("H60s", 28, 2),
        ]
        assert len(load_scan(choose_series(study).series)) == HEAD


OTHER: dict[str, dict[str, Any]] = {
    "frame-of-reference": {"FrameOfReferenceUID": "1.2.3.10"},
    "no-frame-of-reference": {"FrameOfReferenceUID": None},
    "kernel": {"ConvolutionKernel": "H60s"},
    "contrast": {"ContrastBolusAgent": "Omnipaque"},
    "contrast-by-name": {"SeriesDescription": "HEAD POST CONTRAST"},
    "body-part": {"BodyPartExamined": "NECK"},
    "spacing": {"PixelSpacing": [5.9, 5.9]},
    "matrix": {"hu": np.zeros((16, 16))},
    "image-type": {"ImageType": ["DERIVED", "SECONDARY", "MPR"]},
    "field-of-view": {"start": (-66, -96, -20)},
    "later-by-time": {"AcquisitionTime": "102112"},
    "another-number": {"AcquisitionNumber": 7},
    "orientation": {"orientation": (1, 0, 0, 0, 0.98480775, 0.17364818)},
}


class TestNeverJoined:
    @pytest.mark.parametrize("own", OTHER.values(), ids=OTHER)
    def test_halves_that_differ(self, own: dict[str, Any], tmp_path: Path) -> None:
        add(tmp_path, 1, head()[:14])
        add(tmp_path, 2, head()[14:], **own)
        assert [len(series) for series in only_study(tmp_path).series] == [14, 14]

    @pytest.mark.parametrize(
        ("places", "own"),
        [
            (head(), {"AcquisitionNumber": 2}),
            (head(), {}),
            (head(first=2.0), {}),
            (head(first=2.5), {"AcquisitionNumber": 2, "AcquisitionTime": "101230"}),
            (head(first=2.5), {}),
            (head(1.0, 140), {"SliceThickness": 1}),
            (head(first=35.0), {}),
            (head()[14:], {}),
        ],
        ids=["repeat", "copy", "shifted", "scanned-again", "shifted-reconstruction", "thin", "overlapping", "part"],
    )
    def test_what_shows_the_same_tissue_twice(self, places: list[float], own: dict[str, Any], tmp_path: Path) -> None:
        add(tmp_path, 1, head())
        add(tmp_path, 2, places, **own)
        assert [len(series) for series in only_study(tmp_path).series] == [HEAD, len(places)]

    def test_odd_and_even_slices_of_two_acquisitions(self, tmp_path: Path) -> None:
        add(tmp_path, 1, head()[::2])
        add(tmp_path, 2, head()[1::2], AcquisitionNumber=2, AcquisitionTime="101200")
        assert len(only_study(tmp_path).series) == 2

    def test_pieces_with_a_gap_between_them(self, tmp_path: Path) -> None:
        add(tmp_path, 1, head()[:10])
        add(tmp_path, 2, head()[14:])
        assert len(only_study(tmp_path).series) == 2


def write_acquisitions(folder: Path, scans: Sequence[Sequence[float]], told_by: str) -> None:
    """Scans of one head under one series UID, of which one attribute tells which slice is of which."""
    number = 0
    for i, places in enumerate(scans):
        for j, place in enumerate(places):
            number += 1
            own: dict[str, Any] = {"InstanceNumber": number, "SOPInstanceUID": f"1.2.4.{number}"}
            if told_by != "instance-number":
                own["InstanceNumber"] = None
            if told_by == "number":
                own["AcquisitionNumber"] = i + 1
            elif told_by == "step-and-shoot":
                own["AcquisitionNumber"] = number
            elif told_by == "time":
                own["AcquisitionTime"] = f"10{11 + i:02}00"
            elif told_by == "time-of-each-slice":
                own["AcquisitionTime"] = f"10{11 + i:02}{j:02}.5"
            make_series(folder / f"{i}", places=[place], change=lambda _, own=own: own)
            (folder / f"{i}" / "0.dcm").rename(folder / f"{number}.dcm")


TOLD_BY = ["number", "step-and-shoot", "time", "time-of-each-slice", "instance-number", "lattice"]


class TestSeveralAcquisitionsInOneSeries:
    @pytest.mark.parametrize("told_by", TOLD_BY)
    @pytest.mark.parametrize("shifts", [(0, 2.0), (0, 1.5, 3.2)], ids=["two", "three"])
    def test_are_candidates_of_their_own_of_which_the_latest_is_read(
        self, shifts: tuple[float, ...], told_by: str, tmp_path: Path
    ) -> None:
        write_acquisitions(tmp_path, [head(first=shift) for shift in shifts], told_by)
        index = index_source(tmp_path)
        (study,) = index.studies()
        assert [len(series) for series in study.series] == [HEAD] * len(shifts)
        assert len({series.identifier for series in study.series}) == len(shifts)
        for series, shift in zip(study.series, shifts, strict=True):
            assert load_scan(series, slab_mm=None).positions_mm == pytest.approx(np.array(head(first=shift)) - 20)
        candidate = choose_series(study, ledger=index.ledger)
        assert candidate.series.acquisition == len(shifts)
        scan = load_scan(candidate.series, ledger=index.ledger)
        assert codes(scan) == {"several_acquisitions"}
        assert index.ledger.counts() == {"used": HEAD, "skipped": HEAD * (len(shifts) - 1), "refused": 0}
        skipped = index.ledger.to_frame().query("action == 'skipped'")
        assert set(skipped.code) == {"not_chosen"}
        assert set(skipped.detail) == {"another acquisition of the series is read"}

    @pytest.mark.parametrize("told_by", ["number", "time", "instance-number"])
    @pytest.mark.parametrize("shift", [0.5, 2.5, 22.0])
    def test_any_shift(self, shift: float, told_by: str, tmp_path: Path) -> None:
        write_acquisitions(tmp_path, [head(), head(first=shift)], told_by)
        assert [len(series) for series in only_study(tmp_path).series] == [HEAD, HEAD]

    def test_of_a_whole_scan_and_one_that_was_broken_off_the_whole_is_read(self, tmp_path: Path) -> None:
        write_acquisitions(tmp_path, [head(), head(count=9, first=2.0)], "number")
        first, second = rank_series(only_study(tmp_path))
        assert (first.series.acquisition, len(first.series)) == (1, HEAD)
        assert second.code == "partial_coverage"

    def test_a_few_slices_taken_again_at_other_places_are_not_mixed_in(self, tmp_path: Path) -> None:
        write_acquisitions(tmp_path, [head(), [42.0, 47.0]], "number")
        first, second = rank_series(only_study(tmp_path))
        assert len(load_scan(first.series, slab_mm=None)) == HEAD
        assert second.code == "few_slices"

    def test_two_thicknesses_of_one_acquisition_under_one_uid(self, tmp_path: Path) -> None:
        uids = {i: {"SOPInstanceUID": f"1.9.{i}"} for i in range(140)}
        make_series(tmp_path / "thin", 140, step=1.0, SliceThickness=1, AcquisitionNumber=1, change=uids.__getitem__)
        make_series(tmp_path / "thick", HEAD, AcquisitionNumber=1)
        first, second = rank_series(only_study(tmp_path))
        assert (len(first.series), len(second.series)) == (HEAD, 140)

    def test_plain_and_contrast_phase_under_one_uid(self, tmp_path: Path) -> None:
        own = {"AcquisitionNumber": 2, "ContrastBolusAgent": "Omnipaque", "start": (-96, -96, -18)}
        uids = {i: {"SOPInstanceUID": f"1.9.{i}"} for i in range(HEAD)}
        make_series(tmp_path / "a", HEAD, AcquisitionNumber=1)
        make_series(tmp_path / "b", HEAD, change=uids.__getitem__, **own)
        first, second = rank_series(only_study(tmp_path))
        assert (first.eligible, first.series.acquisition) == (True, 1)
        assert second.code == "contrast"


WHOLE: dict[str, list[dict[str, Any]]] = {
    "step-and-shoot": [{"AcquisitionNumber": i + 1} for i in range(HEAD)],
    "step-and-shoot-downward": [{"AcquisitionNumber": HEAD - i} for i in range(HEAD)],
    "four-slices-at-each-place": [{"AcquisitionNumber": 1 + i // 4} for i in range(HEAD)],
    "four-at-each-place-by-time": [{"AcquisitionTime": f"1011{i // 4:02}"} for i in range(HEAD)],
    "a-time-for-each-slice": [{"AcquisitionTime": f"1011{i:02}.25"} for i in range(HEAD)],
    "odd-slices-first": [{"AcquisitionNumber": 1 + i % 2} for i in range(HEAD)],
    "odd-slices-first-one-by-one": [{"AcquisitionNumber": 1 + i // 2 + 14 * (i % 2)} for i in range(HEAD)],
    "base-and-cerebrum": [{"AcquisitionNumber": 1 + (i >= 12)} for i in range(HEAD)],
    "times-of-reconstruction": [{"ContentTime": f"1011{(i * 11) % HEAD:02}"} for i in range(HEAD)],
    "number-zero-in-some": [{"AcquisitionNumber": None if i % 5 else 0} for i in range(HEAD)],
    "instances-in-any-order": [{"InstanceNumber": 1 + (i * 5) % HEAD} for i in range(HEAD)],
}


class TestOneAcquisitionInOneSeries:
    @pytest.mark.parametrize("own", WHOLE.values(), ids=WHOLE)
    @pytest.mark.parametrize("step", [5.0, 2.5])
    def test_stays_one_scan(self, own: list[dict[str, Any]], step: float, tmp_path: Path) -> None:
        if step < 5 and own in (WHOLE["odd-slices-first"], WHOLE["odd-slices-first-one-by-one"]):
            pytest.skip("slices that overlap by half, of two acquisitions: those are two scans")
        make_series(tmp_path, HEAD, step=step, change=own.__getitem__)
        (series,) = only_study(tmp_path).series
        assert (len(series), series.identifier) == (HEAD, "1.2.3.100.1")

    @pytest.mark.parametrize("first", [0, 7, 24])
    def test_slices_taken_again_at_their_places_replace_the_earlier(self, first: int, tmp_path: Path) -> None:
        make_series(tmp_path, HEAD, change=[{"AcquisitionNumber": i + 1} for i in range(HEAD)].__getitem__)
        again = {"AcquisitionNumber": 40, "hu": np.full((32, 32), 7)}
        uids = [again | {"SOPInstanceUID": f"1.9.{i}"} for i in range(3)]
        make_series(tmp_path / "again", places=head()[first : first + 3], change=uids.__getitem__)
        (series,) = only_study(tmp_path).series
        scan = load_scan(series, slab_mm=None, allow_other_part=True)
        assert len(scan) == HEAD
        assert (scan.hu[first : first + 3] == 7).all()

    def test_a_real_sequential_scan_with_a_seam(self, real_data: Path) -> None:
        (series,) = only_study(real_data / "ge_head_tilt").series
        assert (len(series), series.acquisition, series.joined) == (28, 0, ())

    def test_a_real_export_has_as_many_series_as_uids(self, real_data: Path) -> None:
        study = only_study(real_data / "philips_exam.zip")
        assert len(study.series) == len({series.series_uid for series in study.series}) == 5
        assert all(series.composition == "" for series in study.series)


BAD = [float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 0.0, 1e5]


@pytest.mark.parametrize("seed", range(20))
def test_every_slice_is_in_one_series_whatever_the_headers_say(seed: int) -> None:
    """Warnings are errors here; and none of the values may end the grouping of an archive."""
    rng = random.Random(seed)
    headers = [
        SliceHeader(
            source=FileRef(Path(f"/{series}/{i}")),
            sop_uid=f"{series}.{i}",
            series_uid=f"1.{series}",
            study_uid="1",
            position=rng.choice([(0.0, 0.0, 5.0 * i)] * 8 + [(0.0, 0.0, rng.choice(BAD)), (1.0,), (), None]),
            orientation=rng.choice([(1.0, 0, 0, 0, 1.0, 0)] * 8 + [(rng.choice(BAD), 0, 0, 0, 1.0, 0), (1.0,), (), None]),
            thickness=rng.choice([5.0, 5.0, None, *BAD]),
            instance_number=rng.choice([i, i, None]),
            acquisition_number=rng.choice([1, 2, i, None]),
            acquisition_time=rng.choice(["", "101112", "10111299", "x", "999999.9"]),
            kernel=rng.choice(["A", "A", "B"]),
            frame_of_reference="9",
            pixel_spacing=rng.choice([(1.0, 1.0), (1.0,), None]),
        )
        for series in range(4)
        for i in range(rng.randint(1, 16))
    ]
    (study,) = Index(to_files(headers)).studies()
    assert sorted(header.sop_uid for series in study.series for header in series.headers) == sorted(
        header.sop_uid for header in headers
    )
    assert len({series.identifier for series in study.series}) == len(study.series)
