"""What is written of comparisons, strata and readers: all of it, with the words that belong to it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ich_lstm.evaluation.comparisons.compare import compare_encoder
from ich_lstm.evaluation.comparisons.readers import ReaderMarks, evaluate_readers
from ich_lstm.evaluation.comparisons.strata import evaluate_strata, find_strata
from ich_lstm.evaluation.evidence import LABEL_PREFIX, Evidence, columns_of
from ich_lstm.evaluation.report.comparison_tables import write_comparisons, write_readers, write_strata
from ich_lstm.labels import LABELS
from ich_lstm.statistics import FigureSettings

FEW = FigureSettings(replicates=100)


def test_comparisons(make_evidence: Callable[..., Evidence], tmp_path: Path) -> None:
    table = compare_encoder(make_evidence(encoder=True), level="slice", settings=FEW)
    ((title, cells, _),) = write_comparisons(tmp_path, table)
    assert "432 cases of 36 patients" in title
    row = cells.loc["any"].set_index("figure").loc["auroc"]
    first, test = table.query("label == 'any' and metric == 'auroc'").to_dict("records")
    assert row["first"] == f"{first['first']:.3f}"
    assert row["difference"] == f"{first['difference']:+.3f} ({first['low']:+.3f} to {first['high']:+.3f})"
    assert "Obuchowski" in row["p of the test"]
    assert test["method"] == "Obuchowski"
    assert len(pd.read_csv(tmp_path / "comparisons.csv")) == len(table)
    assert title in (tmp_path / "comparisons.md").read_text()


def test_strata(make_evidence: Callable[..., Evidence], tmp_path: Path) -> None:
    evidence = make_evidence()
    ((_, cells, _),) = write_strata(tmp_path, evaluate_strata(evidence, find_strata(evidence), settings=FEW))
    assert cells.loc["types of hemorrhage", "stratum"].tolist() == ["one", "several"]
    assert cells["patients +"].max() == 18
    assert "fewer than 30 patients" in (tmp_path / "strata.md").read_text()


def test_readers(make_evidence: Callable[..., Evidence], tmp_path: Path) -> None:
    evidence = make_evidence()
    truth = columns_of(evidence.scans, LABEL_PREFIX)
    marks = ReaderMarks(("a", "b"), np.stack([truth, truth]), ("something was left out",))
    *tables, kappas = write_readers(tmp_path, evaluate_readers(marks, evidence, settings=FEW))
    assert [len(cells) for _, cells, _ in tables] == [18, 12, 12, 6]
    assert list(kappas.cells.columns) == list(LABELS)
    assert kappas.cells.loc["Fleiss: a, b", "any"].startswith("1.000")
    text = (tmp_path / "readers.md").read_text()
    assert "something was left out" in text
    assert "own scan output" in text
    assert {path.name for path in tmp_path.iterdir()} == {"readers.csv", "readers_differences.csv", "kappas.csv", "readers.md"}
