"""Run in a process of its own: the package with a sixth type, which was added to the table of labels and nowhere else."""

import csv
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

TABLE = Path(__file__).parents[1] / "ich_lstm/labels.py"
END_OF_TYPES = "\n)\n\nLABEL_SET"
CONTUSION = """
    Label(
        name="contusion",
        title="Contusion",
        short="CON",
        color="#e69f00",
        heat_color="#e69f00",
        dashes=(1, 1),
        heat_dashes=(1, 1),
        finding=("contusion", PRIVATE_SCHEME, "Hemorrhagic contusion"),
        site=("12738006", "SCT", "Brain"),
    ),"""


def add_type() -> None:
    """Load the table of labels with a further type; every module that is imported later takes its labels from there."""
    source = TABLE.read_text(encoding="utf-8")
    assert source.count(END_OF_TYPES) == 1
    module = ModuleType("ich_lstm.labels")
    sys.modules[module.__name__] = module
    exec(compile(source.replace(END_OF_TYPES, CONTUSION + END_OF_TYPES), str(TABLE), "exec"), module.__dict__)


def write(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def check_tables(folder: Path) -> None:
    """Data sets without the type leave it unknown, unless they say that there is no hemorrhage at all."""
    from ich_lstm.data.labels.cq500 import COLUMNS, READERS
    from ich_lstm.data.labels.table import read_label_table
    from ich_lstm.evaluation.comparisons.reader_labels import read_marks
    from ich_lstm.labels import LABELS

    def read(path: Path) -> list[list[float]]:
        return read_label_table(path).rows[list(LABELS)].to_numpy().tolist()

    old = [label for label in LABELS if label != "contusion"]
    images: dict[str, tuple[str, ...]] = {"a": (), "b": ("subdural", "any")}
    rsna = [["ID", "Label"]]
    rsna += [[f"ID_{name}_{label}", str(int(label in there))] for name, there in images.items() for label in old]
    present = [0, 0, 0, 0, 1, np.nan, 1]
    np.testing.assert_array_equal(read(write(folder / "rsna.csv", rsna)), [[0] * 7, present])
    told = [*rsna, ["ID_a_contusion", "0"], ["ID_b_contusion", "1"]]
    np.testing.assert_array_equal(read(write(folder / "told.csv", told)), [[0] * 7, [0, 0, 0, 0, 1, 1, 1]])

    ct_ich = [["PatientNumber", "SliceNumber", "Subdural", "Epidural", "Subarachnoid", "Intraventricular", "Intraparenchymal"]]
    ct_ich = [[*ct_ich[0], "No_Hemorrhage"], ["49", "1", *"00000", "1"], ["49", "2", *"10000", "0"]]
    np.testing.assert_array_equal(read(write(folder / "ct_ich.csv", ct_ich)), [[0] * 7, present])

    seen = {f"{reader}:{finding}" for reader in READERS for finding in ("ICH", "SDH")}
    cq500 = [list(COLUMNS), ["CQ500-CT-1", "B1", *"0" * 42]]
    cq500.append(["CQ500-CT-2", "B1", *(str(int(column in seen)) for column in COLUMNS[2:])])
    path = write(folder / "reads.csv", cq500)
    np.testing.assert_array_equal(read(path), [[0] * 7, present])
    marks = read_marks(path)[["name", *LABELS]]
    assert marks[marks["name"] == "CQ500CT2 CQ500CT2"].iloc[:, 1:].to_numpy().tolist()[0][4] == 1
    assert marks["contusion"].isna().all()

    bhx = [["SOPInstanceUID", "labelName"], ["1.2", "Subdural"]]
    np.testing.assert_array_equal(read(write(folder / "bhx.csv", bhx)), [[np.nan] * 4 + [1, np.nan, 1]])

    own = [["sop_uid", "contusion"], ["1.2", "1"], ["1.3", "0"]]
    np.testing.assert_array_equal(read(write(folder / "own.csv", own)), [[np.nan] * 5 + [1, 1], [np.nan] * 5 + [0, np.nan]])


def check_corrections() -> None:
    from ich_lstm.data.labels.corrections import Correction, correct_labels

    away = Correction(np.array([[np.nan] * 5 + [0, np.nan]]), np.zeros((1, 7), bool))
    np.testing.assert_array_equal(correct_labels(np.array([[0, 0, 0, 0, 0, 1, 1.0]]), away), [[0] * 7])


def check_model() -> None:
    """A model has an output for the type, and its name is where people read."""
    from dataclasses import replace

    from fabricated import make_classifier, make_scan

    from ich_lstm.labels import LABELS
    from ich_lstm.pages.scan_page import prediction_page
    from ich_lstm.privacy import ProjectKey

    scan = make_scan(np.random.default_rng(0).integers(-100, 100, (3, 32, 32)).astype(np.int16))
    prediction = make_classifier().predict_scan(scan, ProjectKey(b"0" * 32))
    assert prediction.slice_probabilities.shape == (3, 7)
    assert list(prediction.scan_frame().filter(items=LABELS)) == list(LABELS)
    scan_probabilities = np.where(np.isin(LABELS, ["contusion", "any"]), 0.9, 0.1)
    found = replace(prediction, scan_probabilities=scan_probabilities)
    assert found.positive_labels == ("contusion", "any")
    assert "Contusion" in prediction_page(found)


def check_released(folder: Path) -> None:
    """Weights that others trained for six labels are no model of seven."""
    import torch

    from ich_lstm.errors import CheckpointError
    from ich_lstm.models.released.weights import read_released

    torch.save({"state_dict": {"decoder.recurrent.weight_ih_l0": torch.zeros(1)}}, folder / "nguyen.pth")
    with pytest.raises(CheckpointError, match="contusion") as refused:
        read_released(folder / "nguyen.pth")
    assert refused.value.code == "other_labels"


if __name__ == "__main__":
    add_type()
    check_tables(Path(sys.argv[1]))
    check_corrections()
    check_model()
    check_released(Path(sys.argv[1]))
    sys.stdout.write("a sixth type\n")
