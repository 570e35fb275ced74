"""The data module: from files and a table to batches."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from ich_lstm import ScanDataModule
from ich_lstm.data.batch import ScanBatch
from ich_lstm.data.prepared import PreparedFolder
from ich_lstm.errors import ConfigError, SourceError, TableError


@pytest.fixture
def module(prepared: PreparedFolder, phantom: Path):
    """A data module on the prepared phantom, set up."""

    def _module(**changes) -> ScanDataModule:
        settings = {"labels": str(phantom / "stage_2_train.csv"), "num_workers": 0, "slices_per_batch": 24, "split": (1, 1, 1)}
        data = ScanDataModule(str(prepared.folder), **(settings | changes))
        data.prepare_data()
        data.setup("fit")
        return data

    return _module


def ids_of(batches: list[ScanBatch]) -> list[str]:
    return [scan_id for batch in batches for scan_id in batch.scan_ids]


def bytes_of(batches: list[ScanBatch]) -> list[tuple]:
    return [(*(tensor.numpy().tobytes() for tensor in batch[:5]), *batch.scan_ids) for batch in batches]


class TestScanDataModule:
    def test_from_dicom_and_table(self, phantom: Path, heads, tmp_path: Path) -> None:
        data = ScanDataModule(
            str(phantom),
            size=16,
            num_workers=0,
            cache_dir=str(tmp_path / "cache"),
            project_key=str(tmp_path / "project.key"),
            split=(1, 1, 1),
        )
        steps = []
        data.progress = lambda what, done, total: steps.append(what)
        data.prepare_data()
        data.setup()
        assert {part: len(scans) for part, scans in data.scans.items()} == {"train": 2, "validation": 2, "test": 2}
        patients = Counter(scan.patient_id for scans in data.scans.values() for scan in scans)
        assert patients == Counter(head.patient_id for head in heads)
        assert "preparing scans" in steps
        (batch,) = data.train_dataloader()
        assert batch.hu.shape == (24, 16, 16)
        assert (tmp_path / "project.key").is_file()

    def test_prepared_folder_brings_its_preprocessing(self, module) -> None:
        assert module(size=999).preprocessing.size == 32

    def test_each_scan_once_in_its_part(self, module) -> None:
        data = module()
        for part, loader in (
            ("train", data.train_dataloader()),
            ("validation", data.val_dataloader()),
            ("test", data.test_dataloader()),
        ):
            assert sorted(ids_of(list(loader))) == sorted(scan.scan_id for scan in data.scans[part])
            assert sorted(ids_of(list(data.evaluation_loader(part)))) == sorted(scan.scan_id for scan in data.scans[part])

    def test_only_training_is_augmented(self, module) -> None:
        plain, augmented = module(augment=None), module()
        for loader in ("val_dataloader", "test_dataloader"):
            assert bytes_of(list(getattr(plain, loader)())) == bytes_of(list(getattr(augmented, loader)()))
        assert bytes_of(list(plain.train_dataloader())) != bytes_of(list(augmented.train_dataloader()))

    def test_no_patient_is_in_two_parts(self, module) -> None:
        parts = [{scan.patient_id for scan in scans} for scans in module().scans.values()]
        assert not parts[0] & parts[1]
        assert not parts[0] & parts[2]
        assert not parts[1] & parts[2]

    def test_setup_twice_is_setup_once(self, module) -> None:
        data = module()
        before = data.scans
        data.setup("test")
        assert data.scans is before

    def test_number_of_loader_processes_changes_nothing(self, module) -> None:
        here = bytes_of(list(module(num_workers=0, slices_per_batch=12).train_dataloader()))
        workers = module(num_workers=2, slices_per_batch=12).train_dataloader()
        assert bytes_of(list(workers)) == here
        del workers

    def test_budget_and_number_of_scans(self, module) -> None:
        data = module(split=(1, 0.01, 0), slices_per_batch=36, scans_per_batch=2)
        assert all(len(batch.lengths) <= 2 for batch in data.train_dataloader())
        assert all(int(batch.lengths.sum()) <= 36 for batch in data.train_dataloader())

    def test_labels_are_known_or_nan(self, module, prepared: PreparedFolder, tmp_path: Path) -> None:
        rows = prepared.key.groupby("series_uid", sort=False)["sop_uid"].first()
        table = tmp_path / "labels.csv"
        table.write_text("sop_uid,any\n" + "".join(f"{uid},{i % 2}\n" for i, uid in enumerate(rows)))
        (batch, *_) = module(labels=str(table)).train_dataloader()
        assert torch.isfinite(batch.slice_labels[:, -1]).sum() == len(batch.lengths)
        assert np.isin(batch.slice_labels[batch.slice_labels.isfinite()].numpy(), [0, 1]).all()


class TestRefused:
    def test_no_root(self) -> None:
        with pytest.raises(ConfigError):
            ScanDataModule().prepare_data()

    def test_missing_root(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError):
            ScanDataModule(str(tmp_path / "none")).prepare_data()

    def test_no_labels(self, prepared: PreparedFolder) -> None:
        data = ScanDataModule(str(prepared.folder))
        data.prepare_data()
        with pytest.raises(ConfigError) as caught:
            data.setup()
        assert caught.value.code == "no_labels"

    def test_labels_that_name_no_image(self, prepared: PreparedFolder, phantom: Path, tmp_path: Path) -> None:
        text = (phantom / "stage_2_train.csv").read_text()
        more = "".join(
            f"ID_none_{label},0\n"
            for label in ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")
        )
        (tmp_path / "labels.csv").write_text(text + more)
        settings = {"labels": str(tmp_path / "labels.csv"), "num_workers": 0}
        data = ScanDataModule(str(prepared.folder), **settings)
        with pytest.raises(TableError) as caught:
            data.setup()
        assert caught.value.code == "labels_without_image"
        data = ScanDataModule(str(prepared.folder), **settings, allow_missing=True)
        data.setup()
        assert sum(map(len, data.scans.values())) == 6

    @pytest.mark.parametrize("changes", [{"slices_per_batch": 0}, {"scans_per_batch": 0}, {"num_workers": -1}, {"size": 3}])
    def test_settings_out_of_range(self, changes: dict) -> None:
        with pytest.raises(ConfigError):
            ScanDataModule("somewhere", **changes)


def test_a_bad_file_that_the_ledger_names_does_not_stop_the_training(phantom: Path, tmp_path: Path) -> None:
    """RSNA's own set holds one file whose pixel data are too short, and labels for it."""
    root = tmp_path / "rsna"
    shutil.copytree(phantom, root)
    bad = sorted((root / "stage_2_train").iterdir())[5]
    bad.write_bytes(bad.read_bytes()[:-3000])
    data = ScanDataModule(str(root), size=32, num_workers=0, cache_dir=str(tmp_path / "cache"))
    data.prepare_data()
    data.setup()
    lengths = [len(scan.slice_labels) for scans in data.scans.values() for scan in scans]
    assert sum(lengths) == len(list((root / "stage_2_train").iterdir())) - 1


def test_loading_leaves_torch_s_random_state_alone(phantom: Path, tmp_path: Path) -> None:
    """Or dropout would depend on the number of loader processes."""
    data = ScanDataModule(str(phantom), size=32, num_workers=0, cache_dir=str(tmp_path / "cache"))
    data.prepare_data()
    data.setup()
    before = torch.get_rng_state()
    assert len(list(data.train_dataloader())) > 0
    assert torch.equal(before, torch.get_rng_state())
