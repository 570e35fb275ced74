"""From slices to scans to patients."""

from pathlib import Path

import numpy as np
import pytest
from prediction_files import make_tables, write_run

from ich_lstm.errors import ConfigError, TableError
from ich_lstm.evaluation.aggregate import aggregate, cases_at
from ich_lstm.evaluation.evidence import Evidence, columns_of, read_run


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return read_run(write_run(tmp_path))


class TestAggregate:
    @pytest.mark.parametrize(
        ("name", "plainly"),
        [
            ("max", lambda p: p.max(axis=0)),
            ("mean", lambda p: p.mean(axis=0)),
            ("top-1", lambda p: p.max(axis=0)),
            ("top-3", lambda p: np.sort(p, axis=0)[-3:].mean(axis=0)),
            ("top-99", lambda p: p.mean(axis=0)),
            ("noisy-or", lambda p: 1 - (1 - p).prod(axis=0)),
        ],
    )
    def test_is_what_its_name_says_scan_by_scan(self, name: str, plainly) -> None:
        random = np.random.default_rng(4)
        lengths = random.integers(1, 9, 40)
        p, scan = random.random((lengths.sum(), 6)), np.repeat(np.arange(40), lengths)
        expected = np.array([plainly(p[scan == i]) for i in range(40)])
        np.testing.assert_allclose(aggregate(p, scan, name), expected, rtol=0, atol=1e-15)

    def test_a_certain_slice_makes_a_certain_scan(self) -> None:
        assert aggregate(np.array([[1.0], [0.2]]), np.array([0, 0]), "noisy-or") == 1

    @pytest.mark.parametrize("name", ["maximum", "top-0", "top-", "top-3.5", ""])
    def test_unknown_names_stop(self, name: str) -> None:
        with pytest.raises(ConfigError) as caught:
            aggregate(np.zeros((1, 1)), np.zeros(1, int), name)
        assert caught.value.code == "unknown_aggregation"


class TestCasesAt:
    def test_slices_are_as_they_are(self, evidence: Evidence) -> None:
        cases = cases_at(evidence, "slice", aggregation="max")
        np.testing.assert_array_equal(cases.probabilities, columns_of(evidence.slices, ""))
        assert len(cases.labels) == len(cases.patients) == len(evidence.slices)

    def test_scans_are_the_models_own_unless_something_is_named(self, evidence: Evidence) -> None:
        np.testing.assert_array_equal(cases_at(evidence, "scan").probabilities, columns_of(evidence.scans, ""))
        highest = evidence.slices.groupby("scan_id")["any"].max()
        np.testing.assert_array_equal(cases_at(evidence, "scan", aggregation="max").probabilities[:, -1], highest)

    def test_patients_are_their_most_suspicious_scan(self, evidence: Evidence) -> None:
        cases = cases_at(evidence, "patient")
        by_patient = evidence.scans.groupby("patient_id")
        assert cases.ids.tolist() == list(by_patient.groups)
        np.testing.assert_array_equal(cases.probabilities[:, -1], by_patient["any"].max())
        np.testing.assert_array_equal(cases.labels[:, -1], by_patient["label_any"].max())

    def test_a_patient_is_negative_only_if_all_scans_are_known_to_be(self, tmp_path: Path) -> None:
        tables = make_tables()
        last = tables["scans"].index[tables["scans"]["label_any"] == 0][-1]
        patient = tables["scans"]["patient_id"][last]
        tables["scans"].loc[last, "label_any"] = np.nan
        cases = cases_at(read_run(write_run(tmp_path, tables)), "patient")
        other = tables["scans"].query("patient_id == @patient")["label_any"].max()
        label = cases.labels[cases.ids == patient, -1]
        assert np.isnan(label) if other == 0 else label == 1

    def test_how_it_was_done_is_told(self, evidence: Evidence) -> None:
        told = {cases_at(evidence, "scan", aggregation=name).aggregation for name in ("own", "max", "mean", "top-3", "noisy-or")}
        assert len(told) == 5

    def test_the_encoder_has_slices_and_no_scan_output(self, evidence: Evidence) -> None:
        cases = cases_at(evidence, "scan", aggregation="max", output="encoder")
        np.testing.assert_array_equal(cases.probabilities[:, -1], evidence.slices.groupby("scan_id")["encoder_any"].max())
        with pytest.raises(ConfigError) as caught:
            cases_at(evidence, "scan", output="encoder")
        assert caught.value.code == "no_scan_output"

    def test_an_encoder_that_is_not_there_stops(self, tmp_path: Path) -> None:
        tables = make_tables()
        tables["slices"] = tables["slices"].loc[:, ~tables["slices"].columns.str.startswith("encoder_")]
        with pytest.raises(TableError) as caught:
            cases_at(read_run(write_run(tmp_path, tables)), "slice", output="encoder")
        assert caught.value.code == "no_encoder"
