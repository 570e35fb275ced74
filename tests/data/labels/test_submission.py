"""The submission to RSNA's challenge."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ich_lstm import LABELS
from ich_lstm.data.labels.submission import SampleSubmission, write_submission
from ich_lstm.errors import TableError

IMAGES = ("ID_c", "ID_a", "ID_b", "ID_d")


def rows_of(images: tuple[str, ...], labels: tuple[str, ...] = LABELS) -> list[str]:
    return [f"{image}_{label}" for image in images for label in labels]


def write_sample(path: Path, ids: list[str]) -> Path:
    path.write_text("\n".join(["ID,Label", *(f"{name},0.5" for name in ids)]) + "\n")
    return path


def make_predictions(images: tuple[str, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Random probabilities of two scans of these images, and their key."""
    probabilities = np.random.default_rng(1).random((len(images), len(LABELS)))
    scan = [f"scan{i % 2}" for i in range(len(images))]
    places = {"scan_id": scan, "slice": [i // 2 + 1 for i in range(len(images))]}
    slices = pd.DataFrame(places | dict(zip(LABELS, probabilities.T, strict=True)))
    return slices, pd.DataFrame(places | {"sop_uid": images}).iloc[::-1]


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[list[str]], TableError]:
    """Read a sample file that must be refused, and return the error."""

    def _refused(ids: list[str]) -> TableError:
        with pytest.raises(TableError) as caught:
            SampleSubmission.read(write_sample(tmp_path / "sample.csv", ids))
        return caught.value

    return _refused


class TestSampleSubmission:
    @pytest.mark.parametrize("bad", ["ID_a_some", "ID_a", "", "_any", "any"])
    def test_malformed_ids_stop(self, refused: Callable, bad: str) -> None:
        error = refused([*rows_of(("ID_a",)), bad])
        assert error.code == "bad_rsna_row"
        assert "line 8" in error.where

    def test_an_id_that_stands_twice_stops(self, refused: Callable) -> None:
        error = refused([*rows_of(("ID_a",)), "ID_a_any"])
        assert error.code == "repeated_rows"
        assert "line 8" in error.where

    def test_an_image_without_all_labels_stops(self, refused: Callable) -> None:
        error = refused([*rows_of(("ID_a",)), *rows_of(("ID_b",), LABELS[:5])])
        assert error.code == "incomplete_image"
        assert "line 8" in error.where

    def test_another_table_stops(self, tmp_path: Path) -> None:
        (tmp_path / "labels.csv").write_text("sop_uid,any\n1,0\n")
        for name, code in (("labels.csv", "missing_columns"), ("none.csv", "missing_table")):
            with pytest.raises(TableError) as caught:
                SampleSubmission.read(tmp_path / name)
            assert caught.value.code == code


class TestWriteSubmission:
    @pytest.mark.parametrize("shuffled", [False, True])
    def test_every_row_of_the_sample_in_its_order(self, tmp_path: Path, shuffled: bool) -> None:
        ids = rows_of(IMAGES)
        if shuffled:
            ids = np.random.default_rng(0).permutation(ids).tolist()
        slices, key = make_predictions(tuple(sorted(IMAGES)))
        sample = SampleSubmission.read(write_sample(tmp_path / "sample.csv", ids))
        lines = write_submission(slices, key, sample, tmp_path / "s.csv").read_bytes().decode().split("\n")
        assert (lines[0], lines[-1]) == ("ID,Label", "")
        got = dict(line.split(",") for line in lines[1:-1])
        assert list(got) == ids
        named = slices.merge(key).set_index("sop_uid")
        for name, probability in got.items():
            image, _, label = name.rpartition("_")
            assert float(probability) == named.loc[image, label]  # to the last bit

    def test_extreme_probabilities_keep_their_distance_from_0_and_1(self, tmp_path: Path) -> None:
        slices, key = make_predictions(("ID_a",))
        slices[list(LABELS)] = [[1e-15, 1 - 1e-15, 0.0, 1.0, 1 / 3, 0.5]]
        sample = SampleSubmission.read(write_sample(tmp_path / "sample.csv", rows_of(("ID_a",))))
        out = pd.read_csv(write_submission(slices, key, sample, tmp_path / "s.csv"), dtype=str)
        assert out["Label"].map(float).tolist() == [1e-15, 1 - 1e-15, 0.0, 1.0, 1 / 3, 0.5]

    def test_an_image_without_a_probability_is_never_given_one(self, tmp_path: Path) -> None:
        images = tuple(f"ID_{i:03}" for i in range(30))
        sample = SampleSubmission.read(write_sample(tmp_path / "sample.csv", rows_of(images)))
        with pytest.raises(TableError) as caught:
            write_submission(*make_predictions(images[:15]), sample, tmp_path / "s.csv")
        assert caught.value.code == "no_probability"
        assert "15 images" in caught.value.got
        assert sum(image in caught.value.got for image in images[15:]) == 10
        assert [path.name for path in tmp_path.iterdir()] == ["sample.csv"]

    def test_an_image_with_two_probabilities_stops(self, tmp_path: Path) -> None:
        slices, key = make_predictions(("ID_a", "ID_b"))
        sample = SampleSubmission.read(write_sample(tmp_path / "sample.csv", rows_of(("ID_a",))))
        with pytest.raises(TableError) as caught:
            write_submission(slices, key.assign(sop_uid="ID_a"), sample, tmp_path / "s.csv")
        assert caught.value.code == "several_probabilities"

    def test_images_that_are_not_asked_for_are_counted(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        sample = SampleSubmission.read(write_sample(tmp_path / "sample.csv", rows_of(("ID_a",))))
        write_submission(*make_predictions(("ID_a", "ID_b", "ID_c")), sample, tmp_path / "s.csv")
        assert "2 predicted images" in caplog.text
