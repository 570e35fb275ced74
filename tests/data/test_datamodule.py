"""The data module: from files and a table to batches."""

import json
import shutil
from collections import Counter
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from ich_lstm import LABELS, ScanDataModule
from ich_lstm.data.loading.balance import balanced_weights
from ich_lstm.data.loading.batch import ScanBatch
from ich_lstm.data.loading.batches import Batches
from ich_lstm.data.loading.loader import workers_for
from ich_lstm.data.prepared.folder import PreparedFolder
from ich_lstm.data.prepared.images import ImageTable
from ich_lstm.data.split.split_file import Split
from ich_lstm.errors import AuditError, ConfigError, SourceError, TableError
from ich_lstm.preprocessing.crop_and_resize import Preprocessing


@pytest.fixture
def module(prepared: PreparedFolder, phantom: Path):
    """A data module on the prepared phantom, set up."""

    def _module(**changes) -> ScanDataModule:
        settings = {
            "labels": str(phantom / "stage_2_train.csv"),
            "num_workers": 0,
            "batches": Batches(slices=24),
            "split": Split(fractions=(1, 1, 1)),
        }
        data = ScanDataModule(str(prepared.folder), **(settings | changes))
        data.prepare_data()
        data.setup("fit")
        return data

    return _module


def ids_of(batches: list[ScanBatch]) -> list[str]:
    return [scan_id for batch in batches for scan_id in batch.scan_ids]


def bytes_of(batches: list[ScanBatch]) -> list[tuple]:
    return [(*(tensor.numpy().tobytes() for tensor in batch[:6]), *batch.scan_ids) for batch in batches]


