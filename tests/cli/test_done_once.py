"""One study through ich-predict: what is computed once, and what once more for heat maps."""

from collections import Counter
from pathlib import Path

import pytest
from dicom_files import make_series

from ich_lstm.cli import predict
from ich_lstm.inference import forward
from ich_lstm.models.encoder import SliceEncoder
from ich_lstm.reading.ledger import header_table
from ich_lstm.reading.study import choose

SLICES = 8


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many slices were encoded, and how often a scan was preprocessed, a header built, and a series ranked."""
    counts: Counter[str] = Counter()
    encode, preprocess = SliceEncoder.forward, forward.preprocess_scan
    to_headers, facts_of = header_table.to_headers, choose.facts_of

    def counted_encode(self, x):
        counts["slices encoded"] += len(x)
        return encode(self, x)

    def counted_preprocess(*given):
        counts["scans preprocessed"] += 1
        return preprocess(*given)

    def counted_build(table):
        headers = to_headers(table)
        counts["headers built"] += len(headers)
        return headers

    def counted_facts(series):
        counts["series ranked"] += 1
        return facts_of(series)

    monkeypatch.setattr(SliceEncoder, "forward", counted_encode)
    monkeypatch.setattr(forward, "preprocess_scan", counted_preprocess)
    monkeypatch.setattr(header_table, "to_headers", counted_build)
    monkeypatch.setattr(choose, "facts_of", counted_facts)
    return counts


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of a brain and a bone series."""
    make_series(tmp_path / "dicom/a", SLICES)
    make_series(tmp_path / "dicom/b", SLICES, SeriesInstanceUID="1.2.3.100.2", ConvolutionKernel="H60s", SeriesNumber=3)
    return tmp_path


@pytest.mark.parametrize(("heat_maps", "passes"), [("none", 1), ("all", 2)])
def test_nothing_is_done_twice(counts: Counter[str], study: Path, model_folder: Path, heat_maps: str, passes: int) -> None:
    options = ["--checkpoint", str(model_folder), "--out", str(study / "out"), "--heat-maps", heat_maps]
    assert predict.main([str(study / "dicom"), *options]) == 0
    assert counts == {
        "slices encoded": passes * SLICES,
        "scans preprocessed": 1,
        "headers built": 2 * SLICES,
        "series ranked": 2,
    }
