"""Figures by protocol, against scikit-learn on the files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from prediction_files import make_tables, write_run
from sklearn.metrics import average_precision_score, brier_score_loss, confusion_matrix, log_loss, roc_auc_score

from ich_lstm import LABELS
from ich_lstm.errors import ConfigError, TableError
from ich_lstm.evaluation.evidence import read_run
from ich_lstm.evaluation.figures import VIEW, Figures, compute_figures, figure_notes, main_rows
from ich_lstm.evaluation.protocols import PROTOCOLS, all_figures, find_protocol
from ich_lstm.statistics import FigureSettings

FEW = FigureSettings(replicates=100)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), make_tables(40))


@pytest.fixture(scope="module")
def figures(run: Path) -> Figures:
    return compute_figures(read_run(run), all_figures(), settings=FEW)


def figure(figures: Figures, level: str, label: str, metric: str) -> float:
    rows = main_rows(figures.table).query("level == @level and label == @label and metric == @metric and output == 'sequence'")
    return rows["value"].item()


@pytest.mark.parametrize("level", ["slice", "scan"])
@pytest.mark.parametrize("label", ["intraparenchymal", "any"])
def test_figures_are_those_of_scikit_learn_on_the_files(run: Path, figures: Figures, level: str, label: str) -> None:
    frame = pd.read_csv(run / "predictions" / f"{level}s.csv")
    y, p = frame[f"label_{label}"].to_numpy(), frame[label].to_numpy()
    (tn, fp), (fn, tp) = confusion_matrix(y, p >= 0.5)
    expected = {
        "log_loss": log_loss(y, p),
        "auroc": roc_auc_score(y, p),
        "average_precision": average_precision_score(y, p),
        "brier": brier_score_loss(y, p),
        "accuracy": (tp + tn) / len(y),
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "npv": tn / (tn + fn),
    }
    for metric, value in expected.items():
        assert figure(figures, level, label, metric) == pytest.approx(value, abs=1e-12), metric
    counts = figures.confusion.query("level == @level and label == @label").iloc[0]
    assert counts[["true_positive", "false_positive", "false_negative", "true_negative"]].tolist() == [tp, fp, fn, tn]


def test_labels_of_whole_scans_give_no_figures_of_slices(tmp_path: Path) -> None:
    """Slices of negative scans are known to be negative; figures of them alone would say nothing."""
    tables = make_tables(40)
    columns = [f"label_{label}" for label in LABELS]
    positive = set(tables["scans"].loc[tables["scans"]["label_any"] == 1, "scan_id"])
    slices = tables["slices"].assign(**dict.fromkeys(columns, 0.0))
    slices.loc[slices["scan_id"].isin(positive), columns] = np.nan
    found = compute_figures(read_run(write_run(tmp_path, tables | {"slices": slices})), all_figures(), settings=FEW)
    assert set(found.table["level"]) == {"scan", "patient"}
    assert any("the labels name whole scans" in line for line in found.excluded)


def test_the_weighted_log_loss_is_kaggles(run: Path, figures: Figures) -> None:
    frame = pd.read_csv(run / "predictions" / "slices.csv")
    losses = [log_loss(frame[f"label_{label}"], frame[label], labels=[0, 1]) for label in LABELS]
    weighted = np.average(losses, weights=[1, 1, 1, 1, 1, 2])
    assert figure(figures, "slice", "all", "weighted_log_loss") == pytest.approx(weighted, abs=1e-12)


def test_every_view_has_every_label_and_says_how(figures: Figures) -> None:
    assert list(figures.table["level"].unique()) == ["slice", "scan", "patient"]
    assert set(figures.table["label"]) == {*LABELS, "all"}
    assert (figures.table[VIEW] != "").all(axis=None)


def test_slices_of_a_patient_do_not_count_as_independent(figures: Figures) -> None:
    exact = figures.table["method"].isin(["Wilson", "Clopper-Pearson"])
    assert set(figures.table["level"][exact]) == {"patient"}


def test_thresholds_may_differ_by_level_and_label(run: Path) -> None:
    points = {"slice": [0.1] * 6, "scan": [0.3] * 5 + [0.9], "patient": [0.5] * 6}
    table = compute_figures(read_run(run), all_figures(), thresholds=points, settings=FEW).confusion
    assert table.query("level == 'scan'")["threshold"].tolist() == points["scan"]
    assert table.query("level == 'slice'")["threshold"].tolist() == points["slice"]


def test_settings_are_recorded_also_where_they_were_not_given(figures: Figures) -> None:
    assert figures.settings["replicates"] == 100
    assert figures.settings["bins"] == 10
    assert figures.settings["thresholds"] == 0.5


class TestMissing:
    def test_labels_of_one_class_are_told_and_not_hidden(self, tmp_path: Path) -> None:
        tables = make_tables()
        for table in tables.values():
            table["label_epidural"] = 0
        figures = compute_figures(read_run(write_run(tmp_path, tables)), all_figures(("scan",)), settings=FEW)
        rows = main_rows(figures.table).query("label == 'epidural'").set_index("metric")
        assert np.isnan(rows.loc["auroc", "value"])
        assert rows.loc["auroc", "note"]
        assert rows.loc["specificity", "value"] <= 1
        bare = main_rows(figures.table)
        assert (bare["note"][bare["low"].isna()] != "").all()
        assert any("epidural" in line and "auroc" in line for line in figure_notes(figures.table))

    def test_a_level_without_labels_is_left_out_aloud(self, tmp_path: Path) -> None:
        tables = make_tables()
        tables["slices"][[f"label_{label}" for label in LABELS]] = np.nan
        evidence = read_run(write_run(tmp_path, tables))
        figures = compute_figures(evidence, all_figures(), settings=FEW)
        assert set(figures.table["level"]) == {"scan", "patient"}
        assert len(figures.excluded) == 1
        with pytest.raises(TableError) as caught:
            compute_figures(evidence, all_figures(("slice",)), settings=FEW)
        assert caught.value.code == "no_known_label"


class TestProtocols:
    def test_rsna_is_the_loss_on_slices(self, run: Path, figures: Figures) -> None:
        table = compute_figures(read_run(run), find_protocol("rsna"), settings=FEW).table
        assert set(table["level"]) == {"slice"}
        assert set(table["metric"]) == {"weighted_log_loss", "log_loss"}
        expected = figure(figures, "slice", "all", "weighted_log_loss")
        assert table.set_index("metric").loc["weighted_log_loss", "value"] == expected

    def test_nguyen_takes_the_maximum_over_slices(self, run: Path) -> None:
        table = compute_figures(read_run(run), find_protocol("cq500-nguyen"), settings=FEW).table
        slices = pd.read_csv(run / "predictions" / "slices.csv", dtype={"scan_id": str}).groupby("scan_id")
        expected = roc_auc_score(slices["label_any"].max(), slices["any"].max())
        assert table.query("metric == 'auroc' and label == 'any'")["value"].item() == pytest.approx(expected, abs=1e-12)
        assert set(table["level"]) == {"scan"}
        assert find_protocol("cq500-nguyen").truth == "majority"

    @pytest.mark.parametrize("name", ["burduja-table3", "burduja-table5"])
    def test_burduja_sets_the_encoder_beside_the_whole(self, run: Path, name: str) -> None:
        table = main_rows(compute_figures(read_run(run), find_protocol(name), settings=FEW).table)
        counts = table.groupby(["level", "output"]).size()
        assert counts.to_dict() == dict.fromkeys(
            [(level, output) for level in ("slice", "scan") for output in ("encoder", "sequence")], 24
        )

    def test_an_unknown_one_names_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match="cq500-nguyen") as caught:
            find_protocol("cq500-nguyn")
        assert caught.value.code == "unknown_protocol"

    def test_each_has_a_source(self) -> None:
        assert all(protocol.source and protocol.name == name for name, protocol in PROTOCOLS.items())