class TestScanDataModule:
    def test_from_dicom_and_table(self, phantom: Path, heads, tmp_path: Path) -> None:
        data = ScanDataModule(
            str(phantom),
            preprocessing=Preprocessing(size=16),
            num_workers=0,
            cache_dir=str(tmp_path / "cache"),
            project_key=str(tmp_path / "project.key"),
            split=Split(fractions=(1, 1, 1)),
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

    def test_what_was_prepared_is_not_read_back(self, phantom: Path, tmp_path: Path) -> None:
        paths = {"cache_dir": str(tmp_path / "cache"), "project_key": str(tmp_path / "project.key")}
        data = ScanDataModule(
            str(phantom), preprocessing=Preprocessing(size=16), num_workers=0, split=Split(fractions=(1, 1, 1)), **paths
        )
        data.prepare_data()
        for file in (tmp_path / "cache/private").iterdir():
            if file.is_file():
                file.unlink()
        data.setup()
        assert sum(map(len, data.scans.values())) == 6

    def test_labels_are_located_once(self, module, monkeypatch: pytest.MonkeyPatch) -> None:
        count = Mock(wraps=ImageTable.names)
        monkeypatch.setattr(ImageTable, "names", lambda images, kind: count(images, kind))
        module()
        assert [call.args[1] for call in count.call_args_list] == ["sop_uid"]

    def test_prepared_folder_brings_its_preprocessing(self, module) -> None:
        assert module().preprocessing.size == 32
        assert module(preprocessing=Preprocessing(size=32, crop="head")).preprocessing.size == 32

    @pytest.mark.parametrize("asked", [{"size": 999}, {"crop": "none"}, {"clip": (-100, 200)}], ids=str)
    def test_another_preprocessing_than_the_folder_s_is_refused(self, module, asked: dict) -> None:
        with pytest.raises(ConfigError) as caught:
            module(preprocessing=Preprocessing(**({"size": 32} | asked)))
        assert caught.value.code == "other_preprocessing"
        assert f"data.preprocessing.{next(iter(asked))}" in str(caught.value)

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

    @pytest.mark.parametrize(("cores", "expected"), [(1, 0), (2, 0), (4, 3), (64, 8)])
    def test_number_of_loader_processes_follows_the_machine(
        self, module, cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ich_lstm.data.datamodule.count_cores", lambda: cores)
        monkeypatch.setattr("torch._utils.cpu_count", lambda: cores)  # torch warns of more workers than it counts
        data = module(num_workers=None)
        assert data.train_dataloader().num_workers == data.val_dataloader().num_workers == expected
        assert module(num_workers=1).train_dataloader().num_workers == 1

    def test_training_processes_share_the_cores(self) -> None:
        assert [workers_for(16, processes) for processes in (1, 2, 4, 16)] == [8, 7, 3, 0]

    def test_number_of_loader_processes_changes_nothing(self, module) -> None:
        here = bytes_of(list(module(num_workers=0, batches=Batches(slices=12)).train_dataloader()))
        workers = module(num_workers=2, batches=Batches(slices=12)).train_dataloader()
        assert bytes_of(list(workers)) == here
        del workers

    def test_budget_and_number_of_scans(self, module) -> None:
        data = module(split=Split(fractions=(1, 0.01, 0)), batches=Batches(slices=36, scans=2))
        assert all(len(batch.lengths) <= 2 for batch in data.train_dataloader())
        assert all(int(batch.lengths.sum()) <= 36 for batch in data.train_dataloader())

    @pytest.mark.parametrize("settings", [{"slices_per_sample": 5}, {"slices_per_sample": 3, "sample": "random"}])
    def test_parts_in_training_and_whole_scans_in_evaluation(self, module, settings: dict) -> None:
        data = module(batches=Batches(slices=24, **settings))
        assert {int(length) for batch in data.train_dataloader() for length in batch.lengths} == {settings["slices_per_sample"]}
        for loader in (data.val_dataloader(), data.test_dataloader(), data.evaluation_loader("train")):
            assert {int(length) for batch in loader for length in batch.lengths} == {12}

    def test_every_slice_once_in_an_epoch(self, module) -> None:
        data = module(batches=Batches(slices_per_sample=5, sample="every", slices=10), augment=None)
        given = Counter(image.numpy().tobytes() for batch in data.train_dataloader() for image in batch.hu)
        whole = Counter(image.numpy().tobytes() for batch in data.evaluation_loader("train") for image in batch.hu)
        assert given == whole

    def test_balance(self, module) -> None:
        data = module(split=Split(fractions=(1, 0.01, 0)), batches=Batches(balance=True, slices=12))
        scans = data.scans["train"]
        weights = balanced_weights([scan.slice_labels for scan in scans], np.array([scan.scan_labels for scan in scans]))
        loader = data.train_dataloader()
        drawn: Counter = Counter()
        for epoch in range(10):
            loader.sampler.set_epoch(epoch)
            drawn.update(ids_of(list(loader)))
        assert np.ptp(weights) > 0.2
        np.testing.assert_allclose([drawn[scan.scan_id] for scan in scans], 10 * weights, atol=5)
        assert sorted(ids_of(list(data.evaluation_loader("train")))) == sorted(scan.scan_id for scan in scans)

    def test_cutmix_in_training_alone(self, module) -> None:
        plain, mixed = module(augment=None), module(augment=None, batches=Batches(slices=24, cutmix=1.0))
        for loader in ("val_dataloader", "test_dataloader"):
            assert bytes_of(list(getattr(plain, loader)())) == bytes_of(list(getattr(mixed, loader)()))
        (before,), (after,) = plain.train_dataloader(), mixed.train_dataloader()
        assert after.scan_ids == before.scan_ids
        assert (after.hu != before.hu).any()
        assert not torch.isin(after.slice_labels, torch.tensor([0.0, 1.0])).all()
        assert bytes_of(list(mixed.train_dataloader())) == bytes_of([after])

    def test_labels_are_known_or_nan(self, module, prepared: PreparedFolder, tmp_path: Path) -> None:
        rows = prepared.key.groupby("series_uid", sort=False)["sop_uid"].first()
        table = tmp_path / "labels.csv"
        table.write_text("sop_uid,any\n" + "".join(f"{uid},{i % 2}\n" for i, uid in enumerate(rows)))
        (batch, *_) = module(labels=str(table), unmatched="images").train_dataloader()
        assert torch.isfinite(batch.slice_labels[:, -1]).sum() == len(batch.lengths)
        assert np.isin(batch.slice_labels[batch.slice_labels.isfinite()].numpy(), [0, 1]).all()


class TestStages:
    def test_a_stage_is_batched_as_if_built_so(self, module) -> None:
        warm = Batches(slices=10, slices_per_sample=5, sample="every", balance=True, cutmix=1.0)
        data, usual = module(), module().batches
        before = bytes_of(list(data.train_dataloader()))
        data.batches = warm
        built_so = module(batches=warm)
        for loader in ("train_dataloader", "val_dataloader"):
            assert bytes_of(list(getattr(data, loader)())) == bytes_of(list(getattr(built_so, loader)()))
        data.batches = usual
        assert bytes_of(list(data.train_dataloader())) == before


def test_the_training_part_in_numbers(module) -> None:
    data = module(split=Split(fractions=(2, 1, 0)))
    described = data.describe_training()
    scans = data.scans["train"]
    assert described == json.loads(json.dumps(described))
    assert (described["patients"], described["scans"], described["slices"]) == (len({s.patient_id for s in scans}), 4, 48)
    for i, label in enumerate(LABELS):
        assert described["positive_scans"][label] == sum(scan.scan_labels[i] == 1 for scan in scans)
        assert described["positive_slices"][label] == sum(int((scan.slice_labels[:, i] == 1).sum()) for scan in scans)
    assert sum(described["positive_slices"].values()) > 0
    assert described["known_slice_labels"] == described["known_scan_labels"] == 1
    assert described["synthetic"] is data.is_synthetic
    assert not any(scan.patient_id in str(described) or scan.scan_id in str(described) for scan in scans)


class TestSplit:
    def patients(self, data: ScanDataModule) -> dict[str, set[str]]:
        return {part: {scan.patient_id for scan in scans} for part, scans in data.scans.items()}

    def test_the_run_s_seed_moves_nobody(self, module) -> None:
        assert self.patients(module(seed=1)) == self.patients(module(seed=2))
        assert any(
            self.patients(module(split=Split(fractions=(1, 1, 1), seed=seed))) != self.patients(module()) for seed in (1, 2, 3)
        )

    def test_a_split_file_is_made_and_then_kept(self, module, tmp_path: Path) -> None:
        path = tmp_path / "split.json"
        first = module(split=Split(fractions=(1, 1, 1), file=str(path), seed=1))
        text = path.read_text()
        again = module(split=Split(file=str(path), seed=2, fractions=(0.5, 0.5, 0)))
        assert self.patients(again) == self.patients(first)
        assert path.read_text() == text

    def test_every_patient_is_held_out_in_one_fold(self, module) -> None:
        held_out = [self.patients(module(split=Split(fractions=(1, 1, 1), folds=3, fold=fold)))["test"] for fold in range(3)]
        assert sum(map(len, held_out)) == len(set.union(*held_out)) == 6

    def test_a_table_of_one_s_own_decides(self, module, tmp_path: Path) -> None:
        patients = sorted(set.union(*self.patients(module()).values()))
        rows = [f"{patient},{'train' if i < 4 else 'validation'}" for i, patient in enumerate(patients)]
        (tmp_path / "split.csv").write_text("patient_id,part\n" + "\n".join(rows))
        data = module(split=Split(fractions=(1, 1, 1), file=str(tmp_path / "split.csv")))
        assert self.patients(data) == {"train": set(patients[:4]), "validation": set(patients[4:]), "test": set()}

    def test_the_audit_is_there_after_setup(self, module) -> None:
        data = module()
        assert data.audit.stops == ()
        assert data.audit.summary["parts"]["train"]["patients"] == 2
        assert data.patients.subsets().keys() == set.union(*self.patients(data).values())


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
        with pytest.raises(AuditError) as caught:
            data.setup()
        assert caught.value.code == "labels_without_image"
        data = ScanDataModule(str(prepared.folder), **settings, unmatched="labels")
        data.setup()
        assert sum(map(len, data.scans.values())) == 6

    @pytest.mark.parametrize(
        "changes",
        [
            *({"slices": 0}, {"slices": "auto"}, {"scans": 0}, {"slices_per_sample": 0}, {"sample": "some"}),
            *({"cutmix": -0.1}, {"cutmix": float("nan")}, {"cutmix": float("inf")}),
        ],
    )
    def test_batches_out_of_range(self, changes: dict) -> None:
        with pytest.raises(ConfigError):
            Batches(**changes)

    def test_other_settings_out_of_range(self) -> None:
        with pytest.raises(ConfigError):
            ScanDataModule("somewhere", num_workers=-1)
        with pytest.raises(ConfigError):
            Preprocessing(size=3)


def test_a_bad_file_that_the_ledger_names_does_not_stop_the_training(phantom: Path, tmp_path: Path) -> None:
    """RSNA's own set holds one file whose pixel data are too short, and labels for it."""
    root = tmp_path / "rsna"
    shutil.copytree(phantom, root)
    bad = sorted((root / "stage_2_train").iterdir())[5]
    bad.write_bytes(bad.read_bytes()[:-3000])
    data = ScanDataModule(str(root), preprocessing=Preprocessing(size=32), num_workers=0, cache_dir=str(tmp_path / "cache"))
    data.prepare_data()
    data.setup()
    lengths = [len(scan.slice_labels) for scans in data.scans.values() for scan in scans]
    assert sum(lengths) == len(list((root / "stage_2_train").iterdir())) - 1


def test_loading_leaves_torch_s_random_state_alone(phantom: Path, tmp_path: Path) -> None:
    """Or dropout would depend on the number of loader processes."""
    data = ScanDataModule(str(phantom), preprocessing=Preprocessing(size=32), num_workers=0, cache_dir=str(tmp_path / "cache"))
    data.prepare_data()
    data.setup()
    before = torch.get_rng_state()
    assert len(list(data.train_dataloader())) > 0
    assert torch.equal(before, torch.get_rng_state())


class TestLabelFiles:
    def test_several_count_together(self, module, phantom: Path, prepared: PreparedFolder, tmp_path: Path) -> None:
        rows = (phantom / "stage_2_train.csv").read_text().splitlines()
        by_any = [row.replace("_any,", ",") for row in rows if "_any," in row]
        by_any = [f"{name},{value}" for name, _, value in (row.rpartition(",") for row in by_any)]
        (tmp_path / "any.csv").write_text("\n".join(["sop_uid,any", *by_any]) + "\n")
        first = prepared.scans[0]
        (tmp_path / "scans.csv").write_text(f"series_uid,study_date,any\n{first.series_uid},20200229,\n")
        data = module(labels=[str(tmp_path / "any.csv"), str(tmp_path / "scans.csv")])
        scans = {scan.scan_id: scan for scans in data.scans.values() for scan in scans}
        assert len(scans) == len(prepared.scans)
        assert scans[first.scan_id].study_date == "2020-02-29"

    def test_those_that_contradict_each_other_stop(self, module, phantom: Path, prepared: PreparedFolder, tmp_path: Path) -> None:
        (tmp_path / "scans.csv").write_text("".join(["series_uid,any\n", *(f"{s.series_uid},0\n" for s in prepared.scans)]))
        with pytest.raises(TableError) as caught:
            module(labels=[str(phantom / "stage_2_train.csv"), str(tmp_path / "scans.csv")])
        assert caught.value.code == "contradicting_rows"
        assert "scans.csv:" in caught.value.where

    def test_a_type_without_any_may_be_repaired(self, module, phantom: Path, tmp_path: Path) -> None:
        rows = (phantom / "stage_2_train.csv").read_text().splitlines()
        path = tmp_path / "stage_2_train.csv"
        path.write_text("\n".join(row[:-1] + "0" if "_any," in row else row for row in rows) + "\n")
        with pytest.raises(TableError) as caught:
            module(labels=str(path))
        assert caught.value.code == "any_contradicts_types"
        right, repaired = (
            {scan.scan_id: scan.slice_labels.tolist() for scans in data.scans.values() for scan in scans}
            for data in (module(), module(labels=str(path), repair_any=True))
        )
        assert repaired == right
