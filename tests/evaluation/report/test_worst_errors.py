"""The worst errors, against a plain loop."""

from pathlib import Path

import numpy as np
import pytest
from prediction_files import make_tables, write_run

from ich_lstm import LABELS
from ich_lstm.evaluation.aggregate import cases_at
from ich_lstm.evaluation.evidence import Evidence, read_run
from ich_lstm.evaluation.report.worst_errors import FALSE_ALARM, MISSED, worst_errors


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    tables = make_tables(30)
    tables["scans"].loc[::7, "label_subdural"] = np.nan
    return read_run(write_run(Path(tmp_path_factory.mktemp("run")), tables))


@pytest.mark.parametrize(("error", "truth"), [(MISSED, 1), (FALSE_ALARM, 0)])
def test_they_are_the_furthest_on_the_wrong_side(evidence: Evidence, error: str, truth: int) -> None:
    table = worst_errors(cases_at(evidence, "scan"), evidence, thresholds=0.3, most=4)
    for label in LABELS:
        scans = evidence.scans[evidence.scans[f"label_{label}"] == truth]
        wrong = scans[scans[label] < 0.3] if truth else scans[scans[label] >= 0.3]
        found = table.query("label == @label and error == @error")
        assert found["case"].tolist() == wrong.sort_values(label, ascending=bool(truth))["scan_id"].tolist()[:4]
        if len(found):
            assert found["errors"].unique().tolist() == [len(wrong)]
            assert found["cases"].unique().tolist() == [len(scans)]


def test_slices_have_their_number(evidence: Evidence) -> None:
    table = worst_errors(cases_at(evidence, "slice"), evidence)
    row = table.iloc[0]
    slices = evidence.slices.set_index(["scan_id", "slice"])
    assert slices.loc[(row["case"], row["slice"]), row["label"]] == row["probability"]


def test_patients_go_by_their_own_ids(evidence: Evidence) -> None:
    table = worst_errors(cases_at(evidence, "patient"), evidence)
    assert set(table["case"]) <= set(evidence.scans["patient_id"])


def test_each_label_has_its_own_operating_point(evidence: Evidence) -> None:
    points = np.linspace(0.1, 0.6, len(LABELS))
    table = worst_errors(cases_at(evidence, "scan"), evidence, thresholds=points)
    assert table.groupby("label")["threshold"].first().to_dict() == dict(zip(LABELS, points, strict=True))
    missed = table[table["error"] == MISSED]
    assert (missed["probability"] < missed["threshold"]).all()


def test_no_error_is_an_empty_table(evidence: Evidence) -> None:
    perfect = cases_at(evidence, "scan")
    perfect = perfect._replace(probabilities=np.nan_to_num(perfect.labels))
    assert worst_errors(perfect, evidence).empty
