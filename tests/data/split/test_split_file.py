"""A split that is kept."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ich_lstm.data.split.assign import SUBSETS
from ich_lstm.data.split.split_file import Split, SplitFile
from ich_lstm.errors import IchLstmError, SplitError
from ich_lstm.labels import LABELS

SHARES = (0.7, 0.15, 0.15)
KINDS = ({}, {"folds": 5}, {"by": "date"})


def patients(first: int, last: int) -> pd.DataFrame:
    """Patients of whom every third has a bleed and every twentieth an epidural one; a later number is a later date."""
    numbers = range(first, last)
    frame = pd.DataFrame(False, columns=list(LABELS), index=[f"P{i}" for i in numbers])
    frame["any"] = frame["subdural"] = [i % 3 == 0 for i in numbers]
    frame["epidural"] = [i % 20 == 0 for i in numbers]
    days = pd.Timestamp("2015-01-01") + pd.to_timedelta(list(numbers), unit="D")
    return frame.assign(study_date=days.strftime("%Y-%m-%d"))


USUAL = Split(fractions=SHARES, seed=3)


def make(known: pd.DataFrame, **changes) -> SplitFile:
    return SplitFile.make(known, replace(USUAL, **changes))


class TestSplitFile:
    @pytest.mark.parametrize("kind", KINDS)
    def test_is_read_as_it_was_written(self, kind: dict, tmp_path: Path) -> None:
        split = make(patients(0, 50), **kind)
        split.write(tmp_path / "private/split.json")
        assert SplitFile.read(tmp_path / "private/split.json") == split
        assert [path.name for path in (tmp_path / "private").iterdir()] == ["split.json"]
        assert (tmp_path / "private/split.json").stat().st_mode & 0o077 == 0

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_tenth_more_patients_move_nobody(self, kind: dict) -> None:
        before = make(patients(0, 1000), **kind)
        after = before.extended(patients(0, 1100))
        assert {patient: after.patients[patient] for patient in before.patients} == before.patients
        assert len(after.patients) == 1100
        assert after.extended(patients(0, 1100)) is after

    def test_new_patients_go_where_they_are_wanting(self) -> None:
        split = make(patients(0, 200)).extended(patients(0, 400))
        known = patients(0, 400)
        for wanted in (known.index, known.index[known["any"]], known.index[known["epidural"]]):
            counts = Counter(split.subsets()[patient] for patient in wanted)
            assert all(abs(counts[subset] - share * len(wanted)) <= 2 for subset, share in zip(SUBSETS, SHARES, strict=True))

    def test_new_patients_go_by_their_date(self) -> None:
        split = make(patients(0, 100), by="date")
        assert {split.extended(patients(300, 310)).subsets()[f"P{i}"] for i in range(300, 310)} == {"test"}

    def test_patients_who_are_gone_keep_their_part(self) -> None:
        split = make(patients(0, 100))
        assert split.extended(patients(50, 120)).patients.items() >= split.patients.items()

    def test_a_fold_is_held_out_and_the_next_validates(self) -> None:
        split = make(patients(0, 100), folds=4)
        for fold in range(4):
            subsets = split.subsets(fold)
            assert {split.patients[patient] for patient in subsets if subsets[patient] == "test"} == {fold}
            assert {split.patients[patient] for patient in subsets if subsets[patient] == "validation"} == {(fold + 1) % 4}
            assert Counter(subsets.values())["train"] == 50

    def test_no_such_fold(self) -> None:
        with pytest.raises(SplitError) as caught:
            make(patients(0, 20), folds=4).subsets(4)
        assert caught.value.code == "fold_out_of_range"

    def test_folds_by_date_are_refused(self) -> None:
        with pytest.raises(SplitError) as caught:
            make(patients(0, 20), folds=4, by="date")
        assert caught.value.code == "folds_by_date"


class TestDamaged:
    @pytest.mark.parametrize(
        "change",
        [
            lambda content: content["patients"].update(P3="test" if content["patients"]["P3"] != "test" else "train"),
            lambda content: content["patients"].pop("P3"),
            lambda content: content["patients"].update(stranger="train"),
            lambda content: content.update(seed=4),
            lambda content: content.update(fractions=[0.5, 0.25, 0.25]),
        ],
    )
    def test_a_change_by_hand_is_noticed(self, change, tmp_path: Path) -> None:
        path = tmp_path / "split.json"
        make(patients(0, 20)).write(path)
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        with pytest.raises(SplitError) as caught:
            SplitFile.read(path)
        assert caught.value.code == "split_file_changed"

    @pytest.mark.parametrize(
        "text", ["", "{}", "[]", "{", '{"sha256": "0", "format": 1, "patients": {"a": "train", "a": "test"}}']
    )
    def test_what_is_no_split_is_refused(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "split.json").write_text(text)
        with pytest.raises(SplitError) as caught:
            SplitFile.read(tmp_path / "split.json")
        assert caught.value.code == "split_file_unreadable"


class TestOpen:
    def test_without_a_file_it_is_made(self, tmp_path: Path) -> None:
        known = patients(0, 30)
        assert SplitFile.open(known, replace(USUAL, file=tmp_path / "none.json")) == make(known)
        assert list(tmp_path.iterdir()) == []

    def test_the_file_s_settings_count(self, tmp_path: Path) -> None:
        make(patients(0, 30)).write(tmp_path / "split.json")
        split = SplitFile.open(patients(0, 30), Split(file=tmp_path / "split.json", fractions=(1, 1, 1), seed=9))
        assert split == make(patients(0, 30))

    @pytest.mark.parametrize(("kept", "asked"), [({}, 5), ({"folds": 4}, 5)])
    def test_other_folds_are_refused(self, kept: dict, asked: int, tmp_path: Path) -> None:
        make(patients(0, 30), **kept).write(tmp_path / "split.json")
        with pytest.raises(SplitError) as caught:
            SplitFile.open(patients(0, 30), replace(USUAL, file=tmp_path / "split.json", folds=asked))
        assert caught.value.code == "split_file_differs"

    def test_a_split_of_other_patients_is_refused(self) -> None:
        with pytest.raises(SplitError) as caught:
            make(patients(0, 30)).extended(patients(30, 40))
        assert caught.value.code == "split_of_others"

    def test_new_patients_are_counted(self, caplog: pytest.LogCaptureFixture) -> None:
        make(patients(0, 30)).extended(patients(0, 34))
        assert "4 of 34 patients were not in the split file" in caplog.text


class TestOwnTable:
    def read(self, tmp_path: Path, text: str) -> SplitFile:
        (tmp_path / "split.csv").write_text(text)
        return SplitFile.read(tmp_path / "split.csv")

    def test_is_read_and_extended(self, tmp_path: Path) -> None:
        rows = "".join(f"P{i},{('train', 'train', 'val', 'test')[i % 4]}\n" for i in range(40))
        split = self.read(tmp_path, "patient_id,split\n" + rows + "P0,train\n")
        assert Counter(split.subsets().values()) == {"train": 20, "validation": 10, "test": 10}
        counts = Counter(split.extended(patients(0, 80)).subsets().values())
        assert counts == {"train": 40, "validation": 20, "test": 20}

    def test_a_patient_in_two_parts_stops_with_the_lines(self, tmp_path: Path) -> None:
        rows = "".join(f"P{i},train\nP{i},test\n" for i in range(8))
        with pytest.raises(SplitError, match=r"line 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 6 more: 8 patients") as caught:
            self.read(tmp_path, "patient_id,subset\n" + rows + "Q,validation\n")
        assert caught.value.code == "patient_in_two_parts"

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("patient_id,fold\nP1,2\n", "split_file_unreadable"),
            ("patient_id,subset\nP1,trian\n", "bad_part"),
            ("patient_id,subset\n,train\n", "bad_part"),
            ("patient_id,subset\nP1,train\nP2,test\n", "fractions_out_of_range"),
        ],
    )
    def test_malformed(self, text: str, code: str, tmp_path: Path) -> None:
        with pytest.raises(IchLstmError) as caught:
            self.read(tmp_path, text)
        assert caught.value.code == code

    @pytest.mark.parametrize("name", ["none.csv", "folder.csv"])
    def test_a_missing_file_or_a_folder_is_named(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "folder.csv").mkdir()
        with pytest.raises(SplitError, match=name) as caught:
            SplitFile.open(patients(0, 9), replace(USUAL, file=tmp_path / name))
        assert caught.value.code == "split_file_unreadable"
