"""Rows 72 to 80 of the catalogue of bad inputs: what must stop, stops ich-train and ich-prepare before anything is trained."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pydicom
import pytest

from ich_lstm.cli import prepare, train
from ich_lstm.labels import LABELS
from ich_lstm.phantom import PhantomSettings, write_phantom

SETTINGS = PhantomSettings(patients=4, slices=8, size=64, seed=3, prevalence=0.5)


class Outcome(NamedTuple):
    """What a command did: its exit code, its error message, and its audit if it came so far."""

    code: int
    message: str
    audit: dict[str, Any] | None

    def count(self, code: str, action: str = "FLAG") -> int:
        assert self.audit is not None, self.message
        return sum(found["count"] for found in self.audit["findings"] if (found["code"], found["action"]) == (code, action))


Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four synthetic heads; not to be written into."""
    return write_phantom(SETTINGS, tmp_path_factory.mktemp("heads"), workers=1)


@pytest.fixture(params=["ich-train", "ich-prepare"])
def run(request: pytest.FixtureRequest, heads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one of the two commands on labels, and on images if other ones than `heads`."""

    def _run(labels: str | bytes | None, root: Path = heads, **options: Any) -> Outcome:
        out = tmp_path / "out"
        table = root / "stage_2_train.csv" if labels is None else tmp_path / "labels.csv"
        if labels is not None:
            table.write_bytes(labels.encode() if isinstance(labels, str) else labels)
        if request.param == "ich-train":
            data = {
                "root": root,
                "labels": table,
                "cache_dir": tmp_path / "cache",
                "preprocessing.size": 32,
                "num_workers": 0,
                **options,
            }
            # No such network: a run that comes as far as its model ends there.
            arguments = [f"--data.{key}={value}" for key, value in data.items()] + [
                "--model.encoder.backbone=none_such",
                f"--out={out}",
            ]
            code = train.main(arguments)
        else:
            words = {f"--{key.replace('_', '-').replace('.', '-')}": value for key, value in options.items()}
            flags = [word for key, value in words.items() for word in ([key] if value is True else [key, str(value)])]
            code = prepare.main([str(root), "--labels", str(table), "--out", str(out), "--size=32", "--workers=1", *flags])
        audit = out / "audit.json"
        return Outcome(code, capsys.readouterr().err, json.loads(audit.read_text()) if audit.is_file() else None)

    return _run


def assert_stops(outcome: Outcome, code: str, count: int | None = None) -> None:
    assert outcome.code == 1
    assert f"[{code}]" in outcome.message
    if count is not None:
        assert f"{count} " in outcome.message
    if count is not None and count > 10:
        assert f"and {count - 10} more" in outcome.message


def assert_goes_on(outcome: Outcome) -> None:
    """Past the audit: ich-prepare is done, and ich-train has come as far as the network that does not exist."""
    assert outcome.audit is not None, outcome.message
    assert outcome.audit["stops"] == 0
    assert outcome.code == 0 or "none_such" in outcome.message


def rsna_rows(heads: Path) -> list[str]:
    """The table's rows without its header, six for each image."""
    return (heads / "stage_2_train.csv").read_text().splitlines()[1:]


def table_of(rows: Sequence[str]) -> str:
    return "ID,Label\n" + "\n".join(rows) + "\n"


def flipped(row: str) -> str:
    return row[:-1] + ("1" if row[-1] == "0" else "0")


def copy_heads(heads: Path, to: Path, change: Callable[[int, pydicom.Dataset], None]) -> Path:
    """The same heads with changed headers; ``change`` gets the number of the patient and the slice."""
    patients: dict[str, int] = {}
    (to / "stage_2_train").mkdir(parents=True)
    for path in sorted((heads / "stage_2_train").iterdir()):
        dataset = pydicom.dcmread(path)
        change(patients.setdefault(str(dataset.PatientID), len(patients)), dataset)
        dataset.save_as(to / "stage_2_train" / path.name)
    (to / "stage_2_train.csv").write_bytes((heads / "stage_2_train.csv").read_bytes())
    return to


class TestRow72:
    @pytest.mark.parametrize(("text", "code"), [("", "empty_table"), ("ID,Label\n", "no_rows")])
    def test_empty_tables_stop(self, run: Run, text: str, code: str) -> None:
        assert_stops(run(text), code)

    def test_no_header_stops(self, run: Run, heads: Path) -> None:
        assert_stops(run("\n".join(rsna_rows(heads))), "missing_columns")

    def test_a_byte_order_mark_is_read(self, run: Run, heads: Path) -> None:
        assert_goes_on(run(b"\xef\xbb\xbf" + table_of(rsna_rows(heads)).encode()))


class TestRow73:
    def test_equal_duplicates_are_dropped_and_counted(self, run: Run, heads: Path) -> None:
        rows = rsna_rows(heads)
        outcome = run(table_of([*rows, *rows[:12]]))
        assert_goes_on(outcome)
        assert outcome.count("table_note") == 1

    def test_contradicting_ones_stop(self, run: Run, heads: Path) -> None:
        rows = rsna_rows(heads)
        assert_stops(run(table_of([*rows, *map(flipped, rows[:90])])), "contradicting_rows")


class TestRow74:
    def test_labels_without_image_stop(self, run: Run, heads: Path) -> None:
        more = [f"ID_{i:09x}_{label},0" for i in range(12) for label in LABELS]
        assert_stops(run(table_of([*rsna_rows(heads), *more])), "labels_without_image", 12)

    def test_labels_without_image_may_be_allowed(self, run: Run, heads: Path) -> None:
        more = [f"ID_{0:09x}_{label},0" for label in LABELS]
        outcome = run(table_of([*rsna_rows(heads), *more]), unmatched="labels")
        assert_goes_on(outcome)
        assert outcome.count("labels_without_image") == 1

    @pytest.mark.parametrize("images", [2, 12])  # in one scan; and in more, of which some have no label at all
    def test_images_without_label_stop(self, run: Run, heads: Path, images: int) -> None:
        outcome = run(table_of(rsna_rows(heads)[6 * images :]))
        assert_stops(outcome, "images_without_label")
        assert f"{images} images" in outcome.message
        assert outcome.count("images_without_label", "STOP") == images

    def test_images_without_label_may_be_allowed(self, run: Run, heads: Path) -> None:
        outcome = run(table_of(rsna_rows(heads)[6 * 2 :]), unmatched="images")
        assert_goes_on(outcome)
        assert outcome.count("images_without_label") == 2


class TestRow75:
    def test_a_type_without_any_stops(self, run: Run, heads: Path) -> None:
        rows = [row[:-1] + ("1" if "_epidural" in row else "0") for row in rsna_rows(heads)]
        assert_stops(run(table_of(rows)), "any_contradicts_types", SETTINGS.patients * SETTINGS.slices)

    def test_any_may_be_repaired(self, run: Run, heads: Path) -> None:
        rows = [row[:-1] + ("1" if "_epidural" in row else "0") for row in rsna_rows(heads)]
        outcome = run(table_of(rows), repair_any=True)
        assert_goes_on(outcome)
        assert outcome.count("table_note") == 1

    def test_any_without_a_type_is_flagged(self, run: Run, heads: Path) -> None:
        rows = [row[:-1] + ("1" if "_any" in row else "0") for row in rsna_rows(heads)]
        outcome = run(table_of(rows))
        assert_goes_on(outcome)
        assert outcome.count("any_without_type") == SETTINGS.patients


class TestRow76:
    @pytest.mark.parametrize("label", ["2", "maybe", pytest.param("-1", marks=pytest.mark.slow)])
    def test_other_labels_stop(self, run: Run, heads: Path, label: str) -> None:
        names = sorted({row.rpartition("_")[0] for row in rsna_rows(heads)})
        rows = "".join(f"{name},{label if i < 12 else 0}\n" for i, name in enumerate(names))
        assert_stops(run("sop_uid,any\n" + rows), "bad_label", 12)


class TestRow77:
    def test_a_patient_in_two_parts_stops(self, run: Run, heads: Path, tmp_path: Path) -> None:
        patients = sorted({pydicom.dcmread(path).PatientID for path in (heads / "stage_2_train").iterdir()})
        rows = [f"{patient},{part}" for patient in patients for part in ("train", "validation", "test")]
        (tmp_path / "split.csv").write_text("patient_id,part\n" + "\n".join(rows) + "\n")
        assert_stops(run(None, **{"split.file": tmp_path / "split.csv"}), "patient_in_two_parts", 12)


class TestRow78:
    def split(self, heads: Path, path: Path, parts: Sequence[str]) -> Path:
        """The patients of `copies` in the parts given."""
        pd.DataFrame({"patient_id": [f"P{i}" for i in range(4)], "part": parts}).to_csv(path, index=False)
        return path

    @pytest.fixture
    def copies(self, heads: Path, tmp_path: Path) -> Path:
        """The last head has the pixels of the first."""

        def change(patient: int, dataset: pydicom.Dataset) -> None:
            dataset.PatientID = f"P{patient}"

        root = copy_heads(heads, tmp_path / "copies", change)
        files = pd.DataFrame(
            [
                (str(data.PatientID), float(data.ImagePositionPatient[2]), path)
                for path in (root / "stage_2_train").iterdir()
                if (data := pydicom.dcmread(path))
            ]
        ).sort_values([0, 1])
        for source, target in zip(files[2][files[0] == "P0"], files[2][files[0] == "P3"], strict=True):
            dataset, first = pydicom.dcmread(target), pydicom.dcmread(source)
            dataset.PixelData, dataset.RescaleIntercept, dataset.PixelRepresentation = (
                first.PixelData,
                first.RescaleIntercept,
                first.PixelRepresentation,
            )
            dataset.save_as(target)
        return root

    def test_the_same_pixels_stop_across_parts(self, run: Run, copies: Path, heads: Path, tmp_path: Path) -> None:
        file = self.split(heads, tmp_path / "split.csv", ("train", "train", "validation", "test"))
        assert_stops(run(None, copies, **{"split.file": file}), "pixels_in_two_parts", 1)

    def test_the_same_pixels_are_flagged_within(self, run: Run, copies: Path, heads: Path, tmp_path: Path) -> None:
        outcome = run(
            None, copies, **{"split.file": self.split(heads, tmp_path / "split.csv", ("train", "validation", "test", "train"))}
        )
        assert_goes_on(outcome)
        assert outcome.count("same_pixels") == 1


class TestRow79:
    @pytest.mark.parametrize(
        ("name", "code", "count"),
        [("", "unknown_patients", None), ("ANONYMOUS", "patient_id_anonymous", 4), ("0", "patient_id_anonymous", 4)],
    )
    def test_ids_that_name_nobody_stop(
        self, run: Run, heads: Path, tmp_path: Path, name: str, code: str, count: int | None
    ) -> None:
        root = copy_heads(heads, tmp_path / "anonymous", lambda patient, dataset: setattr(dataset, "PatientID", name))
        assert_stops(run(None, root), code, count)

    def test_they_may_be_told_apart_by_study(self, run: Run, heads: Path, tmp_path: Path) -> None:
        root = copy_heads(heads, tmp_path / "anonymous", lambda patient, dataset: setattr(dataset, "PatientID", ""))
        assert_goes_on(run(None, root, patient_ids="study"))

    def test_the_table_may_tell_them_apart(self, run: Run, heads: Path, tmp_path: Path) -> None:
        root = copy_heads(heads, tmp_path / "anonymous", lambda patient, dataset: setattr(dataset, "PatientID", "ANON"))
        # The raw value: RSNA's ids are no valid UIDs.
        studies = {pydicom.dcmread(path).get_item("StudyInstanceUID").value for path in (root / "stage_2_train").iterdir()}
        rows = "".join(f"{uid.decode().strip(chr(0))},0,P{i // 2}\n" for i, uid in enumerate(sorted(studies)))
        outcome = run("study_uid,any,patient_id\n" + rows, root, patient_ids="study")
        assert_goes_on(outcome)
        assert outcome.audit is not None
        assert outcome.audit["studies_per_patient"] == {"2": 2}

    def test_they_may_be_trusted(self, run: Run, heads: Path, tmp_path: Path) -> None:
        words = ("ANON", "UNKNOWN", "P1", "P2")
        root = copy_heads(heads, tmp_path / "anonymous", lambda patient, dataset: setattr(dataset, "PatientID", words[patient]))
        outcome = run(None, root, patient_ids="trusted")
        assert_goes_on(outcome)
        assert outcome.count("patient_id_anonymous") == 2


class TestRow80:
    def test_a_scan_without_a_usable_slice_is_refused_and_counted(self, run: Run, heads: Path, tmp_path: Path) -> None:
        def change(patient: int, dataset: pydicom.Dataset) -> None:
            if patient == 0:
                dataset.PixelData = dataset.PixelData[:-1000]

        outcome = run(None, copy_heads(heads, tmp_path / "broken", change))
        assert outcome.audit is not None, outcome.message
        assert outcome.count("scan_refused") == 1
        assert outcome.count("labels_left_out") == SETTINGS.slices
        assert outcome.code == 3 or "none_such" in outcome.message

    def test_a_scan_without_one_of_its_slices_is_not_refused(self, run: Run, heads: Path, tmp_path: Path) -> None:
        root = copy_heads(heads, tmp_path / "cut", lambda patient, dataset: None)
        cut = sorted((root / "stage_2_train").iterdir())[0]
        cut.write_bytes(cut.read_bytes()[:-1000])
        outcome = run(None, root)
        assert outcome.audit is not None, outcome.message
        assert (outcome.count("scan_refused"), outcome.count("labels_left_out")) == (0, 1)

    def test_no_usable_scan_at_all_stops(self, run: Run, heads: Path, tmp_path: Path) -> None:
        root = copy_heads(
            heads, tmp_path / "broken", lambda patient, dataset: setattr(dataset, "PixelData", dataset.PixelData[:-1000])
        )
        assert_stops(run(None, root), "no_scan")


def test_a_training_that_is_stopped_has_its_audit_and_no_model(heads: Path, tmp_path: Path) -> None:
    root = copy_heads(heads, tmp_path / "anonymous", lambda patient, dataset: setattr(dataset, "PatientID", "ANON"))
    data = [
        f"--data.root={root}",
        f"--data.cache_dir={tmp_path / 'cache'}",
        "--data.preprocessing.size=32",
        "--data.num_workers=0",
    ]
    assert train.main([*data, "--model.encoder.pretrained=false", f"--out={tmp_path / 'run'}"]) == 1
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"audit.html", "audit.json", "config.yaml", "private", "progress.json"}
    rows = pd.read_csv(tmp_path / "run/private/audit_rows.csv")
    assert (rows.query("code == 'patient_id_anonymous'")["patient_id"] == "ANON").all()


