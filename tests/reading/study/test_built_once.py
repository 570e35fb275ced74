"""A header is read once from its file and built once for its study; a study is ranked once."""

import pickle
from collections import Counter
from pathlib import Path

import pytest
from dicom_files import make_series

from ich_lstm.reading import Series, Study, choose_series, index_source, load_scan, read_scan
from ich_lstm.reading.index import build
from ich_lstm.reading.ledger import header_table
from ich_lstm.reading.study import choose

SLICES = 8


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a header is read from a file or built from the table (by the file's name), and a series looked at by rules."""
    counts: Counter[str] = Counter()
    read, to_headers, facts_of = build.read_header, header_table.to_headers, choose.facts_of

    def counted_read(ref):
        counts[f"read {ref}"] += 1
        return read(ref)

    def counted_build(table):
        headers = to_headers(table)
        counts.update(f"built {header.source}" for header in headers)
        return headers

    def counted_facts(series):
        counts[f"ranked {series.series_uid}"] += 1
        return facts_of(series)

    monkeypatch.setattr(build, "read_header", counted_read)
    monkeypatch.setattr(header_table, "to_headers", counted_build)
    monkeypatch.setattr(choose, "facts_of", counted_facts)
    return counts


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A study of a brain and a bone series."""
    make_series(tmp_path / "a", SLICES)
    make_series(tmp_path / "b", SLICES, SeriesInstanceUID="1.2.3.100.2", ConvolutionKernel="H60s", SeriesNumber=3)
    return tmp_path


def kinds(counts: Counter[str], kind: str) -> list[int]:
    """How often each thing of a kind was done."""
    return [count for what, count in counts.items() if what.startswith(kind)]


def test_nothing_is_built_to_group_an_index_into_studies(source: Path, counts: Counter[str]) -> None:
    (study,) = index_source(source).studies()
    assert len(study.series) == 2
    assert kinds(counts, "read") == [1] * 2 * SLICES
    assert kinds(counts, "built") == []


def test_a_study_is_chosen_and_loaded_with_each_header_built_once(source: Path, counts: Counter[str]) -> None:
    index = index_source(source)
    for study in index.studies():
        series = choose_series(study, ledger=index.ledger).series
        scan = load_scan(series, ledger=index.ledger)
        by_uid = {header.sop_uid: header for header in series.headers}
        assert [by_uid[uid].instance_number for uid in scan.sop_uids] == list(range(1, SLICES + 1))
    assert index.ledger.counts() == {"used": SLICES, "skipped": SLICES, "refused": 0}
    assert kinds(counts, "read") == [1] * 2 * SLICES
    assert kinds(counts, "built") == [1] * 2 * SLICES
    assert kinds(counts, "ranked") == [1, 1]


def test_so_does_read_scan(source: Path, counts: Counter[str]) -> None:
    read_scan(source)
    assert [kinds(counts, kind) for kind in ("read", "built", "ranked")] == [[1] * 2 * SLICES, [1] * 2 * SLICES, [1, 1]]


def test_a_worker_builds_the_headers_of_its_own_series_alone(source: Path, counts: Counter[str]) -> None:
    (study,) = index_source(source).studies()
    series = pickle.loads(pickle.dumps(choose_series(study).series))
    counts.clear()
    load_scan(series)
    assert kinds(counts, "built") == [1] * SLICES


def test_a_series_of_two_kernels_is_split_without_building(tmp_path: Path, counts: Counter[str]) -> None:
    make_series(tmp_path / "a", 6, ConvolutionKernel="H31s")
    make_series(tmp_path / "b", 6, ConvolutionKernel="H60s", change=lambda i: {"SOPInstanceUID": f"9.{i + 1}"})
    (study,) = index_source(tmp_path).studies()
    assert [(series.qualifier, len(series)) for series in study.series] == [("H31s", 6), ("H60s", 6)]
    assert kinds(counts, "built") == []


def test_decoding_is_asked_for_and_then_held(source: Path, counts: Counter[str]) -> None:
    (study,) = index_source(source).studies()
    decoded = study.decoded()
    assert decoded == study
    assert decoded.decoded().series[0].headers is decoded.series[0].headers
    counts.clear()
    for series in decoded.series:
        assert [series.headers[i] for i in range(SLICES)] == list(series.headers)
    assert kinds(counts, "built") == []
    assert isinstance(decoded, Study)
    assert isinstance(decoded.series[0], Series)
    list(study.series[0].headers)  # an index that is not decoded holds none: it builds anew
    assert kinds(counts, "built") == [1] * SLICES
