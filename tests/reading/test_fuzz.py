"""Damaged files end in pixels or in a reason of the library's own; and so do all files that pydicom installs."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pydicom.data
import pytest

from ich_lstm.errors import IchLstmError
from ich_lstm.reading import FileRef, choose_series, index_source, load_scan, read_header, read_hu

INSTALLED = Path(pydicom.data.__file__).parent / "test_files"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / "fuzz_reading.py"
    spec = importlib.util.spec_from_file_location("fuzz_reading", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_reading"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("count", [250, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_files(script: ModuleType, count: int) -> None:
    report = script.fuzz(count, seed=7)
    assert report.findings == []
    assert sum(report.outcomes.values()) == count
    assert {"pixels", "scan", "truncated_pixels", "truncated_header"} <= set(report.outcomes)
    assert report.peak_bytes < 1e9


def test_a_case_is_the_same_each_time(script: ModuleType) -> None:
    seeds = script.sound_files(())
    assert [script.damaged(seeds, 3, case) for case in range(20)] == [script.damaged(seeds, 3, case) for case in range(20)]


def test_what_escapes_is_found(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seeds = script.sound_files(())

    def fail(header: object) -> None:
        raise KeyError("for a test")

    monkeypatch.setattr("ich_lstm.reading.read_hu", fail)
    outcomes = {script.read_case(tmp_path, seeds[:2], 3, case) for case in range(1, 15)}
    assert any(outcome.startswith("escape: KeyError") for outcome in outcomes)


@pytest.mark.parametrize("path", sorted(INSTALLED.rglob("*.dcm")), ids=lambda path: path.name)
def test_every_file_of_pydicom_is_read_or_has_a_reason(path: Path) -> None:
    outcome: object = None
    try:
        outcome = read_hu(read_header(FileRef(path)))[0].ndim
    except IchLstmError as error:
        outcome = error.detail
    assert outcome == 2 or isinstance(outcome, str)


def test_all_files_of_pydicom_at_once() -> None:
    index = index_source(INSTALLED)
    for study in index.studies():
        try:
            load_scan(choose_series(study, ledger=index.ledger).series, ledger=index.ledger)
        except IchLstmError:
            continue
    files = sum(path.is_file() for path in INSTALLED.rglob("*"))
    frame = index.ledger.to_frame()
    assert sum(index.ledger.counts().values()) == len(frame) >= files
    assert (frame[frame.action != "used"].code != "").all()