@pytest.mark.parametrize(
    "option", [["--split-file", "x.csv"], ["--patient-ids", "study"], ["--disagreement", "stop"], ["--unmatched", "both"]]
)
def test_options_of_the_audit_need_labels(option: list[str], heads: Path, tmp_path: Path) -> None:
    assert prepare.main([str(heads), "--out", str(tmp_path / "out"), *option]) == 2
    assert not (tmp_path / "out").exists()


class TestCheck:
    def test_keeps_the_audit_and_the_ledger_alone(self, heads: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert (
            prepare.main([str(heads), "--check", "--labels", str(heads / "stage_2_train.csv"), "--out", str(out), "--workers=1"])
            == 0
        )
        assert {path.relative_to(out).as_posix() for path in out.rglob("*")} == {
            "audit.html",
            "audit.json",
            "private",
            "private/audit_rows.csv",
            "private/ledger.csv",
        }

    def test_stops_with_or_without_a_folder(self, heads: Path, tmp_path: Path) -> None:
        (tmp_path / "labels.csv").write_text(table_of(rsna_rows(heads)[12:]))
        arguments = [str(heads), "--check", "--labels", str(tmp_path / "labels.csv"), "--workers=1"]
        assert prepare.main(arguments) == 1
        assert prepare.main([*arguments, "--unmatched", "images"]) == 0

    @pytest.mark.parametrize("keeps", [False, True])
    def test_one_that_stops_names_no_ledger_that_is_gone(
        self, keeps: bool, heads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        root = copy_heads(
            heads, tmp_path / "broken", lambda patient, dataset: setattr(dataset, "PixelData", dataset.PixelData[:-1000])
        )
        arguments = [str(root), "--check", "--labels", str(root / "stage_2_train.csv"), "--workers=1"]
        assert prepare.main(arguments + keeps * ["--out", str(tmp_path / "out")]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "no_scan" in said
        assert ".check-" not in said
        kept = tmp_path / "out" / "private" / "ledger.csv"
        assert kept.exists() == keeps
        if keeps:
            assert "ledger.csv has the reason for each file" in said
            assert set(pd.read_csv(kept)["action"]) >= {"refused"}
        else:
            assert "--out to keep the ledger" in said

    def test_a_prepared_folder_is_not_read_again(self, heads: Path, tmp_path: Path) -> None:
        labels = ["--labels", str(heads / "stage_2_train.csv")]
        assert prepare.main([str(heads), *labels, "--out", str(tmp_path / "prepared"), "--size=32", "--workers=1"]) == 0
        assert prepare.main([str(tmp_path / "prepared"), "--check", *labels, "--out", str(tmp_path / "out")]) == 0
        assert (tmp_path / "out/audit.html").is_file()
