"""The audit of labelled scans: what it finds, and that it finds it always."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from labelled_scans import label_scans

from ich_lstm.data.audit.audit import Audit, audit_scans
from ich_lstm.data.audit.checks import AuditInputs, find_patients_in_two_subsets, find_same_pixels
from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.data.joining.locate import locate_labels
from ich_lstm.data.labels.table import read_label_table
from ich_lstm.data.prepared.folder import PreparedFolder
from ich_lstm.data.split.assign import tabulate_patients
from ich_lstm.data.split.split_file import Split, SplitFile
from ich_lstm.data.tables.labelled import LabelTable
from ich_lstm.errors import AuditError, TableError
from ich_lstm.labels import LABELS
from ich_lstm.preprocessing.crop_and_resize import Preprocessing

SCANS, SLICES = 24, 5
SUBSETS = ("train", "validation", "test")
Data = tuple[PreparedFolder, LabelTable]


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """A prepared folder of scans of as many patients, each slice labelled; every second scan has subdural blood in a slice."""
    numbers = np.repeat(np.arange(SCANS), SLICES)
    slices = np.tile(np.arange(SLICES), SCANS)
    key = pd.DataFrame(
        {
            "scan_id": [f"{i:016x}" for i in numbers],
            "slice": slices + 1,
            "slice_id": [f"{i:08x}{n:08x}" for i, n in zip(numbers, slices, strict=True)],
            "patient_id": [f"CANARY{chr(65 + i)}" for i in numbers],
            "study_uid": [f"1.2.{i}" for i in numbers],
            "accession_number": "",
            "study_date": "",
            "series_uid": [f"1.2.{i}.1" for i in numbers],
            "sop_uid": [f"1.2.{i}.1.{n}" for i, n in zip(numbers, slices, strict=True)],
            "file": [f"{i}/{n}.dcm" for i, n in zip(numbers, slices, strict=True)],
            "hu_hash": [f"{i}-{n}" for i, n in zip(numbers, slices, strict=True)],
            "cache": [f"{i}.b2nd" for i in numbers],
        }
    )
    key.loc[slices == 0, "hu_hash"] = ""  # constant
    facts = key.drop_duplicates("cache")[["scan_id", "cache", "patient_id", "study_uid", "series_uid"]].assign(
        series_in_study=1, slices=30, rows=512, columns=512, slice_mm=5.0, thickness_mm=5.0, pixel_mm=0.5, tilt_degrees=0.0
    )
    facts = facts.assign(hu_p1=-1000.0, hu_p50=-900.0, hu_p99=1300.0, flags="").reset_index(drop=True)
    (tmp_path / "private").mkdir()
    facts.to_parquet(tmp_path / "private/scans.parquet")
    pd.DataFrame({"name": ["9.9"], "study_uid": ""}).to_parquet(tmp_path / "private/left_out.parquet")
    write_ledger(tmp_path)
    rows = pd.DataFrame(
        {"kind": "sop_uid", "name": key["sop_uid"], "patient_id": "", "study_date": "", "line": np.arange(len(key)) + 2}
    )
    labels = pd.DataFrame(np.float32(0), index=rows.index, columns=list(LABELS))
    labels.loc[(slices == 2) & (numbers % 2 == 0), ["subdural", "any"]] = 1
    return PreparedFolder(tmp_path, Preprocessing(), key, {}), LabelTable(rows.join(labels), tmp_path / "labels.csv")


def write_ledger(folder: Path, *rows: tuple[str, str, str]) -> None:
    """The ledger: the series UID, action and code of files."""
    text = "".join(f"/{i},{uid}.{i},{uid},{action},{code},\n" for i, (uid, action, code) in enumerate(rows))
    (folder / "private/ledger.csv").write_text("path,sop_uid,series_uid,action,code,detail\n" + text)


def deal(scans: list[LabelledScan]) -> dict[str, list[LabelledScan]]:
    """The first two thirds train, and so on; patients are not looked at."""
    return {"train": scans[:16], "validation": scans[16:20], "test": scans[20:]}


def audit(data: Data, scans: dict[str, list[LabelledScan]] | None = None, **settings: Any) -> Audit:
    folder, table = data
    scans = deal(label_scans(folder, table, unmatched="labels")) if scans is None else scans
    return audit_scans(scans, folder, locate_labels(table, folder.images), **settings)


def counts(found: Audit, action: str = "STOP") -> dict[str, int]:
    return {finding.code: finding.count for finding in found.findings if finding.action == action}


def change_key(data: Data, rows: Any, column: str, value: Any) -> Data:
    key = data[0].key.copy()
    key.loc[rows, column] = value
    return replace(data[0], key=key), data[1]


def change_facts(data: Data, row: int, **values: Any) -> Data:
    facts = data[0].facts.copy()
    for column, value in values.items():
        facts.loc[row, column] = value
    facts.to_parquet(data[0].folder / "private/scans.parquet")
    return replace(data[0]), data[1]


class TestClean:
    def test_nothing_stops(self, data: Data) -> None:
        found = audit(data)
        assert counts(found) == {}
        assert counts(found, "FLAG") == {"label_absent": 4}
        found.stop()

    def test_a_label_that_is_known_only_as_present(self, data: Data) -> None:
        folder, table = data
        rows = table.rows.copy()
        rows[[label for label in LABELS if label != "subdural"]] = np.float32(np.nan)
        rows.loc[rows["subdural"] == 1, "any"] = 1
        found = audit((folder, replace(table, rows=rows)))
        (finding,) = (each for each in found.findings if each.code == "label_never_absent")
        assert (finding.action, finding.examples) == ("FLAG", ("any",))

    def test_counts_are_those_of_the_labels(self, data: Data) -> None:
        summary = audit(data).summary
        assert summary["parts"]["validation"] == {"patients": 4, "scans": 4, "slices": 4 * SLICES}
        assert summary["labels"]["subdural"]["train"] == {"patients": 8, "scans": 8, "slices": 8, "unknown_slices": 0}
        assert summary["labels"]["epidural"]["test"]["slices"] == 0
        assert summary["studies_per_patient"] == {"1": SCANS}
        histogram = summary["histograms"]["slice_mm"]
        assert (sum(histogram["counts"]), histogram["median"], histogram["unknown"]) == (SCANS, 5, 0)


class TestLeaks:
    def test_a_patient_in_two_parts(self, data: Data) -> None:
        found = audit(change_key(data, data[0].key["cache"] == "23.b2nd", "patient_id", "CANARYA"))
        assert counts(found) == {"patient_in_two_parts": 1}
        assert found.stops[0].examples == (f"{0:016x} (train) and {23:016x} (test)",)

    def test_a_study_in_two_parts(self, data: Data) -> None:
        found = audit(change_key(data, data[0].key["cache"] == "17.b2nd", "study_uid", "1.2.0"))
        assert counts(found) == {"study_in_two_parts": 1}

    def test_the_same_pixels_stop_across_parts_and_are_flagged_within(self, data: Data) -> None:
        of = data[0].key.set_index("cache")["hu_hash"]
        across = change_key(data, data[0].key["cache"] == "23.b2nd", "hu_hash", of["0.b2nd"].to_numpy())
        assert counts(audit(across)) == {"pixels_in_two_parts": 1}
        within = change_key(data, data[0].key["cache"] == "1.b2nd", "hu_hash", of["0.b2nd"].to_numpy())
        assert counts(audit(within)) == {}
        assert counts(audit(within), "FLAG")["same_pixels"] == 1
        assert audit(within).findings[0].examples == (f"{0:016x} (train) and {1:016x} (train): {SLICES - 1} slices",)

    def test_a_slice_twice_in_one_scan(self, data: Data) -> None:
        found = audit(change_key(data, [2, 3], "hu_hash", "same"))
        assert counts(found, "FLAG")["same_pixels"] == 1

    def test_constant_slices_are_alike_and_no_leak(self, data: Data) -> None:
        assert "same_pixels" not in counts(audit(data), "FLAG")


class TestLabels:
    def test_any_against_types(self, data: Data) -> None:
        scans = label_scans(*data)
        scans[3].slice_labels[1, LABELS.index("epidural")] = 1
        assert counts(audit(data, deal(scans))) == {"any_contradicts_types": 1}

    def test_any_without_a_type_is_flagged(self, data: Data) -> None:
        data[1].rows.loc[7, "any"] = 1
        assert counts(audit(data), "FLAG")["any_without_type"] == 1

    @pytest.mark.parametrize(("rows", "images"), [([7], 1), (list(range(10)), 10)])
    def test_images_without_a_label(self, data: Data, rows: list[int], images: int) -> None:
        short = data[0], replace(data[1], rows=data[1].rows.drop(index=rows).reset_index(drop=True))
        assert counts(audit(short)) == {"images_without_label": images}
        assert counts(audit(short, unmatched="images")) == {}
        assert counts(audit(short, unmatched="images"), "FLAG")["images_without_label"] == images

    def test_a_row_on_the_scan_speaks_of_its_slices(self, data: Data) -> None:
        rows = data[1].rows.drop(index=[5, 7]).reset_index(drop=True)
        rows.loc[len(rows)] = ["series_uid", "1.2.1.1", "", "", 99, 0, 0, 0, 0, 0, 0]
        assert counts(audit((data[0], replace(data[1], rows=rows)))) == {}

    def test_series_that_no_label_named_count_too(self, data: Data) -> None:
        write_ledger(data[0].folder, *[("7.7", "skipped", "no_label")] * 3, ("7.8", "skipped", "localizer"))
        assert counts(audit(data)) == {"images_without_label": 3}

    def test_labels_that_were_passed_over_are_flagged(self, data: Data) -> None:
        rows = data[1].rows.copy()
        rows.loc[3, "name"], rows.loc[4, "name"] = "9.9", "nothing"
        found = audit((data[0], replace(data[1], rows=rows)), unmatched="both")
        assert {"labels_left_out": 1, "labels_without_image": 1}.items() <= counts(found, "FLAG").items()

    def test_both_directions_are_one_stop_that_lists_both(self, data: Data) -> None:
        rows = data[1].rows.drop(index=[7]).reset_index(drop=True)
        rows.loc[4, "name"] = "nothing"
        unfit = data[0], replace(data[1], rows=rows)
        assert counts(audit(unfit)) == {"images_without_label": 2, "labels_without_image": 1}
        with pytest.raises(AuditError) as caught:
            audit(unfit).stop()
        assert "2 images without a label" in caught.value.got
        assert "1 label that names no readable image (line 6)" in caught.value.got
        assert "unmatched='both'" in str(caught.value)
        assert counts(audit(unfit, unmatched="labels")) == {"images_without_label": 2}
        assert counts(audit(unfit, unmatched="images")) == {"labels_without_image": 1}
        assert counts(audit(unfit, unmatched="both")) == {}


class TestPatients:
    @pytest.mark.parametrize(
        "name", ["ANONYMOUS", "anon", "Anonymized", "UNKNOWN", "0", "0000", "N/A", "none", "XXXX", "-", "Patient"]
    )
    def test_ids_that_name_nobody(self, data: Data, name: str) -> None:
        doubtful = change_key(data, slice(0, 2 * SLICES - 1), "patient_id", name)
        assert counts(audit(doubtful)) == {"patient_id_anonymous": 2}
        assert counts(audit(doubtful, patient_ids="trusted"), "FLAG")["patient_id_anonymous"] == 2
        assert counts(audit(doubtful, patient_ids="study")) == {}

    @pytest.mark.parametrize("name", ["ID_0a1b2c3d", "Anna", "10", "0815", "CQ500CT12", "testarossa", "Anonymized_1"])
    def test_ids_that_may_name_somebody(self, data: Data, name: str) -> None:
        assert counts(audit(change_key(data, slice(0, SLICES - 1), "patient_id", name))) == {}

    @pytest.mark.parametrize(("studies", "stops"), [(3, False), (6, True)])
    def test_an_id_of_implausibly_many_studies(self, data: Data, studies: int, stops: bool) -> None:
        found = audit(change_key(data, slice(0, studies * SLICES - 1), "patient_id", "P7"))
        assert counts(found) == ({"patient_id_shared": 1} if stops else {})

    def test_ids_that_are_nearly_alike(self, data: Data) -> None:
        doubtful = change_key(data, slice(0, SLICES - 1), "patient_id", "mrn-007")
        doubtful = change_key(doubtful, slice(SLICES, 2 * SLICES - 1), "patient_id", "MRN 7")
        assert counts(audit(doubtful), "FLAG")["patient_ids_alike"] == 1


class TestScans:
    @pytest.mark.parametrize(
        ("fact", "value", "code"),
        [
            ("slices", 4, "unusual_slices"),
            ("slice_mm", 12.5, "unusual_spacing"),
            ("thickness_mm", 10.0, "unusual_thickness"),
            ("pixel_mm", 2.0, "unusual_pixels"),
            ("hu_p1", 0.0, "unusual_hu"),  # the intercept was lost
            ("hu_p99", 40.0, "unusual_hu"),
        ],
    )
    def test_what_is_far_from_head_ct_is_flagged(self, data: Data, fact: str, value: float, code: str) -> None:
        found = audit(change_facts(data, 3, **{fact: value}))
        assert counts(found, "FLAG") == {code: 1, "label_absent": 4}
        assert sum(found.summary["histograms"][fact]["unusual"]) == 1

    def test_what_is_unknown_is_not_unusual(self, data: Data) -> None:
        found = audit(change_facts(data, 3, thickness_mm=np.nan))
        assert counts(found, "FLAG") == {"label_absent": 4}
        assert found.summary["histograms"]["thickness_mm"]["unknown"] == 1

    def test_refused_series_are_counted_once(self, data: Data) -> None:
        write_ledger(data[0].folder, *[("7.7", "refused", "no_usable_slice")] * 3, ("7.8", "refused", "mixed_matrix"))
        assert counts(audit(data), "FLAG")["scan_refused"] == 2

    def test_scans_of_which_nothing_is_known_do_not_vanish(self, data: Data) -> None:
        folder, table = data
        rows = table.rows.copy()
        rows.loc[: SLICES - 1, list(LABELS)] = np.nan
        emptied = folder, replace(table, rows=rows)
        found = audit(emptied)
        assert counts(found, "FLAG")["scan_unknown"] == 1
        (finding,) = (finding for finding in found.findings if finding.code == "scan_unknown")
        assert finding.examples == (f"{0:016x}",)
        assert finding.rows["patient_id"].tolist() == ["CANARYA"]

    def test_several_scans_of_a_study(self, data: Data) -> None:
        of_one = change_key(data, data[0].key["cache"] == "1.b2nd", "study_uid", "1.2.0")
        assert counts(audit(of_one), "FLAG")["several_series"] == 1


class TestStop:
    def test_names_the_first_ten_and_counts_all(self, data: Data) -> None:
        found = audit(change_key(data, slice(0, 12 * SLICES - 1), "patient_id", "ANON"))
        with pytest.raises(AuditError) as caught:
            found.stop()
        assert caught.value.code == "patient_id_anonymous"
        assert f"{9:016x}" in str(caught.value)
        assert f"{10:016x}" not in str(caught.value)
        assert "12 scans" in str(caught.value)
        assert "and 2 more" in str(caught.value)
        assert "ANON)" not in str(caught.value)


class TestWrite:
    def test_ids_are_raw_in_private_only(self, data: Data, tmp_path: Path) -> None:
        doubtful = change_key(data, data[0].key["cache"] == "23.b2nd", "patient_id", "CANARYA")
        page = audit(doubtful).write(tmp_path / "run")
        shareable = page.read_text() + (tmp_path / "run/audit.json").read_text()
        assert "CANARY" not in shareable
        assert "1.2.2" not in json.dumps(json.loads((tmp_path / "run/audit.json").read_text())["findings"])
        rows = pd.read_csv(tmp_path / "run/private/audit_rows.csv")
        assert rows.query("code == 'patient_in_two_parts'")["patient_id"].tolist() == ["CANARYA"] * 2

    def test_a_split_has_an_id_that_only_the_key_explains(self, data: Data, project_key) -> None:
        scans = label_scans(*data)
        split = SplitFile.make(tabulate_patients(scans), Split(fractions=(1, 1, 1)))
        found = audit(data, dict(split.divide(scans)), split=split, key=project_key)
        assert found.summary["split"]["id"] == project_key.hash_id(split.digest)


def overlap(scans: list[LabelledScan], random: np.random.Generator) -> None:
    """A scan of one part becomes that of a patient of another."""
    one, other = random.integers(0, 16), random.integers(16, SCANS)
    scans[other] = scans[other]._replace(patient_id=scans[one].patient_id)


def duplicate(scans: list[LabelledScan], random: np.random.Generator) -> None:
    """One or more slices of a scan stand in another part under new UIDs."""
    one, other = random.integers(0, 16), random.integers(16, SCANS)
    hashes = np.array(scans[other].slice_hashes, dtype=object)
    count = random.integers(1, SLICES)  # of the slices that are not constant
    hashes[1 + random.permutation(SLICES - 1)[:count]] = random.permutation(scans[one].slice_hashes[1:])[:count]
    scans[other] = scans[other]._replace(slice_hashes=tuple(map(str, hashes)))


@pytest.mark.parametrize("times", [25, pytest.param(100, marks=pytest.mark.slow)], ids="{}-times".format)
class TestEveryOne:
    @pytest.mark.parametrize(
        ("inject", "check", "code"),
        [
            (overlap, find_patients_in_two_subsets, "patient_in_two_parts"),
            (duplicate, find_same_pixels, "pixels_in_two_parts"),
        ],
    )
    def test_leaks_are_caught(self, data: Data, inject: Callable, check: Callable, code: str, times: int) -> None:
        random = np.random.default_rng(7)
        known = label_scans(*data)
        for _ in range(times):
            scans = list(known)
            inject(scans, random)
            found = check(AuditInputs(deal(scans), data[0], locate_labels(data[1], data[0].images)))
            assert [(finding.code, finding.action, finding.count) for finding in found if finding] == [(code, "STOP", 1)]

    @pytest.mark.parametrize("code", ["contradicting_rows", "any_contradicts_types"])
    def test_wrong_labels_are_caught(self, data: Data, tmp_path: Path, code: str, times: int) -> None:
        table = data[1].rows[["name", *LABELS]].rename(columns={"name": "sop_uid"}).astype(dict.fromkeys(LABELS, int))
        random = np.random.default_rng(7)
        for _ in range(times):
            wrong = table.copy()
            row = random.integers(len(table))
            if code == "any_contradicts_types":
                wrong.loc[row, random.choice(LABELS[:-1])], wrong.loc[row, "any"] = 1, 0
            else:
                label = random.choice(LABELS[:-1])
                other = wrong.loc[row].copy()
                other[[label, "any"]] = (1, 1) if not other[label] else (0, 0)
                wrong = pd.concat([wrong, other.to_frame().T]).sample(frac=1, random_state=int(random.integers(1000)))
            wrong.to_csv(tmp_path / "labels.csv", index=False)
            with pytest.raises(TableError) as caught:
                read_label_table(tmp_path / "labels.csv")
            assert caught.value.code == code
