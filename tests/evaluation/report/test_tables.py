"""The files of figures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from prediction_files import make_tables, write_run

from ich_lstm import LABELS
from ich_lstm.evaluation.evidence import Evidence, read_run
from ich_lstm.evaluation.figures import Figures, compute_figures
from ich_lstm.evaluation.protocols import all_figures, find_protocol
from ich_lstm.evaluation.report.tables import flat_counts, readable_tables, write_figures
from ich_lstm.statistics import FigureSettings


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    tables = make_tables()
    for table in tables.values():
        table["label_epidural"] = 0
    return read_run(write_run(tmp_path_factory.mktemp("run"), tables))


@pytest.fixture(scope="module")
def figures(evidence: Evidence) -> Figures:
    return compute_figures(evidence, all_figures(), settings=FigureSettings(prevalences=(0.05,), replicates=100))


@pytest.fixture(scope="module")
def folder(evidence: Evidence, figures: Figures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "new"
    write_figures(out, evidence, figures)
    return out


def test_csv_and_json_have_the_same_numbers(folder: Path, figures: Figures) -> None:
    table = pd.read_csv(folder / "figures.csv")
    np.testing.assert_allclose(table["value"], figures.table["value"], rtol=1e-15)
    records = pd.DataFrame(json.loads((folder / "figures.json").read_text())["figures"])
    np.testing.assert_array_equal(records["value"].astype(float), figures.table["value"])


def test_json_has_null_and_a_reason_where_a_figure_is_undefined(folder: Path) -> None:
    records = json.loads((folder / "figures.json").read_text())["figures"]
    undefined = [record for record in records if record["value"] is None]
    assert undefined
    assert all(record["note"] for record in undefined)


def test_no_id_is_in_any_file(folder: Path, evidence: Evidence) -> None:
    text = "".join(path.read_text() for path in folder.iterdir())
    for ids in (evidence.scans["scan_id"], evidence.scans["patient_id"]):
        assert not any(f'"{one}"' in text or f",{one}," in text or f" {one} " in text for one in ids.unique())


def test_markdown_tells_of_every_view_and_how_it_was_done(folder: Path) -> None:
    text = (folder / "figures.md").read_text()
    for words in ("Level slice", "Level scan", "own scan output", "maximum over scans", "10 bins", "0.5", "ppv at 0.05"):
        assert words in text


class TestReadableTables:
    def test_a_table_per_view_with_a_row_per_label(self, figures: Figures) -> None:
        tables = readable_tables(figures)
        assert len(tables) == 3
        assert all(list(table.cells.index) == list(LABELS) for table in tables)
        assert tables[0].over_all.startswith("weighted log loss 0.")

    def test_a_cell_has_its_interval(self, figures: Figures) -> None:
        row = figures.table.query("level == 'slice' and label == 'any' and metric == 'auroc'").iloc[0]
        cell = readable_tables(figures)[0].cells.loc["any", "auroc"]
        assert cell == f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        assert readable_tables(figures)[0].cells.loc["epidural", "auroc"] == "undefined"

    def test_columns_come_as_the_protocol_has_them(self, evidence: Evidence) -> None:
        figures = compute_figures(evidence, find_protocol("burduja-table3"), settings=FigureSettings(replicates=100))
        assert list(readable_tables(figures)[0].cells.columns) == ["accuracy", "auroc", "sensitivity", "specificity"]


def test_counts_within_counts_are_laid_flat() -> None:
    source = {"counts": {"scans": 3, "scans_refused": {"truncated_pixels": 2}}}
    evidence = Evidence(pd.DataFrame(), pd.DataFrame(), source, is_test=True)
    assert flat_counts(evidence) == {"scans": 3, "scans refused, truncated pixels": 2}
