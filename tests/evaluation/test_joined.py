"""Predictions of ich-predict, joined to a label table by the private key."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prediction_files import label_text, make_tables, write_predictions

from ich_lstm.data.labels.table import read_label_table
from ich_lstm.data.tables.labelled import LabelTable
from ich_lstm.errors import ConfigError, TableError
from ich_lstm.evaluation.evidence import Evidence, columns_of
from ich_lstm.evaluation.joined import join_predictions
from ich_lstm.privacy import ProjectKey

Join = Callable[..., Evidence]


@pytest.fixture
def join(tmp_path: Path, project_key: ProjectKey) -> Join:
    """Join a label table to the predictions of `make_tables`."""

    def _join(text: str, change: Callable[[Path], None] | None = None, strata: Any = None, **options: Any) -> Evidence:
        folder = write_predictions(tmp_path / "predictions", project_key)
        (tmp_path / "labels.csv").write_text(text)
        if change:
            change(folder)
        table = read_label_table(tmp_path / "labels.csv")
        if strata is not None:
            table = LabelTable(table.rows, table.source, table.flags, strata)
        return join_predictions(folder, table, **{"project_key": project_key, **options})

    return _join


class TestJoin:
    def test_slices_and_scans_get_their_labels_and_patients(self, join: Join, project_key: ProjectKey) -> None:
        tables = make_tables()
        evidence = join(label_text(tables))
        np.testing.assert_array_equal(columns_of(evidence.slices, "label_"), columns_of(tables["slices"], "label_"))
        np.testing.assert_array_equal(columns_of(evidence.scans, "label_"), columns_of(tables["scans"], "label_"))
        np.testing.assert_allclose(columns_of(evidence.scans, ""), columns_of(tables["scans"], ""), rtol=1e-15)
        assert evidence.scans["patient_id"].tolist() == [project_key.hash_id(one) for one in tables["scans"]["patient_id"]]
        assert evidence.is_test
        assert evidence.source["model"]["hash"] == "abc"

    def test_whether_the_model_has_seen_the_patients_is_checked_or_said_to_be_unchecked(self, join: Join) -> None:
        assert not join(label_text(make_tables())).source["is_unseen"]

    def test_other_patients_than_those_trained_on_are_unseen(self, join: Join) -> None:
        assert join(label_text(make_tables()), trained_on={"somebody else"}).source["is_unseen"]

    def test_patients_that_were_trained_on_stop(self, join: Join) -> None:
        seen = make_tables()["scans"]["patient_id"].iloc[0]
        with pytest.raises(ConfigError) as caught:
            join(label_text(make_tables()), trained_on={seen, "somebody else"})
        assert caught.value.code == "trained_on"
        assert "1 of" in str(caught.value)

    def test_the_order_of_the_labels_does_not_matter(self, join: Join) -> None:
        head, *rows = label_text(make_tables()).splitlines()
        evidence = join("\n".join([head, *rows[::-1]]))
        np.testing.assert_array_equal(columns_of(evidence.slices, "label_"), columns_of(make_tables()["slices"], "label_"))

    def test_labels_of_scans_leave_slices_unknown_where_something_is_there(self, join: Join) -> None:
        evidence = join(label_text(make_tables(), "series_uid"))
        positive = evidence.scans["label_any"].to_numpy()[evidence.scan_index] == 1
        assert evidence.slices["label_any"][positive].isna().all()
        assert (evidence.slices["label_any"][~positive] == 0).all()

    def test_refused_scans_are_counted_by_reason(self, join: Join) -> None:
        text = label_text(make_tables()) + "1.x.1,0,0,0,0,0,0\n"
        counts = join(text).source["counts"]
        assert counts["scans_refused"] == {"truncated_pixels": 1}
        assert counts["labels_of_excluded_images"] == 1
        assert counts["labels_without_prediction"] == 0

    def test_strata_stand_beside_the_scans(self, join: Join) -> None:
        rows = pd.DataFrame({"name": [f"1.{n}" for n in range(22)], "category": ["B1", "B2"] * 11})
        evidence = join(label_text(make_tables(), "series_uid"), strata=rows)
        assert evidence.scans["category"].tolist() == ["B1", "B2"] * 11

    def test_no_raw_id_is_left(self, join: Join) -> None:
        evidence = join(label_text(make_tables()))
        text = evidence.slices.to_csv() + evidence.scans.to_csv() + str(evidence.source)
        assert "p001" not in text
        assert "1.3.2" not in text.replace("0.", "")

    def test_patients_may_come_from_the_table(self, join: Join, project_key: ProjectKey) -> None:
        def forget(folder: Path) -> None:
            for path in (folder / "scans.csv", folder / "private" / "key.csv"):
                pd.read_csv(path, dtype=str).assign(patient_id="").to_csv(path, index=False)

        head, *rows = label_text(make_tables()).splitlines()
        evidence = join("\n".join([f"{head},patient_id", *(f"{row},Q" for row in rows)]), forget)
        assert set(evidence.scans["patient_id"]) == {project_key.hash_id("Q")}


class TestBadInput:
    def test_labels_of_what_was_not_predicted_stop_unless_allowed(self, join: Join, tmp_path: Path) -> None:
        text = label_text(make_tables()) + "9.9.9,0,0,0,0,0,0\n"
        with pytest.raises(TableError, match="--unmatched labels") as caught:
            join(text)
        assert caught.value.code == "labels_without_prediction"
        assert f"line {len(text.splitlines())}" in caught.value.where

    def test_what_is_allowed_to_miss_is_counted(self, join: Join) -> None:
        text = label_text(make_tables()) + "9.9.9,0,0,0,0,0,0\n"
        assert join(text, unmatched="labels").source["counts"]["labels_without_prediction"] == 1

    def test_predictions_without_labels_stop_unless_allowed(self, join: Join) -> None:
        text = "".join(label_text(make_tables()).splitlines(keepends=True)[:-5])
        with pytest.raises(TableError, match="--unmatched images") as caught:
            join(text)
        assert caught.value.code == "unlabelled_scans"
        assert "scans.csv, line 23" in caught.value.where

    def test_scans_without_labels_are_left_out_and_counted(self, join: Join) -> None:
        text = "".join(label_text(make_tables()).splitlines(keepends=True)[:-5])
        counts = join(text, unmatched="images").source["counts"]
        assert (counts["scans"], counts["scans_without_labels_not_judged"]) == (21, 1)

    def test_both_directions_are_one_stop_that_lists_both(self, join: Join) -> None:
        text = "".join(label_text(make_tables()).splitlines(keepends=True)[:-5]) + "9.9.9,0,0,0,0,0,0\n"
        with pytest.raises(TableError, match="--unmatched both") as caught:
            join(text)
        assert "neither predicted nor refused (1 rows)" in caught.value.got
        assert "1 predictions without a label, line 23 of scans.csv" in caught.value.got

    @pytest.mark.parametrize(("unmatched", "told"), [("labels", "images"), ("images", "labels")])
    def test_one_that_may_be_left_out_is_not_both(self, join: Join, unmatched: str, told: str) -> None:
        text = "".join(label_text(make_tables()).splitlines(keepends=True)[:-5]) + "9.9.9,0,0,0,0,0,0\n"
        with pytest.raises(TableError, match=f"--unmatched {told}"):
            join(text, unmatched=unmatched)

    def test_both_may_be_left_out_and_are_counted(self, join: Join) -> None:
        text = "".join(label_text(make_tables()).splitlines(keepends=True)[:-5]) + "9.9.9,0,0,0,0,0,0\n"
        counts = join(text, unmatched="both").source["counts"]
        assert (counts["labels_without_prediction"], counts["scans_without_labels_not_judged"]) == (1, 1)

    def test_labels_of_another_data_set_stop_even_if_some_may_miss(self, join: Join) -> None:
        with pytest.raises(TableError) as caught:
            join("sop_uid,any\n9.9.9,0\n", unmatched="labels")
        assert caught.value.code == "labels_without_prediction"

    def test_another_project_key_stops(self, join: Join) -> None:
        with pytest.raises(ConfigError) as caught:
            join(label_text(make_tables()), project_key=ProjectKey(bytes(32)))
        assert caught.value.code == "other_project_key"

    def test_a_key_of_other_predictions_stops(self, join: Join) -> None:
        def cut(folder: Path) -> None:
            path = folder / "private" / "key.csv"
            path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))

        with pytest.raises(TableError, match="2 slices that the key does not name") as caught:
            join(label_text(make_tables()), cut)
        assert caught.value.code == "key_does_not_fit"

    def test_a_key_that_is_not_there_is_asked_for(self, join: Join) -> None:
        with pytest.raises(TableError, match="--key") as caught:
            join(label_text(make_tables()), lambda folder: (folder / "private" / "key.csv").unlink())
        assert caught.value.code == "missing_key"

    def test_patients_that_nobody_names_stop(self, join: Join) -> None:
        def forget(folder: Path) -> None:
            for path in (folder / "scans.csv", folder / "private" / "key.csv"):
                pd.read_csv(path, dtype=str).assign(patient_id="").to_csv(path, index=False)

        with pytest.raises(TableError) as caught:
            join(label_text(make_tables()), forget)
        assert caught.value.code == "unknown_patients"

    def test_a_scan_predicted_twice_stops(self, join: Join) -> None:
        def repeat(folder: Path) -> None:
            for path in (folder / "scans.csv", folder / "slices.csv", folder / "private" / "key.csv"):
                rows = pd.read_csv(path, dtype=str)
                pd.concat([rows, rows[rows["scan_id"] == f"{3:016d}"]]).to_csv(path, index=False)

        with pytest.raises(TableError) as caught:
            join(label_text(make_tables()), repeat)
        assert caught.value.code == "repeated_rows"

    def test_a_run_has_its_labels_already(self, join: Join) -> None:
        def unmark(folder: Path) -> None:
            pd.read_csv(folder / "scans.csv", dtype=str).drop(columns="status").to_csv(folder / "scans.csv", index=False)

        with pytest.raises(TableError) as caught:
            join(label_text(make_tables()), unmark)
        assert caught.value.code == "labelled_already"
