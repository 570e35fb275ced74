"""A table that a hospital's spreadsheet has saved trains, and it is said what was assumed."""

import json
from pathlib import Path

import pandas as pd
import pydicom
import pytest

from ich_lstm.cli import prepare, train
from ich_lstm.labels import HEMORRHAGE_TYPES, LABELS
from ich_lstm.phantom import PhantomSettings, write_phantom

SETTINGS = PhantomSettings(patients=8, slices=8, size=64, prevalence=0.6)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight synthetic heads; not to be written into."""
    return write_phantom(SETTINGS, tmp_path_factory.mktemp("heads"), workers=1)


def german_table(heads: Path) -> bytes:
    """Its labels as a German Excel saves them: a row per slice, and one below that adds up a column."""
    labels = pd.read_csv(heads / "stage_2_train.csv")
    labels[["image", "label"]] = labels["ID"].str.rsplit("_", n=1, expand=True)
    of_image = labels.pivot_table(index="image", columns="label", values="Label")[list(LABELS)].astype(int)
    patients = sorted({pydicom.dcmread(path).PatientID for path in (heads / "stage_2_train").iterdir()})
    days = dict(zip(patients, range(8, 16), strict=True))  # two of them settle that days come first
    lines = ["sep=;", ";".join(["File", "Study Date", "ANY", *map(str.capitalize, HEMORRHAGE_TYPES), "Größe (mm)", ""])]
    for name, row in of_image.iterrows():
        day = days[pydicom.dcmread(heads / "stage_2_train" / f"{name}.dcm", stop_before_pixels=True).PatientID]
        words = ["WAHR" if row[label] else "FALSCH" for label in HEMORRHAGE_TYPES]
        path = f"D:\\Export\\stage_2_train\\{name}.DCM"
        lines.append(";".join([path, f"{day:02}.04.2021", f"{row['any']},0", *words, '"3,5"', ""]))
    lines += [f"Summe;;{of_image['any'].sum()};;;;;;;", ";;;;;;;;;", ""]
    return "\r\n".join(lines).encode("cp1252")


def test_a_table_saved_by_a_german_excel_trains(heads: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "befunde.csv").write_bytes(german_table(heads))
    out = tmp_path / "run"
    data = {"root": heads, "labels": tmp_path / "befunde.csv", "split.by": "date", "preprocessing.size": 32, "batches.slices": 24}
    data |= {"num_workers": 0, "cache_dir": tmp_path / "cache"}
    model = [
        "--model.encoder.backbone=test_resnet",
        "--model.encoder.pretrained=false",
        "--model.encoder.global_pool=null",
        "--model.head.hidden_size=8",
    ]
    arguments = [f"--data.{name}={value}" for name, value in data.items()]
    assert train.main([*arguments, *model, "--trainer.max_epochs=1", f"--out={out}"]) == 0
    audit = json.loads((out / "audit.json").read_text())
    assert audit["stops"] == 0
    (note,) = [found for found in audit["findings"] if found["code"] == "table_note"]
    (example,) = note["examples"]
    for assumed in (
        "semicolons between cells, as the first line says",
        "text in Windows-1252",
        "columns File as file, Study Date as study_date, ANY as any",
        "the label WAHR as 1",
        "commas in numbers as decimal points",
        "dates as day, month, year",
        "excluded, which contains totals",
    ):
        assert assumed in example
    assert caplog.text.count("read as saved by a spreadsheet") == 1
    # The labels are those of the table that the heads came with, whatever the detour.
    mine = pd.read_csv(out / "predictions/slices.csv")
    truth = pd.read_csv(heads / "stage_2_train.csv")
    assert mine["label_any"].sum() <= truth[truth["ID"].str.endswith("_any")]["Label"].sum()
    assert mine["label_any"].notna().all()


def test_ich_prepare_reads_it_like_the_original_and_says_so_once(
    heads: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "befunde.csv").write_bytes(german_table(heads))
    prepared = tmp_path / "prepared"
    assert (
        prepare.main([str(heads), "--labels", str(tmp_path / "befunde.csv"), "--out", str(prepared), "--size=32", "--workers=1"])
        == 0
    )
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("read as saved by a spreadsheet") == 1
    counts = []
    for table in (tmp_path / "befunde.csv", heads / "stage_2_train.csv"):
        out = tmp_path / table.stem
        assert prepare.main([str(prepared), "--check", "--labels", str(table), "--out", str(out)]) == 0
        counts.append(json.loads((out / "audit.json").read_text())["parts"])
    assert counts[0] == counts[1]


def test_a_workbook_in_place_of_a_table_is_named(heads: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "befunde.xlsx").write_bytes(b"PK\x03\x04" + bytes(100))
    assert prepare.main([str(heads), "--labels", str(tmp_path / "befunde.xlsx"), "--out", str(tmp_path / "out")]) == 1
    assert "save it as CSV" in capsys.readouterr().err
