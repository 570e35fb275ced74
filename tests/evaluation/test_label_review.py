"""Where model and labels disagree: found, shown, and settled."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prediction_files import make_tables, write_run

from ich_lstm import LABELS
from ich_lstm.cli import evaluate
from ich_lstm.data.audit.montage import LOWEST_SHOWN
from ich_lstm.data.prepared.folder import SCANS_TABLE, PreparedFolder
from ich_lstm.data.prepared.scan_cache import CachedScan, read_cached
from ich_lstm.errors import CacheError, ConfigError, TableError
from ich_lstm.evaluation import label_review
from ich_lstm.evaluation.evidence import Evidence, make_evidence, read_run
from ich_lstm.evaluation.label_review import collect_cases, find_disagreements, write_review
from ich_lstm.privacy import ProjectKey

SUBDURAL, ANY = LABELS.index("subdural"), LABELS.index("any")


@pytest.fixture
def tables(prepared: PreparedFolder, project_key: ProjectKey) -> dict[str, pd.DataFrame]:
    """Predictions of the scans of `prepared`, all labelled absent, by a model that agrees."""
    key = prepared.key
    slices = key[["scan_id", "slice", "slice_id"]].assign(position_mm=0.0)
    firsts = key.drop_duplicates("scan_id")
    scans = firsts[["scan_id"]].assign(patient_id=firsts["patient_id"].map(project_key.hash_id))
    for table in (slices, scans):
        table[list(LABELS)] = np.linspace(0.01, 0.1, 6 * len(table)).reshape(-1, 6)
        table[[f"label_{label}" for label in LABELS]] = 0.0
    return {"slices": slices.reset_index(drop=True), "scans": scans.reset_index(drop=True)}


def evidence_of(tables: dict[str, pd.DataFrame], **changes: Any) -> Evidence:
    source = {"kind": "run", "model": {"name": "net"}, "part": "test", "truth": "", "counts": {}, "notes": [], **changes}
    return make_evidence(tables["slices"], tables["scans"], source, is_test=True)


class TestFindDisagreements:
    def test_the_worst_comes_first_with_all_its_labels(self, tables: dict[str, pd.DataFrame]) -> None:
        slices = tables["slices"]
        slices.loc[3, ["subdural", "any"]] = [0.999, 0.6]
        slices.loc[30, "epidural"] = 0.9
        slices.loc[40, ["subdural", "label_subdural"]] = [0.9, 1]  # agrees
        found = find_disagreements(evidence_of(tables), "slice")
        assert found["slice_id"].tolist() == [slices["slice_id"][i] for i in (3, 3, 30)]
        assert found[["rank", "label", "labelled"]].to_numpy().tolist() == [[1, "subdural", 0], [1, "any", 0], [2, "epidural", 0]]
        np.testing.assert_allclose(found["log_loss"], [-np.log(1 - 0.999), -np.log(0.4), -np.log(0.1)])
        assert (found["disagreeing"] == 2).all()

    def test_losses_are_those_of_every_slice_and_label(self) -> None:
        evidence = evidence_of(make_tables(40))
        found = find_disagreements(evidence, "slice", most=10_000, most_per_scan=10_000)
        p, y = (evidence.slices[[prefix + label for label in LABELS]].to_numpy() for prefix in ("", "label_"))
        wrong = (p > 0.5) != (y == 1)
        assert len(found) == wrong.sum()
        assert found["disagreeing"].iloc[0] == wrong.any(axis=1).sum()
        worst = found.groupby("rank")["log_loss"].max()
        assert (worst.diff().dropna() <= 0).all()

    def test_one_scan_does_not_fill_the_page(self, tables: dict[str, pd.DataFrame]) -> None:
        tables["slices"].loc[:11, "subdural"] = np.linspace(0.9, 0.99, 12)
        tables["slices"].loc[20, "subdural"] = 0.8
        found = find_disagreements(evidence_of(tables), "slice", most_per_scan=2)
        assert found["slice"].tolist() == [12, 11, tables["slices"]["slice"][20]]
        assert (found["disagreeing"] == 13).all()
        assert len(find_disagreements(evidence_of(tables), "slice", most=1)) == 1

    def test_unknown_labels_disagree_with_nobody(self, tables: dict[str, pd.DataFrame]) -> None:
        tables["slices"].loc[3, ["subdural", "label_subdural"]] = [0.999, np.nan]
        assert len(find_disagreements(evidence_of(tables), "slice")) == 0

    def test_scans(self, tables: dict[str, pd.DataFrame]) -> None:
        tables["scans"].loc[2, "subdural"] = 0.8
        tables["slices"].loc[0, "any"] = 0.97
        found = find_disagreements(evidence_of(tables), "scan")
        assert found[["scan_id", "slice", "label"]].to_numpy().tolist() == [[tables["scans"]["scan_id"][2], 0, "subdural"]]
        of_maximum = find_disagreements(evidence_of(tables), "scan", aggregation="max")
        assert of_maximum[["scan_id", "label"]].to_numpy().tolist() == [[tables["slices"]["scan_id"][0], "any"]]

    def test_the_training_part_is_refused(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path, {name: table.assign(split="train") for name, table in make_tables().items()})
        with pytest.raises(ConfigError) as caught:
            find_disagreements(read_run(folder, "train"), "slice")
        assert caught.value.code == "trained_on_these"

    def test_nothing_cannot_be_asked_for(self, tables: dict[str, pd.DataFrame]) -> None:
        with pytest.raises(ConfigError):
            find_disagreements(evidence_of(tables), "slice", most=0)


class TestCases:
    def test_a_slice_stands_between_its_neighbours(self, tables: dict[str, pd.DataFrame], prepared: PreparedFolder) -> None:
        slices = tables["slices"]
        at = [5, 12, 23]  # in the middle of the first scan; the lowest and the highest of the second
        slices.loc[at, "subdural"] = [0.99, 0.98, 0.97]
        slices.loc[4, "label_any"] = 1.0
        slices.loc[4, "any"] = 1.0
        evidence = evidence_of(tables)
        cases = collect_cases(evidence, find_disagreements(evidence, "slice"), prepared)
        assert [[picture.offset for picture in case.pictures] for case in cases] == [[-1, 0, 1], [0, 1], [-1, 0]]
        assert cases[0].pictures[0].present == ("any",)
        for case, row in zip(cases, at, strict=True):
            key = prepared.key[prepared.key["slice_id"] == slices["slice_id"][row]].iloc[0]
            hu = read_cached(prepared.folder / "cache" / key["cache"]).hu
            assert (case.sop_uid, case.series_uid) == (key["sop_uid"], key["series_uid"])
            for picture in case.pictures:
                np.testing.assert_array_equal(picture.hu, hu[key["slice"] - 1 + picture.offset])

    def test_of_a_scan_the_most_suspicious_slice_is_shown(
        self, tables: dict[str, pd.DataFrame], prepared: PreparedFolder
    ) -> None:
        tables["scans"].loc[1, ["subdural", "label_subdural"]] = [0.2, 1]
        tables["slices"].loc[12 + 7, "subdural"] = 0.4
        evidence = evidence_of(tables)
        (case,) = collect_cases(evidence, find_disagreements(evidence, "scan"), prepared)
        assert (case.slice, case.slices, case.sop_uid) == (8, 12, "")
        assert case.labels[SUBDURAL] == 1
        assert case.probabilities[SUBDURAL] == 0.2

    def test_scans_of_another_folder_stop(self, prepared: PreparedFolder) -> None:
        evidence = evidence_of(make_tables())
        with pytest.raises(TableError) as caught:
            collect_cases(evidence, find_disagreements(evidence, "slice"), prepared)
        assert caught.value.code == "not_in_prepared_folder"


@pytest.mark.parametrize(
    "error", [MemoryError(), CacheError("cache_unreadable", where="x", got="nothing"), ValueError("?")], ids=repr
)
def test_a_scan_that_cannot_be_read_is_a_case_without_pictures(
    error: Exception,
    tables: dict[str, pd.DataFrame],
    prepared: PreparedFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tables["slices"].loc[[3, 30], "subdural"] = [0.999, 0.9]
    evidence = evidence_of(tables)
    found = find_disagreements(evidence, "slice")
    failing = prepared.key.loc[prepared.key["slice_id"] == found["slice_id"].iloc[0], "cache"].iloc[0]

    def read(path: Path) -> CachedScan:
        if path.name == failing:
            raise error
        return read_cached(path)

    monkeypatch.setattr(label_review, "read_cached", read)
    first, second = collect_cases(evidence, found, prepared)
    assert all(picture.hu is None for picture in first.pictures)
    assert all(picture.hu is not None for picture in second.pictures)
    assert "shown without pictures" in caplog.text


class TestFiles:
    @pytest.fixture
    def run(self, tables: dict[str, pd.DataFrame], tmp_path: Path) -> Path:
        tables["slices"].loc[[1, 9, 22], ["subdural", "any"]] = 0.99
        tables["scans"].loc[3, "epidural"] = 0.9
        return write_run(tmp_path / "run", {name: table.assign(split="test") for name, table in tables.items()})

    def test_from_the_command_line(
        self, run: Path, prepared: PreparedFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out"
        arguments = [str(run), "--out", str(out), "--replicates=100", "--review", str(prepared.folder), "--most=2"]
        assert evaluate.main(arguments) == 0
        assert "2 slices, 1 scans" in capsys.readouterr().out.replace("\n", " ")
        private = (out / "private/review.html").read_text()
        shareable = (out / "review.html").read_text()
        assert (out / "private").stat().st_mode & 0o777 == 0o700
        assert len(re.findall("<article", private)) == len(re.findall("<article", shareable)) == 3
        listed = pd.read_csv(out / "review.csv", dtype={"scan_id": str})
        assert listed["rank"].tolist() == [1, 1, 2, 2, 1]
        uids = prepared.key.set_index("slice_id")["sop_uid"]
        assert all(uids[slice_id] in private for slice_id in listed["slice_id"].dropna())
        raw = {*prepared.key["sop_uid"], *prepared.key["series_uid"], *prepared.key["study_uid"], *prepared.key["patient_id"]}
        assert not [name for name in raw if name in shareable or name in (out / "review.csv").read_text()]
        assert str(tmp_path) not in private + shareable
        assert "<script" not in shareable

    def test_wrong_usage(self, run: Path, tmp_path: Path) -> None:
        assert evaluate.main([str(run), "--out", str(tmp_path / "out"), "--most=2"]) == 2
        assert evaluate.main([str(run), "--out", str(tmp_path / "out"), "--review", str(tmp_path)]) == 1
        assert not (tmp_path / "out").exists()

    def test_nothing_of_a_face_is_shared(self, tables: dict[str, pd.DataFrame], prepared: PreparedFolder, tmp_path: Path) -> None:
        """What lies outside the skull, and low slices, are black."""
        tables["slices"].loc[[1, 9, 22], "subdural"] = [0.99, 0.98, 0.97]
        evidence = evidence_of(tables)
        found = find_disagreements(evidence, "slice")
        files = write_review(tmp_path / "whole", evidence, found, prepared)
        count = {path: path.read_text().count("data:image/png") for path in (files.private, files.shareable)}
        assert count[files.private] == 9
        lowest = int(np.ceil(LOWEST_SHOWN * 12))
        above = [n for i in (1, 9, 10) for n in (i - 1, i, i + 1) if lowest <= n < 12]
        assert 0 < count[files.shareable] <= len(above)

    def test_text_in_the_pixels_is_not_shared(
        self, tables: dict[str, pd.DataFrame], prepared: PreparedFolder, tmp_path: Path
    ) -> None:
        tables["slices"].loc[9, "subdural"] = 0.99
        evidence = evidence_of(tables)
        folder = replace(prepared, tables={SCANS_TABLE: prepared.facts.assign(flags="burned_in")})
        files = write_review(tmp_path, evidence, find_disagreements(evidence, "slice"), folder)
        assert "data:image/png" not in files.shareable.read_text()
        assert "data:image/png" in files.private.read_text()

    def test_predictions_say_that_nobody_knows_who_trained(
        self, tables: dict[str, pd.DataFrame], prepared: PreparedFolder, tmp_path: Path
    ) -> None:
        notes = []
        for kind in ("run", "predictions"):
            evidence = evidence_of(tables, kind=kind)
            files = write_review(tmp_path / kind, evidence, find_disagreements(evidence, "slice"), prepared)
            notes.append(files.private.read_text().count('class="note"'))
        assert notes == [0, 1]
