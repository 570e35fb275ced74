"""ich-prepare from its command line to its folder."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from dicom_files import make_series

from ich_lstm.cli import prepare, train
from ich_lstm.data.prepared.folder import PreparedFolder
from ich_lstm.data.prepared.scan_cache import read_cached


def test_prepares_and_accounts(phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main([str(phantom), "--out", str(tmp_path / "out"), "--size", "48"]) == 0
    folder = PreparedFolder.open(tmp_path / "out")
    assert len(folder.scans) == 6
    assert read_cached(folder.scans[0].cache_path).hu.shape == (12, 48, 48)
    assert "6 scans" in capsys.readouterr().out
    ledger = pd.read_csv(tmp_path / "out/private/ledger.csv")
    assert len(ledger) == sum(1 for path in phantom.rglob("*") if path.is_file())


def test_something_refused_is_exit_code_3(phantom: Path, tmp_path: Path) -> None:
    shutil.copytree(phantom, tmp_path / "in")
    bad = sorted((tmp_path / "in/stage_2_train").iterdir())[0]
    bad.write_bytes(bad.read_bytes()[:-100])
    assert prepare.main([str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 3


def test_a_prepared_folder_can_be_trained_on(phantom: Path, tmp_path: Path) -> None:
    labels = ["--labels", str(phantom / "stage_2_train.csv")]
    assert prepare.main([str(phantom), "--out", str(tmp_path / "prepared"), "--size", "32", *labels]) == 0
    data = [
        "--data.root",
        str(tmp_path / "prepared"),
        "--data.labels",
        str(phantom / "stage_2_train.csv"),
        "--data.num_workers=0",
    ]
    model = [
        "--model.encoder.backbone=test_resnet",
        "--model.encoder.pretrained=false",
        "--model.head.hidden_size=8",
        "--model.head=GRU",
    ]
    trainer = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    assert train.main([*data, *model, *trainer, "--out", str(tmp_path / "run")]) == 0
    about = json.loads((tmp_path / "run/model/model.json").read_text())
    assert about["preprocessing"]["size"] == 32


@pytest.mark.parametrize("arguments", [[], ["somewhere"], ["somewhere", "--out", "there", "--size", "large"]])
def test_wrong_usage(arguments: list[str]) -> None:
    assert prepare.main(arguments) == 2


def test_clipped_and_with_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, name in enumerate(("PLAIN 5MM", "THIN STND")):
        make_series(tmp_path / f"in/study 1/{i}", SeriesInstanceUID=f"1.{i}", SeriesDescription=name)
    choices = tmp_path / "choices.csv"
    choices.write_text("study,series\nstudy 1,THIN STND\n")
    arguments = [str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--clip", "-250", "450", "--choices", str(choices)]
    assert prepare.main(arguments) == 0
    folder = PreparedFolder.open(tmp_path / "out")
    assert folder.preprocessing.clip == (-250, 450)
    assert [scan.series_uid for scan in folder.scans] == ["1.1"]
    hu = read_cached(folder.scans[0].cache_path).hu
    assert (hu.min(), hu.max()) == (-250, 450)
    choices.write_text("study,series\nstudy 9,THIN STND\n")
    assert prepare.main(arguments) == 1
    assert "'study 9'" in capsys.readouterr().err


def test_a_model_that_looks_beyond_the_clipped_hu_is_refused(
    phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = str(phantom / "stage_2_train.csv")
    prepared = ["--out", str(tmp_path / "prepared"), "--size", "32", "--clip", "-250", "450", "--labels", labels]
    assert prepare.main([str(phantom), *prepared]) == 0
    capsys.readouterr()
    model = [
        "--model.encoder.backbone=test_resnet",
        "--model.encoder.pretrained=false",
        "--model.head.hidden_size=8",
        "--trainer.max_epochs=1",
    ]
    cache = tmp_path / "cache"
    raw = [
        str(phantom),
        "--data.preprocessing.clip",
        "[-250, 450]",
        "--data.preprocessing.size=32",
        "--data.cache_dir",
        str(cache),
    ]
    for i, root in enumerate(([str(tmp_path / "prepared")], raw)):
        run = ["--data.root", *root, "--data.labels", labels, "--data.num_workers=0", "--out", str(tmp_path / f"run{i}")]
        assert train.main([*run, *model]) == 2
        said = capsys.readouterr().err
        assert "window_beyond_clip" in said
        assert "[-250, 450]" in said
        assert "width 2800" in said
    assert not cache.exists()  # before anything was cached


def test_a_check_knows_a_hospital_s_words(tmp_path: Path) -> None:
    make_series(tmp_path / "in", SeriesDescription="Protokoll 7b")
    table = tmp_path / "words.csv"
    table.write_text("kind,language,word\ncontrast,de,PROTOKOLL 7B\n")
    assert prepare.main([str(tmp_path / "in"), "--check"]) == 0
    assert prepare.main([str(tmp_path / "in"), "--check", "--vocabulary", str(table)]) == 3
    assert prepare.main([str(tmp_path / "in"), "--check"]) == 0


def test_a_check_into_the_source_does_not_count_its_own_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_series(tmp_path / "in/a")
    (tmp_path / "labels.csv").write_text("series_uid,any\n1.2.3.100.1,1\n")
    for labels in ([], [], ["--labels", str(tmp_path / "labels.csv")], ["--labels", str(tmp_path / "labels.csv")]):
        assert prepare.main([str(tmp_path / "in"), "--check", "--out", str(tmp_path / "in/checked"), *labels]) == 0
        assert capsys.readouterr().out.startswith("8 files: 8 used")


def test_missing_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main([str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]) == 1
    assert "SourceError[missing_path]" in capsys.readouterr().err


def test_a_mended_file_is_read_again(phantom: Path, tmp_path: Path) -> None:
    shutil.copytree(phantom, tmp_path / "in")
    victim = sorted((tmp_path / "in/stage_2_train").iterdir())[0]
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-100])
    arguments = [str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--size", "32"]
    assert prepare.main(arguments) == 3
    victim.write_bytes(whole)
    assert prepare.main(arguments) == 0
    assert len(PreparedFolder.open(tmp_path / "out").key) == len(list((phantom / "stage_2_train").iterdir()))


def test_other_pixels_under_the_same_uids_are_noticed(phantom: Path, tmp_path: Path) -> None:
    shutil.copytree(phantom, tmp_path / "in")
    arguments = [str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--size", "32", "--crop", "none"]
    assert prepare.main(arguments) == 0
    paths = [scan.cache_path for scan in PreparedFolder.open(tmp_path / "out").scans]
    before = [read_cached(path).hu.copy() for path in paths]
    victim = sorted((tmp_path / "in/stage_2_train").iterdir())[0]
    content = bytearray(victim.read_bytes())
    content[-4096:] = content[-8192:-4096]
    victim.write_bytes(bytes(content))
    assert prepare.main(arguments) == 0
    changed = [not (read_cached(path).hu == old).all() for path, old in zip(paths, before, strict=True)]
    assert sum(changed) == 1


def test_a_moved_source_is_not_counted_twice(phantom: Path, tmp_path: Path) -> None:
    shutil.copytree(phantom, tmp_path / "here")
    assert prepare.main([str(tmp_path / "here"), "--out", str(tmp_path / "out"), "--size", "32"]) == 0
    (tmp_path / "here").rename(tmp_path / "there ü")
    assert prepare.main([str(tmp_path / "there ü"), "--out", str(tmp_path / "out"), "--size", "32"]) == 0
    ledger = pd.read_csv(tmp_path / "out/private/ledger.csv")
    assert len(ledger) == sum(1 for path in phantom.rglob("*") if path.is_file())
    assert ledger["path"].str.contains("there ü").all()


def test_two_kernels_under_one_series_uid_are_two_scans(tmp_path: Path) -> None:
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}
    make_series(tmp_path / "in/soft", count=24, ConvolutionKernel="H30s", **uids)
    make_series(
        tmp_path / "in/bone", count=24, ConvolutionKernel="H60s", change=lambda i: {"SOPInstanceUID": f"1.2.3.4.9.{i}"}, **uids
    )
    (tmp_path / "labels.csv").write_text("file,any\nsoft/0.dcm,1\nbone/0.dcm,1\n")
    out = ["--unmatched", "images", "--out", str(tmp_path / "out"), "--size", "32", "--labels", str(tmp_path / "labels.csv")]
    assert prepare.main([str(tmp_path / "in"), *out]) == 0
    folder = PreparedFolder.open(tmp_path / "out")
    assert len({scan.scan_id for scan in folder.scans}) == len(folder.scans) == 2
