import ast
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ich_lstm.errors import ConfigError
from ich_lstm.labels import HEMORRHAGE_TYPES
from ich_lstm.phantom import Cq500Layout, PhantomScan, PhantomSettings, make_head, write_phantom
from ich_lstm.phantom.layouts.cq500_series import plan_series
from ich_lstm.phantom.layouts.readers import SKILLS, Skill
from ich_lstm.reading import Study, choose_series, index_source, load_scan
from ich_lstm.reading.terms.vocabulary import names_bone, names_contrast

SETTINGS = PhantomSettings(patients=13, slices=10, size=64, seed=4, prevalence=0.8, masks=True)
THIN_MM = 1.9
LAYOUT = Cq500Layout(thin_mm=THIN_MM, boxes=True, skills=dict.fromkeys(SKILLS, Skill(1.0, 1.0)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_phantom(SETTINGS, tmp_path_factory.mktemp("cq500") / "set", layout=LAYOUT, workers=1)


@pytest.fixture(scope="module")
def studies(folder) -> dict[int, Study]:
    return {int(study.patient_id.rpartition("-")[2]): study for study in index_source(folder).studies()}


@pytest.fixture(scope="module")
def heads() -> dict[int, PhantomScan]:
    """The plain heads of the studies that are read from thick slices of their own thickness."""
    return {number: make_head(SETTINGS, number) for number in set(range(SETTINGS.patients)) - {4}}


@pytest.fixture(scope="module")
def datasets(folder) -> list[pydicom.Dataset]:
    found = [pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))]
    for dataset in found:
        list(dataset)  # reads every element now, and would warn of a value that is none
    return found


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        yield from csv.DictReader(file)


class TestFiles:
    def test_lie_where_cq500_has_them(self, folder):
        for number in range(SETTINGS.patients):
            place = folder / f"CQ500-CT-{number}" / f"CQ500CT{number} CQ500CT{number}" / "Unknown Study"
            assert sorted(path.name for path in place.iterdir()) == sorted(p.name for p in plan_series(number, 10, THIN_MM))
            for series in place.iterdir():
                files = sorted(path.name for path in series.iterdir())
                assert files == [f"CT{i:06d}.dcm" for i in range(len(files))]

    def test_hold_full_headers_with_valid_identifiers(self, datasets):
        uids = [str(dataset.SOPInstanceUID) for dataset in datasets]
        assert len(set(uids)) == len(uids)
        for dataset in datasets:
            assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
            for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
                assert dataset[keyword].value.is_valid
            assert dataset.Modality == "CT"
            assert len(dataset.StudyDate) == 8
            assert dataset.InstanceNumber >= 1
            if "LOCALIZER" not in dataset.ImageType:
                assert dataset.ConvolutionKernel == ("BONEPLUS" if names_bone(dataset.SeriesDescription) else "STANDARD")
                assert ("ContrastBolusAgent" in dataset) == names_contrast(dataset.SeriesDescription)
                assert dataset.SliceThickness > 0

    def test_give_back_the_head(self, studies, heads):
        plain = choose_series(studies[0]).series
        assert np.array_equal(load_scan(plain).hu, heads[0].hu)

    def test_archives_hold_the_same(self, folder, studies, tmp_path):
        settings = PhantomSettings(patients=2, slices=10, size=64, seed=4, prevalence=0.8)
        layout = Cq500Layout(thin_mm=THIN_MM, archives=True, nested=True)
        other = write_phantom(settings, tmp_path / "zips", layout=layout, workers=1)
        assert sorted(path.name for path in (other / "qct01").iterdir()) == ["CQ500-CT-0.zip", "CQ500-CT-1.zip"]
        zipped = index_source(other).studies()
        assert {study.study_uid for study in zipped} == {studies[0].study_uid, studies[1].study_uid}
        for study in zipped:
            number = int(study.patient_id.rpartition("-")[2])
            pair = [load_scan(choose_series(one).series) for one in (study, studies[number])]
            assert np.array_equal(pair[0].hu, pair[1].hu)


class TestChoice:
    def test_the_plain_thick_series_is_read(self, studies):
        for number, study in studies.items():
            plans = plan_series(number, 10, THIN_MM)
            plain = [plan for plan in plans if plan.is_plain]
            thick = [plan for plan in plain if plan.thickness_mm != THIN_MM] or plain
            chosen = choose_series(study).series.headers[0]
            assert chosen.series_description in {plan.description for plan in thick}
            assert (chosen.thickness < 2) == (number == 4)  # 4 has thin slices only

    def test_a_study_with_two_thick_ones_names_both_alike(self, studies):
        plain = [series.headers[0] for series in studies[12].series if series.headers[0].kernel == "STANDARD"]
        assert len({header.series_uid for header in plain}) == 2
        assert len({header.series_description for header in plain}) == 1


