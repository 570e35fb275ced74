"""Predictions beside labels, checked as they are read."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from prediction_files import make_tables, write_run

from ich_lstm import LABELS
from ich_lstm.errors import TableError
from ich_lstm.evaluation.evidence import columns_of, read_run

Tables = dict[str, pd.DataFrame]


class TestReadRun:
    def test_holds_what_the_files_hold(self, tmp_path: Path) -> None:
        tables = make_tables()
        evidence = read_run(write_run(tmp_path, tables))
        for name, frame in (("slices", evidence.slices), ("scans", evidence.scans)):
            for prefix in ("", "label_"):
                np.testing.assert_allclose(columns_of(frame, prefix), columns_of(tables[name], prefix), rtol=1e-15)
        assert evidence.has_encoder
        assert evidence.is_test
        assert evidence.source["counts"]["patients"] == 12
        assert evidence.source["counts"]["scans"] == len(tables["scans"])

    def test_the_order_of_the_rows_does_not_matter(self, tmp_path: Path) -> None:
        shuffled = {name: table.sample(frac=1, random_state=1) for name, table in make_tables().items()}
        one, other = read_run(write_run(tmp_path / "a")), read_run(write_run(tmp_path / "b", shuffled))
        pd.testing.assert_frame_equal(one.slices, other.slices)
        pd.testing.assert_frame_equal(one.scans, other.scans)

    def test_every_slice_knows_its_patient_and_its_scan(self, tmp_path: Path) -> None:
        evidence = read_run(write_run(tmp_path))
        assert (evidence.scans["scan_id"].to_numpy()[evidence.scan_index] == evidence.slices["scan_id"]).all()
        assert (evidence.scans["patient_id"].to_numpy()[evidence.scan_index] == evidence.slices["patient_id"]).all()

    def test_ids_of_digits_keep_their_zeros(self, tmp_path: Path) -> None:
        assert read_run(write_run(tmp_path)).scans["scan_id"].iloc[0] == "0" * 16

    def test_one_part_is_read_and_the_other_counted(self, tmp_path: Path) -> None:
        tables = {
            name: table.assign(split=np.where(table["scan_id"] < f"{4:016d}", "validation", "test"))
            for name, table in make_tables().items()
        }
        run = write_run(tmp_path, tables)
        validation, test = read_run(run, "validation"), read_run(run)
        assert (validation.source["counts"]["scans"], validation.is_test) == (4, False)
        assert test.source["counts"]["scans_of_validation_not_judged"] == 4
        assert not set(validation.scans["scan_id"]) & set(test.scans["scan_id"])

    def test_the_model_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "model.json").write_text(json.dumps({"name": "net", "hash": "abc", "settings": {}}))
        assert read_run(write_run(tmp_path)).source["model"] == {"name": "net", "hash": "abc"}

    def test_unknown_labels_are_counted(self, tmp_path: Path) -> None:
        tables = make_tables()
        tables["slices"].loc[:6, [f"label_{label}" for label in LABELS]] = np.nan
        assert read_run(write_run(tmp_path, tables)).source["counts"]["slices_without_any_label"] == 7


def change(name: str, row: int, column: str, value: object) -> Callable[[Tables], Tables]:
    def _change(tables: Tables) -> Tables:
        table = tables[name].astype({column: object})
        table.loc[row, column] = value
        return {**tables, name: table}

    return _change


def twice(name: str) -> Callable[[Tables], Tables]:
    return lambda tables: {**tables, name: pd.concat([tables[name], tables[name].iloc[[3]]])}


def without(name: str, rows: slice) -> Callable[[Tables], Tables]:
    return lambda tables: {**tables, name: tables[name].drop(index=tables[name].index[rows])}


class TestBadInput:
    @pytest.mark.parametrize(
        ("spoil", "code", "where"),
        [
            (change("slices", 7, "any", 1.5), "bad_probability", "slices.csv, line 9"),
            (change("slices", 7, "any", -0.01), "bad_probability", "slices.csv, line 9"),
            (change("slices", 7, "any", ""), "bad_probability", "slices.csv, line 9"),
            (change("scans", 2, "subdural", "high"), "bad_probability", "scans.csv, line 4"),
            (change("slices", 0, "encoder_any", 2), "bad_probability", "slices.csv, line 2"),
            (change("scans", 2, "label_subdural", 0.5), "bad_label", "scans.csv, line 4"),
            (change("scans", 2, "label_subdural", "yes"), "bad_label", "scans.csv, line 4"),
            (change("scans", 5, "patient_id", ""), "unknown_patients", "scans.csv, line 7"),
            (twice("slices"), "repeated_rows", "slices.csv, line "),
            (twice("scans"), "repeated_rows", "scans.csv, line "),
            (without("scans", slice(1, 2)), "unknown_scans", "slices.csv, line 7, 8, 9, 10, 11"),
            (without("slices", slice(0, 5)), "missing_slices", "scans.csv, line 2"),
            (lambda tables: {**tables, "scans": tables["scans"].drop(columns="any")}, "missing_columns", "scans.csv"),
            (lambda tables: {**tables, "scans": tables["scans"].assign(split="validation")}, "no_such_part", "scans.csv"),
            (lambda tables: {**tables, "scans": tables["scans"].iloc[:0]}, "no_rows", "scans.csv"),
            (lambda tables: {"scans": tables["scans"]}, "missing_predictions", "slices.csv"),
        ],
    )
    def test_stops_and_says_where(self, tmp_path: Path, spoil: Callable[[Tables], Tables], code: str, where: str) -> None:
        with pytest.raises(TableError) as caught:
            read_run(write_run(tmp_path, spoil(make_tables())))
        assert caught.value.code == code
        assert where in caught.value.where
        assert caught.value.todo or code == "no_rows"

    def test_ten_rows_are_named_and_all_counted(self, tmp_path: Path) -> None:
        tables = make_tables()
        tables["slices"]["any"] = 7.0
        with pytest.raises(TableError) as caught:
            read_run(write_run(tmp_path, tables))
        assert f"({len(tables['slices'])} rows)" in caught.value.got
        assert caught.value.where.count(",") == 10

    def test_predictions_without_labels_ask_for_them(self, tmp_path: Path) -> None:
        tables = {name: table[[c for c in table if not c.startswith("label_")]] for name, table in make_tables().items()}
        with pytest.raises(TableError, match="--labels") as caught:
            read_run(write_run(tmp_path, tables))
        assert caught.value.code == "no_labels"

    def test_a_text_that_is_no_table_stops(self, tmp_path: Path) -> None:
        run = write_run(tmp_path)
        (run / "predictions" / "scans.csv").write_bytes(b"\xff\xfe\x00\x01" * 20)
        with pytest.raises(TableError) as caught:
            read_run(run)
        assert caught.value.code == "unreadable_table"
