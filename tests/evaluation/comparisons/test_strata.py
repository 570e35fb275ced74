"""Strata hold the right scans, and warn where they are small."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ich_lstm.errors import IchLstmError
from ich_lstm.evaluation.aggregate import cases_at
from ich_lstm.evaluation.comparisons.strata import Stratum, evaluate_strata, find_strata, read_strata, strata_notes
from ich_lstm.evaluation.evidence import Evidence
from ich_lstm.statistics import FigureSettings, evaluate_labels

FEW = FigureSettings(replicates=100)


def by_name(strata: list[Stratum], grouping: str) -> dict[str, int]:
    return {stratum.value: int(stratum.scans.sum()) for stratum in strata if stratum.grouping == grouping}


class TestFind:
    def test_what_the_predictions_tell(self, make_evidence: Callable[..., Evidence]) -> None:
        strata = find_strata(make_evidence(slices=40))
        assert by_name(strata, "slices") == {"30 to 60": 36}
        assert by_name(strata, "slice_mm") == {"over 4": 36}
        # 18 scans without any, and 9 of one type or of two.
        assert by_name(strata, "types of hemorrhage") == {"one": 27, "several": 27}

    def test_columns_of_the_evidence(self, make_evidence: Callable[..., Evidence]) -> None:
        columns = {
            "category": ["B1"] * 12 + ["B2"] * 24,
            "chronic": [0.0] * 30 + [1.0] * 5 + [np.nan],
            "flags": ["tilt;contrast", "tilt", ""] * 12,
            "age": np.arange(36.0),
        }
        strata = find_strata(make_evidence(strata=columns))
        assert by_name(strata, "category") == {"B1": 12, "B2": 24}
        assert by_name(strata, "chronic") == {"0": 30, "1": 5, "unknown": 1}
        assert by_name(strata, "flag tilt") == {"without": 12, "with": 24}
        assert by_name(strata, "flag contrast") == {"without": 24, "with": 12}
        assert list(by_name(strata, "age").values()) == [12, 12, 12]

    def test_bands_hold_their_upper_ends(self, make_evidence: Callable[..., Evidence], tmp_path: Path) -> None:
        facts = "scan_id,thickness_mm,tilt_degrees\nps000,2.5,-16\nps001,4,15\nps002,4.1,0\n"
        (tmp_path / "facts.csv").write_text(facts)
        strata = find_strata(make_evidence(), [read_strata(tmp_path / "facts.csv")])
        assert by_name(strata, "thickness_mm") == {"up to 2.5": 1, "2.5 to 4": 1, "over 4": 1, "unknown": 33}
        assert by_name(strata, "tilt_degrees") == {"up to 1": 1, "1 to 15": 1, "over 15": 1, "unknown": 33}

    def test_facts_of_a_prepared_folder(self, make_evidence: Callable[..., Evidence], tmp_path: Path) -> None:
        evidence = make_evidence()
        facts = pd.DataFrame({"scan_id": evidence.scans["scan_id"], "patient_id": "raw", "flags": "tilt", "slices": 40})
        facts = facts.assign(slice_mm=5.0, thickness_mm=[1.0] * 6 + [5.0] * 30, pixel_mm=0.45, tilt_degrees=20.0)
        (tmp_path / "private").mkdir()
        (tmp_path / "manifest.json").write_text('{"preprocessing": {}}')
        facts.to_parquet(tmp_path / "private" / "key.parquet")
        facts.to_parquet(tmp_path / "private" / "scans.parquet")
        table = read_strata(tmp_path)
        assert "patient_id" not in table
        strata = find_strata(evidence, [table])
        assert by_name(strata, "thickness_mm") == {"up to 2.5": 6, "over 4": 30}
        # What the images say counts, not how many slices were left after preparation.
        assert by_name(strata, "slices") == {"30 to 60": 36}
        assert by_name(strata, "flag tilt") == {"with": 36}

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("scan_id\nps000\n", "missing_columns"),
            ("scan,scanner\nps000,A\n", "missing_columns"),
            ("scan_id,scanner\nps000,A\nps000,B\n", "repeated_rows"),
            ("scan_id,scanner\nother,A\n", "unknown_scans"),
        ],
    )
    def test_bad_tables_stop(self, make_evidence: Callable[..., Evidence], tmp_path: Path, text: str, code: str) -> None:
        (tmp_path / "facts.csv").write_text(text)
        with pytest.raises(IchLstmError) as caught:
            find_strata(make_evidence(), [read_strata(tmp_path / "facts.csv")])
        assert caught.value.code == code


class TestEvaluate:
    @pytest.mark.parametrize("level", ["slice", "scan"])
    def test_figures_of_those_scans_alone(self, make_evidence: Callable[..., Evidence], level: str) -> None:
        evidence = make_evidence(noise=3.0, strata={"category": ["B1"] * 12 + ["B2"] * 24})
        strata = [stratum for stratum in find_strata(evidence) if stratum.grouping == "category"]
        got = evaluate_strata(evidence, strata, level=level, settings=FEW)
        cases = cases_at(evidence, level)
        rows = np.isin(cases.ids, evidence.scans["scan_id"][12:])
        expected = evaluate_labels(cases.labels[rows], cases.probabilities[rows], cases.patients[rows], replicates=FEW.replicates)
        expected = expected.query("label == 'any' and metric == 'auroc'").iloc[0]
        own = got.query("stratum == 'B2' and label == 'any' and metric == 'auroc'").iloc[0]
        assert own[["value", "low", "high", "cases"]].tolist() == pytest.approx(
            expected[["value", "low", "high", "cases"]].tolist()
        )
        assert own["scans"] == 24

    def test_small_strata_warn(self, make_evidence: Callable[..., Evidence]) -> None:
        evidence = make_evidence(patients=140, slices=6, strata={"site": ["a"] * 80 + ["b"] * 60})
        strata = [stratum for stratum in find_strata(evidence) if stratum.grouping == "site"]
        table = evaluate_strata(evidence, strata, settings=FEW)
        # 40 of 80 and 30 of 60 patients have a hemorrhage; of any one type far fewer have.
        assert not table.query("label == 'any'")["small"].any()
        assert table.query("label != 'any'")["small"].all()
        notes = strata_notes(table)
        assert len(notes) == 2
        assert not any("any" in note for note in notes)

    def test_patients_have_no_strata(self, make_evidence: Callable[..., Evidence]) -> None:
        evidence = make_evidence()
        with pytest.raises(IchLstmError, match="no_strata_of_patients"):
            evaluate_strata(evidence, find_strata(evidence), level="patient", settings=FEW)
