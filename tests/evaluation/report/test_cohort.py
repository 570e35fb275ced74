"""The way of the data, and who was judged."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from prediction_files import make_tables, write_run
from report_files import LEFT_OUT, UNLABELLED, write_study

from ich_lstm import LABELS
from ich_lstm.evaluation.evidence import read_run
from ich_lstm.evaluation.report.cohort import FlowStep, characteristics, data_flow, positive_counts
from ich_lstm.evaluation.run_facts import StudyFacts, read_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


def assert_adds_up(flow: list[FlowStep]) -> None:
    """Who is in a box and not in the next stands beside it, with a reason."""
    for step, then in pairwise(flow):
        for unit in step.counts.keys() & then.counts.keys():
            lost = sum(counts.get(unit, 0) for _, counts in step.excluded)
            assert step.counts[unit] - lost == then.counts[unit], (step, then)


def test_the_flow_of_a_run_adds_up_from_the_files_to_the_analysis(study: Path) -> None:
    evidence, facts = read_run(study), read_study(study)
    flow = data_flow(evidence, facts)
    assert_adds_up(flow)
    assert flow[0].counts["files"] - sum(LEFT_OUT.values()) == flow[1].counts["slices"]
    assert flow[1].excluded == [("without a label", UNLABELLED)]
    assert flow[-1].counts == {name: evidence.source["counts"][name] for name in ("patients", "scans", "slices")}


def test_without_facts_the_flow_is_shorter(tmp_path: Path) -> None:
    tables = make_tables()
    other = {name: table.assign(split="validation", scan_id="v" + table["scan_id"]) for name, table in tables.items()}
    both = {name: pd.concat([table, other[name]]) for name, table in tables.items()}
    flow = data_flow(read_run(write_run(tmp_path, both)), StudyFacts())
    assert_adds_up(flow)
    assert flow[0].excluded[0][1] == {"scans": len(tables["scans"])}


def test_the_flow_of_predictions_names_every_refusal(tmp_path: Path) -> None:
    evidence = read_run(write_run(tmp_path))
    counts = {**evidence.source["counts"], "scans_refused": {"truncated_pixels": 3, "not_head": 1}}
    counts["scans_without_labels_not_judged"] = 2
    evidence = replace(evidence, source={**evidence.source, "kind": "predictions", "counts": counts})
    flow = data_flow(evidence, StudyFacts(files={"used": 70, "bone kernel": 4}))
    assert_adds_up(flow)
    assert [step.counts.get("scans") for step in flow[2:]] == [
        len(evidence.scans) + 6,
        len(evidence.scans) + 2,
        len(evidence.scans),
    ]
    assert flow[0].excluded == [("bone kernel", {"files": 4})]


def test_positive_patients_scans_and_slices_are_counted(study: Path) -> None:
    evidence = read_run(study)
    table = positive_counts(evidence, read_study(study)).set_index(["part", "label"])
    scans = pd.read_csv(study / "predictions" / "scans.csv")
    slices = pd.read_csv(study / "predictions" / "slices.csv")
    for label in LABELS:
        positive = scans[scans[f"label_{label}"] == 1]
        expected = [positive["patient_id"].nunique(), len(positive), slices[f"label_{label}"].sum()]
        assert table.loc[("judged", label), ["patients", "scans", "slices"]].tolist() == expected
    assert set(table.index.get_level_values("part")) == {"judged", "train", "validation"}


def test_scans_are_described_by_quartiles_or_counts(study: Path) -> None:
    evidence = read_run(study)
    scans = evidence.scans.assign(category=["B1", "B2"] * (len(evidence.scans) // 2), flags="tilt")
    table = characteristics(replace(evidence, scans=scans)).set_index(["characteristic", "value"])
    assert table.loc[("slices per scan", ""), "median"] == 5
    assert table.loc[("distance of slices (mm)", ""), ["low", "median", "high"]].tolist() == [5, 5, 5]
    assert table.loc[("category", "B1"), "count"] == len(scans) / 2
    assert "flags" not in table.index.get_level_values(0)
