"""ScanClassifier: training and prediction."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from dicom_files import make_series
from fabricated import make_classifier, make_scan
from pytorch_lightning import Trainer

from ich_lstm import LABELS, ScanClassifier, ScanPrediction
from ich_lstm.errors import CheckpointError, ConfigError, SourceError, StudyError
from ich_lstm.evaluation.evaluate import predict_subset
from ich_lstm.evaluation.evidence import columns_of
from ich_lstm.statistics import log_loss, weighted_log_loss
from ich_lstm.training.optimizer import Optimizer, make_optimizer


class TestTraining:
    def test_the_loss_falls(self, trained) -> None:
        steps = len(trained.losses) // 4
        assert np.mean(trained.losses[-steps:]) < 0.8 * np.mean(trained.losses[:steps])

    def test_every_part_learns(self, trained) -> None:
        before, after = make_classifier().model.state_dict(), trained.classifier.model.state_dict()
        moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        assert moved == {name.split(".")[0] for name in before if not name.startswith("windows.")}

    def test_two_runs_with_one_seed_are_equal(self, fit, trained, tmp_path: Path) -> None:
        again = fit(tmp_path)
        assert again.losses == trained.losses
        assert again.classifier.weights_hash() == trained.classifier.weights_hash()

    def test_every_scan_once_per_epoch_in_another_order(self, trained) -> None:
        # Lightning has left the sampler alone, and told it the epochs.
        assert len(trained.seen) == 4
        assert all(Counter(epoch) == Counter(trained.seen[0]) for epoch in trained.seen)
        assert set(Counter(trained.seen[0]).values()) == {1}
        assert len({tuple(epoch) for epoch in trained.seen}) > 1

    def test_it_takes_over_how_the_data_were_prepared(self, trained) -> None:
        assert trained.classifier.preprocessing.size == 32

    def test_rates_rise_to_their_peaks_and_fall_along_a_cosine(self, fit, tmp_path: Path) -> None:
        rates = np.array(fit(tmp_path, optimizer={"warmup": 0.25, "lr": 1e-2, "encoder_lr": 1e-3}).rates)
        head, encoder = rates.max(axis=0).max(), rates.max(axis=0).min()
        assert (head, encoder) == pytest.approx((1e-2, 1e-3))
        share = rates[:, rates[0].argmax()] / 1e-2
        np.testing.assert_allclose(rates / rates.max(axis=0), np.repeat(share[:, None], rates.shape[1], axis=1), rtol=1e-9)
        steps, warm = len(share), len(share) // 4
        np.testing.assert_allclose(share[:warm], np.arange(1, warm + 1) / (warm + 1))
        np.testing.assert_allclose(
            share[warm:], [0.5 * (1 + math.cos(math.pi * i / (steps - warm))) for i in range(steps - warm)]
        )

    def test_a_model_without_head_trains_too(self, fit, tmp_path: Path) -> None:
        assert np.isfinite(fit(tmp_path, head={"class_path": "NoHead"}, trainer={"max_epochs": 1}).losses).all()

    def test_labels_of_scans_alone_train_the_encoder_too(self, fit, heads, tmp_path: Path) -> None:
        table = tmp_path / "labels.csv"
        table.write_text("series_uid,any\n" + "".join(f"{head.series_uid},{head.slice_labels[:, 5].max()}\n" for head in heads))
        done = fit(tmp_path, labels=str(table), trainer={"max_epochs": 1})
        assert np.isfinite(done.losses).all()
        assert np.isfinite(done.monitored).all()
        before, after = make_classifier().model.state_dict(), done.classifier.model.state_dict()
        assert any(
            not torch.equal(before[name], after[name]) for name in before if name.startswith("encoder.") and "conv" in name
        )


class TestLabelsKnownOnlyAsPresent:
    """A table with a column for one type: "any" is known where that type is present, and nowhere else."""

    TYPE = LABELS.index("intraparenchymal")

    @pytest.fixture
    def one_type(self, phantom: Path, tmp_path: Path) -> Path:
        table = pd.read_csv(phantom / "stage_2_train.csv")
        table[["image", "label"]] = table["ID"].str.rsplit("_", n=1, expand=True).to_numpy()
        images = table.loc[table["label"] == LABELS[self.TYPE], "image"]
        # Every third slice is called positive: what is shown does not matter here.
        labels = (np.arange(len(images)) % 3 == 0).astype(int)
        path = tmp_path / "one_type.csv"
        pd.DataFrame({"sop_uid": images, LABELS[self.TYPE]: labels}).to_csv(path, index=False)
        return path

    @pytest.fixture
    def done(self, fit, one_type: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
        found = fit(tmp_path / "fit", labels=str(one_type))
        assert "any: the training slices have no known negative" in caplog.text
        assert f"{LABELS[self.TYPE]}: the training slices" not in caplog.text
        return found

    def test_they_are_left_out_of_the_loss(self, done) -> None:
        assert np.isfinite(done.losses).all()
        # Biases have no weight decay, so only the loss can move them.
        for layer in ("sequence_classifier", "encoder_classifier"):
            before, after = (getattr(each.model, layer).bias for each in (make_classifier(), done.classifier))
            moved = (before != after.cpu()).tolist()
            assert moved == [k == self.TYPE for k in range(len(LABELS))], layer

    def test_the_monitored_loss_is_that_of_the_label_that_can_be_learned(self, done, data, one_type: Path) -> None:
        module = data(labels=str(one_type))
        trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
        (logged,) = trainer.validate(done.classifier, module, verbose=False)
        slices = predict_subset(done.classifier, module, "validation", hash_patient=str, coherent=False).slices
        labels, probabilities = columns_of(slices, "label_"), columns_of(slices, "")
        expected = log_loss(labels[:, self.TYPE], probabilities[:, self.TYPE]).value
        assert logged["val/monitor"] == pytest.approx(expected, abs=1e-5)
        assert logged["val/loss"] == pytest.approx(weighted_log_loss(labels, probabilities).value, abs=1e-5)
        assert abs(logged["val/loss"] - logged["val/monitor"]) > 1e-3

    def test_labels_that_are_known_both_ways_are_not_touched(self, trained, data) -> None:
        module = data()
        module.setup()
        assert not any(labels[LABELS.index("any")] for labels in module.never_absent().values())


class TestOptimizer:
    @pytest.fixture
    def groups(self):
        """Parameter names of each (rate, decay)."""

        def _groups(**changes) -> dict[tuple[float, float], set[str]]:
            classifier = make_classifier(**changes)
            names = {id(parameter): name for name, parameter in classifier.model.named_parameters()}

            class FewSteps:
                estimated_stepping_batches = 10

            classifier._trainer = FewSteps()  # type: ignore[assignment]
            optimizer = classifier.configure_optimizers()["optimizer"]
            found = {
                (group["initial_lr"], group["weight_decay"]): {names[id(parameter)] for parameter in group["params"]}
                for group in optimizer.param_groups
            }
            assert sum(map(len, found.values())) == len(names)
            return found

        return _groups

    def test_encoder_and_head_have_their_own_rates(self, groups) -> None:
        for (rate, _), names in groups(optimizer={"lr": 1e-2, "encoder_lr": 1e-3}).items():
            assert {name.startswith("encoder.") for name in names} == {rate == 1e-3}

    def test_biases_and_normalizations_do_not_decay(self, groups) -> None:
        found = groups(optimizer={"weight_decay": 0.1})
        still = set().union(*(names for (_, decay), names in found.items() if decay == 0))
        decaying = set().union(*(names for (_, decay), names in found.items() if decay == 0.1))
        assert {"gate", "sequence.norm.weight", "encoder_classifier.bias", "sequence.recurrence.bias_hh_l0"} <= still
        assert {"encoder_classifier.weight", "sequence.recurrence.weight_hh_l0", "encoder.network.conv1.0.weight"} <= decaying
        assert not [name for name in decaying if name.endswith("bias") or ".bn" in name]

    def test_equal_rates_leave_nothing_out(self, groups) -> None:
        assert groups(optimizer={"lr": 1e-3, "encoder_lr": 1e-3})

    @pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
    def test_gradients_are_clipped_in_every_precision(self, fit, tmp_path: Path, precision: str) -> None:
        """With a fused optimizer, Lightning would refuse to clip in mixed precision."""
        settings = {"max_epochs": 1, "precision": precision, "gradient_clip_val": 1.0}
        assert np.isfinite(fit(tmp_path, trainer=settings).losses).all()

    @pytest.mark.parametrize("kind", ["adamw", "adam"])
    def test_it_is_one_kernel_that_steps_as_the_plain_one(self, kind: str) -> None:
        found = []
        for _ in range(2):
            model = make_classifier(seed=1).model
            optimizer = make_optimizer(model, Optimizer(kind=kind))
            assert optimizer.defaults["fused"]
            for group in optimizer.param_groups:
                group["fused"] = not found  # the second one is the plain one
            for step in range(3):
                torch.manual_seed(step)
                for weight in model.parameters():
                    weight.grad = torch.randn_like(weight)
                optimizer.step()
            found.append(model.state_dict())
        for name, values in found[0].items():
            torch.testing.assert_close(values, found[1][name], rtol=1e-5, atol=1e-6, msg=name)

    @pytest.mark.parametrize(
        "changes",
        [
            {"optimizer": {"warmup": 1.0}},
            {"optimizer": {"warmup": -0.1}},
            {"optimizer": {"lr": -1}},
            {"optimizer": {"encoder_lr": -1}},
            {"optimizer": {"weight_decay": -1}},
        ],
    )
    def test_settings_out_of_range(self, changes: dict) -> None:
        with pytest.raises(ConfigError):
            make_classifier(**changes)


class TestPredict:
    def test_every_study_of_a_folder(self, phantom: Path, heads, project_key) -> None:
        classifier = make_classifier()
        predictions = {prediction.scan_id: prediction for prediction in classifier.predict(phantom, project_key=project_key)}
        assert len(predictions) == len(heads)
        for head in heads:
            prediction = predictions[project_key.hash_id(head.series_uid)]
            assert isinstance(prediction, ScanPrediction)
            assert prediction.slice_ids == tuple(project_key.hash_id(uid) for uid in head.sop_uids)
            assert prediction.patient_id == project_key.hash_id(head.patient_id)
            assert prediction.slice_probabilities.shape == (12, 6)
            assert (prediction.model_name, prediction.model_hash) == ("test_resnet", classifier.weights_hash())
            np.testing.assert_array_equal(prediction.hu, np.clip(head.hu, -1024, 3071))

    def test_as_from_the_cache(self, phantom: Path, trained, project_key) -> None:
        # What is trained on and what is predicted cannot diverge.
        module = trained.data()
        module.setup()
        predictions = {
            prediction.scan_id: prediction
            for prediction in trained.classifier.predict(phantom, project_key=project_key, coherent=False)
        }
        for batch in module.evaluation_loader("train"):
            with torch.inference_mode():
                logits = trained.classifier.eval()(batch)
            expected = torch.sigmoid(logits.slice_logits.double()).split(batch.lengths.tolist())
            for scan_id, probabilities in zip(batch.scan_ids, expected, strict=True):
                np.testing.assert_allclose(predictions[scan_id].slice_probabilities, probabilities, atol=1e-5)

    def test_the_mode_is_left_as_it_was(self, project_key) -> None:
        classifier = make_classifier()
        classifier.train()
        classifier.model.encoder.eval()  # frozen, for instance
        modes = [module.training for module in classifier.modules()]
        before = {name: value.clone() for name, value in classifier.state_dict().items()}
        list(classifier.predict(make_scan(), project_key=project_key))
        assert [module.training for module in classifier.modules()] == modes
        assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
        classifier.eval()
        list(classifier.predict(make_scan(), project_key=project_key))
        assert not classifier.training

    def test_the_mode_is_left_as_it_was_after_an_error(self, project_key, monkeypatch: pytest.MonkeyPatch) -> None:
        classifier = make_classifier().train()
        monkeypatch.setattr(classifier.model, "head", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(classifier.predict(make_scan(), project_key=project_key))
        assert classifier.training

    def test_training_mode_does_not_change_a_prediction(self, project_key) -> None:
        classifier = make_classifier(encoder={"dropout": 0.5}, head={"output_dropout": 0.5})
        (first,) = classifier.train().predict(make_scan(), project_key=project_key)
        (second,) = classifier.eval().predict(make_scan(), project_key=project_key)
        np.testing.assert_array_equal(first.slice_probabilities, second.slice_probabilities)

    def test_the_good_come_first_and_then_the_error(self, tmp_path: Path, project_key) -> None:
        make_series(tmp_path / "a", 6, StudyInstanceUID="1", SeriesInstanceUID="1.1", PixelSpacing=None)
        make_series(tmp_path / "b", 6, StudyInstanceUID="2", SeriesInstanceUID="2.1")
        make_series(
            tmp_path / "c", 6, StudyInstanceUID="3", SeriesInstanceUID="3.1", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
        )
        make_series(tmp_path / "d", 6, StudyInstanceUID="4", SeriesInstanceUID="4.1")
        got = []
        with pytest.raises(StudyError) as caught:
            got.extend(prediction.scan_id for prediction in make_classifier().predict(tmp_path, project_key=project_key))
        assert got == [project_key.hash_id("2.1"), project_key.hash_id("4.1")]
        assert "2 studies" in str(caught.value)

    def test_nothing_to_read(self, tmp_path: Path, project_key) -> None:
        for path in (tmp_path, tmp_path / "none"):
            with pytest.raises(SourceError):
                list(make_classifier().predict(path, project_key=project_key))

    def test_a_model_that_does_not_know_how_scans_are_prepared(self, project_key) -> None:
        classifier = make_classifier()
        classifier.preprocessing = None
        with pytest.raises(CheckpointError) as caught:
            list(classifier.predict(make_scan(), project_key=project_key))
        assert caught.value.code == "no_preprocessing"

    def test_one_slice_is_a_scan(self, project_key) -> None:
        scan = make_scan(np.full((1, 40, 40), 30, np.int16))
        (prediction,) = make_classifier().predict(scan, project_key=project_key)
        assert prediction.slice_probabilities.shape == (1, 6)

    def test_the_user_s_own_key_by_default(self, home: Path) -> None:
        (first,) = make_classifier().predict(make_scan())
        (second,) = make_classifier().predict(make_scan())
        assert first.scan_id == second.scan_id
        assert list(home.rglob("project.key"))

    def test_a_loaded_model_predicts_without_keeping_gradients(self, tmp_path: Path, project_key) -> None:
        make_classifier().save_pretrained(tmp_path)
        with torch.inference_mode():
            (prediction,) = ScanClassifier.load(tmp_path).predict(make_scan(), project_key=project_key)
        assert prediction.model_hash == make_classifier().weights_hash()
