"""The names by which labels can reference images."""

import numpy as np
import pandas as pd
import pytest

from ich_lstm.data.prepared.images import NOWHERE, SEVERAL, ImageTable


@pytest.fixture
def images() -> ImageTable:
    """A scan of two files, and a scan of one file that holds two slices; they share an accession number."""
    return ImageTable(
        pd.DataFrame(
            {
                "sop_uid": ["1.0", "1.1", "2#1", "2#2"],
                "series_uid": ["1.8", "1.9", "2.9", "2.9"],
                "study_uid": ["1", "1", "2", "2"],
                "accession_number": "A",
                "file": ["one/a.dcm", "one/b.dcm", "more/two.nii#1", "more/two.nii#2"],
                "shared": ["", "", "study_uid", "study_uid"],
                "cache": ["x", "x", "y", "y"],
            }
        )
    )


def rows_of(images: ImageTable, kind: str) -> dict[str, tuple[int, int]]:
    names = images.names(kind)
    return dict(zip(names["name"], zip(names["slice"].tolist(), names["scan"].tolist(), strict=True), strict=True))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sop_uid", {"1.0": (0, 0), "1.1": (1, 0), "2#1": (2, 1), "2#2": (3, 1), "2": (NOWHERE, 1)}),
        ("series_uid", {"1.8": (NOWHERE, 0), "1.9": (NOWHERE, 0), "2.9": (NOWHERE, 1)}),
        ("study_uid", {"1": (NOWHERE, 0), "2": (SEVERAL, SEVERAL)}),
        ("accession_number", {"A": (SEVERAL, SEVERAL)}),
        ("folder", {"one": (NOWHERE, 0), "more": (NOWHERE, 1)}),
    ],
)
def test_every_name_once_with_what_it_means(images: ImageTable, kind: str, expected: dict[str, tuple[int, int]]) -> None:
    assert rows_of(images, kind) == expected


def test_a_slice_whose_own_file_is_called_like_a_file_of_many(images: ImageTable) -> None:
    key = images.key.assign(file=["more/two.nii", "one/b.dcm", "more/two.nii#1", "more/two.nii#2"])
    assert rows_of(ImageTable(key), "file")["more/two.nii"] == (0, 0)


def test_scans_are_counted_as_they_come(images: ImageTable) -> None:
    np.testing.assert_array_equal(images.scan, [0, 0, 1, 1])
    assert images.of_scans("study_uid").tolist() == ["1", "2"]