class TestReads:
    def test_perfect_readers_say_what_is_in_the_heads(self, folder, heads):
        raw = (folder / "reads.csv").read_bytes()
        assert raw.startswith(b"\xef\xbb\xbfname,Category,R1:ICH,")
        rows = {row["name"]: row for row in rows_of(folder / "reads.csv")}
        assert list(rows) == sorted(rows)
        assert len(rows) == SETTINGS.patients
        columns = {"IPH": 1, "IVH": 2, "SDH": 4, "EDH": 0, "SAH": 3, "ICH": 5}
        for number, head in heads.items():
            truth = head.slice_labels.any(axis=0)
            for name, place in columns.items():
                said = {rows[f"CQ500-CT-{number}"][f"{reader}:{name}"] for reader in ("R1", "R2", "R3")}
                assert said == {f"{truth[place]:d}"}
        assert {row["Category"] for row in rows.values()} == {"B1", "B2"}

    def test_the_byte_order_mark_is_an_option(self, tmp_path):
        layout = Cq500Layout(thin_every=0, byte_order_mark=False)
        folder = write_phantom(PhantomSettings(patients=1, slices=8, size=48), tmp_path / "set", layout=layout, workers=1)
        assert (folder / "reads.csv").read_bytes().startswith(b"name,")


class TestBoxes:
    def test_they_stand_in_the_slices_with_the_label(self, folder, studies, heads):
        rows = list(rows_of(folder / "1_Initial_Manual_Labeling.csv"))
        places = {}
        for number, head in heads.items():
            scan = load_scan(choose_series(studies[number]).series)
            places |= {uid: (head, i) for i, uid in enumerate(scan.sop_uids)}
        seen = 0
        for row in rows:
            if row["SOPInstanceUID"] not in places:
                continue  # of the thin series of 4, or the other thick one of 12
            head, i = places[row["SOPInstanceUID"]]
            kind = HEMORRHAGE_TYPES.index("subdural" if row["labelName"] == "Chronic" else row["labelName"].lower())
            assert head.slice_labels[i, kind]
            box = ast.literal_eval(row["data"])
            part = np.s_[int(box["y"]) : int(box["y"] + box["height"]), int(box["x"]) : int(box["x"] + box["width"])]
            mask = head.masks[kind, i][part]
            # Every edge touches blood.
            assert mask[0].any() and mask[-1].any() and mask[:, 0].any() and mask[:, -1].any()  # noqa: PT018
            seen += 1
        assert seen > 20

    def test_each_table_says_more_than_the_one_before(self, folder, studies):
        series = {}
        for file in ("1_Initial_Manual_Labeling", "3_Extrapolation_to_Selected_Series", "2_Extrapolation_to_All_Series"):
            series[file[0]] = {row["SeriesInstanceUID"] for row in rows_of(folder / f"{file}.csv")}
        assert series["1"] < series["3"] < series["2"]
        everywhere = {one.series_uid: one for study in studies.values() for one in study.series}
        assert series["2"] <= set(everywhere)
        plain = {uid for uid in series["3"] if everywhere[uid].headers[0].kernel == "STANDARD"}
        assert plain == series["3"]


def test_masks_are_kept_for_every_series(folder, studies, heads):
    bits = np.load(folder / "masks" / f"{choose_series(studies[0]).series.series_uid}.npy")
    for kind in range(len(HEMORRHAGE_TYPES)):
        assert np.array_equal(bits >> kind & 1 == 1, heads[0].masks[kind])
    scouts = sum(plan.is_localizer for number in studies for plan in plan_series(number, 10, THIN_MM))
    assert len(list((folder / "masks").iterdir())) == sum(len(study.series) for study in studies.values()) - scouts


@pytest.mark.parametrize(
    "options",
    [{"thin_mm": 5.0}, {"thin_every": -1}, {"skills": {"SDH": Skill(1, 1)}}, {"skills": dict(SKILLS) | {"SDH": Skill(1.2, 1)}}],
)
def test_options_out_of_range_are_refused(options, tmp_path):
    with pytest.raises(ConfigError):
        write_phantom(SETTINGS, tmp_path / "new", layout=Cq500Layout(**options), workers=1)
    assert not (tmp_path / "new").exists()
