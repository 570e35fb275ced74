"""What a run's folder tells of itself."""

from pathlib import Path

import pytest
from report_files import LEFT_OUT, PARTS, write_study

from ich_lstm.evaluation.run_facts import StudyFacts, read_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


def test_files_are_counted_by_what_became_of_them(study: Path) -> None:
    files = dict(read_study(study).files)
    assert files.pop("used") == read_study(study).prepared["slices"]
    assert sorted(files.values()) == sorted(LEFT_OUT.values())
    assert files["bone kernel"] == LEFT_OUT["bone_kernel"]


def test_without_a_ledger_the_manifest_counts(study: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"counts": {"files": {"used": 7, "skipped": 2, "refused": 0}}}')
    assert read_study(study, tmp_path).files == {"used": 7, "skipped": 2}


@pytest.mark.parametrize("part", ["", "model", "checkpoints/best.ckpt"])
def test_a_run_is_found_from_each_of_its_parts(study: Path, part: str) -> None:
    facts = read_study(study / part)
    assert facts.model["hash"] == "c0ffee12ab34"
    assert facts.subsets["train"] == PARTS["train"]


def test_what_is_missing_or_damaged_stays_unknown(tmp_path: Path) -> None:
    assert read_study(tmp_path) == read_study() == StudyFacts()
    for name in ("config.yaml", "results.json", "audit.json"):
        (tmp_path / name).write_text("[{")
    assert read_study(tmp_path) == StudyFacts()


@pytest.mark.parametrize("where", ["audit.json", "model/model.json"])
def test_synthetic_heads_are_known_as_such(tmp_path: Path, where: str) -> None:
    (tmp_path / "config.yaml").touch()
    (tmp_path / where).parent.mkdir(exist_ok=True)
    (tmp_path / where).write_text('{"synthetic": true, "is_synthetic": true}')
    assert read_study(tmp_path).is_synthetic
