"""A head that is trained on stored features: as on computed ones, for the price of one pass of the encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fabricated import make_classifier
from fits import Fit, Stop
from pytorch_lightning import Callback, LightningModule, Trainer

from ich_lstm import Batches, ScanClassifier, ScanDataModule
from ich_lstm.data.split.assign import is_left_to_head
from ich_lstm.errors import ConfigError
from ich_lstm.models.scan_model import ScanModel
from ich_lstm.training.checkpoints.callbacks import PathlessCheckpoint
from ich_lstm.training.features.stored_features import StoredFeatures, bytes_of_features
from ich_lstm.training.stages import Stage, fit_stages

FitMaker = Callable[..., Fit]


def on_stored(folder: Path, views: int = 0) -> Callable[[ScanClassifier], ScanClassifier]:
    """Choose the head as what is trained, on stored features."""

    def choose(classifier: ScanClassifier) -> ScanClassifier:
        classifier.choose_trained("head", stored=StoredFeatures(folder=folder, views=views))
        return classifier

    return choose


def head_alone(classifier: ScanClassifier) -> ScanClassifier:
    classifier.choose_trained("head")
    return classifier


class Encodings(Callback):
    """Counts the slices that the encoder has processed."""

    def __init__(self) -> None:
        self.slices = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        pl_module.model.encoder.register_forward_pre_hook(self._count)

    def _count(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.slices += len(inputs[0])


def watched_by(callback: Callback, *, epochs: int) -> dict[str, Any]:
    """Settings of a Trainer that writes nothing."""
    return {"max_epochs": epochs, "callbacks": [callback], "enable_checkpointing": False}


class TestTheSameResult:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"encoder": {"adjacent_slices": 1}},
            {"reduction": {"kind": "pca", "features": 4}, "head": {"encoder_probabilities": True}},
            {"ema": 0.8},
        ],
        ids=str,
    )
    def test_as_without_the_store_if_nothing_is_augmented(self, fit: FitMaker, tmp_path: Path, changes: dict[str, Any]) -> None:
        plain: dict[str, Any] = {"loading": {"augment": None}, "trainer": {"max_epochs": 3}}
        computed = fit(tmp_path / "computed", way=head_alone, **plain, **changes)
        stored = fit(tmp_path / "stored", way=on_stored(tmp_path / "features"), **plain, **changes)
        assert stored.seen == computed.seen
        assert stored.losses == pytest.approx(computed.losses, abs=1e-5)
        assert stored.monitored == pytest.approx(computed.monitored, abs=1e-5)

    def test_the_head_alone_has_changed(self, fit: FitMaker, tmp_path: Path) -> None:
        before = make_classifier().state_dict()
        after = fit(tmp_path, way=on_stored(tmp_path / "features")).classifier.state_dict()
        changed = {name.split(".")[1] for name in after if not torch.equal(before[name], after[name])}
        assert changed == {"sequence", "sequence_classifier", "gate", "pooling"} & {name.split(".")[1] for name in after}


class TestOnce:
    @pytest.mark.parametrize("views", [0, 1, 2])
    def test_each_scan_is_encoded_once_and_so_is_each_copy(
        self, fit: FitMaker, data: Callable[..., ScanDataModule], tmp_path: Path, views: int
    ) -> None:
        known = data()
        known.setup()
        training, validation = (sum(len(scan.slice_ids) for scan in known.scans[subset]) for subset in ("train", "validation"))
        for again in (False, True):
            count = Encodings()
            done = fit(
                tmp_path / f"{again}",
                way=on_stored(tmp_path / "features", views),
                trainer=watched_by(count, epochs=3),
            )
            assert count.slices == (0 if again else training * (views + 1) + validation)
            assert done.classifier.fits[-1].views == views
        stored = sum(path.stat().st_size for path in tmp_path.glob("features/*/*.features"))
        width = done.classifier.model.encoder.out_features
        assert stored == bytes_of_features(width, {"train": training, "validation": validation, "test": 0}, views)

    def test_another_encoder_is_encoded_anew(self, fit: FitMaker, tmp_path: Path) -> None:
        for seed in (0, 1):
            count = Encodings()
            way = on_stored(tmp_path / "features")
            fit(tmp_path / f"{seed}", way=way, seed=seed, trainer=watched_by(count, epochs=1))
            assert count.slices > 0
        assert len(list((tmp_path / "features").iterdir())) == 2

    def test_what_a_killed_fit_has_stored_is_used(self, fit: FitMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole, rest = Encodings(), Encodings()
        fit(tmp_path / "0", way=on_stored(tmp_path / "whole"), trainer=watched_by(whole, epochs=1))
        encode, calls = ScanModel.encode, []

        def killed(self: ScanModel, *given: Any) -> torch.Tensor:
            calls.append(len(given[0]))
            if len(calls) == 3:
                raise Stop
            return encode(self, *given)

        with monkeypatch.context() as patch:
            patch.setattr(ScanModel, "encode", killed)
            with pytest.raises(Stop):
                fit(tmp_path / "1", way=on_stored(tmp_path / "features"), trainer={"max_epochs": 1})
        fit(tmp_path / "2", way=on_stored(tmp_path / "features"), trainer=watched_by(rest, epochs=1))
        assert rest.slices == whole.slices - sum(calls[:2])


class TestCopies:
    def test_training_goes_through_all_of_them(self, data: Callable[..., ScanDataModule], fit: FitMaker, tmp_path: Path) -> None:
        """Each copy is the scan as its epoch augments it, and validation sees the scan as it is."""
        seen: list[dict[str, torch.Tensor]] = []

        class Look(Callback):
            def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
                seen.append({})

            def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, index: int) -> None:
                parts = batch.features.split(batch.lengths.tolist())
                seen[-1].update(dict(zip(batch.scan_ids, parts, strict=True)))

        done = fit(tmp_path, way=on_stored(tmp_path / "features", 2), trainer=watched_by(Look(), epochs=6))
        module, model = data(), done.classifier.model.eval()
        module.setup()
        for scan in module.scans["train"]:
            copies = [epoch[scan.scan_id] for epoch in seen]
            assert all(torch.equal(copies[i], copies[i + 3]) for i in range(3))
            with torch.no_grad():
                expected = [
                    model.encode(batch.hu, batch.lengths).half()
                    for view in range(3)
                    for batch in module.view_loader([scan], view)
                ]
            found = [[torch.equal(copy, view) for view in expected].index(True) for copy in copies[:3]]
            assert sorted(found) == [0, 1, 2]
        assert len({tuple(sorted(epoch)) for epoch in seen}) == 1
        assert len({float(epoch[scan.scan_id].sum()) for epoch in seen for scan in module.scans["train"]}) > 6

    def test_intensity_is_augmented_too(self, fit: FitMaker, tmp_path: Path) -> None:
        seen = []

        class Look(Callback):
            def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, index: int) -> None:
                seen.append(batch.features.sum().item())

        fit(
            tmp_path,
            way=on_stored(tmp_path / "features", 1),
            windows={"intensity": {"brightness": 0.3}},
            loading={"augment": None},
            slices=1000,
            trainer=watched_by(Look(), epochs=2),
        )
        assert seen[0] != seen[1]


class TestResumed:
    def test_inside_the_stage(self, fit: FitMaker, tmp_path: Path) -> None:
        way = on_stored(tmp_path / "features", 1)
        whole = fit(tmp_path / "whole", way=way)
        with pytest.raises(Stop):
            fit(tmp_path / "killed", way=way, stop=2)
        with pytest.warns(UserWarning, match="exists and is not empty"):
            resumed = fit(tmp_path / "killed", way=way, resume=True)
        assert resumed.monitored == whole.monitored
        for name, tensor in whole.classifier.state_dict().items():
            assert torch.equal(tensor, resumed.classifier.state_dict()[name]), name


class TestHeadShare:
    def test_no_scan_of_the_head_has_trained_the_encoder(self, data: Callable[..., ScanDataModule], tmp_path: Path) -> None:
        """The head learns from features as they are of a new scan."""
        seen: dict[str, set[str]] = {}

        class Look(Callback):
            def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, index: int) -> None:
                seen.setdefault(module.stage_name, set()).update(batch.scan_ids)

        def trainer_of(stage: Stage, is_last: bool) -> Trainer:
            best = PathlessCheckpoint(dirpath=tmp_path / stage.name, filename="best", monitor="val/monitor")
            return Trainer(max_epochs=1, accelerator="cpu", logger=False, callbacks=[Look(), best], enable_progress_bar=False)

        stages = [
            Stage(name="warm-up", max_epochs=1, train="encoder", patients="encoder"),
            Stage(name="head", max_epochs=1, train="head", features="stored", patients="head"),
            Stage(name="joint", max_epochs=1),
        ]
        module = data(head_share=0.5)
        classifier = make_classifier()
        classifier.preprocessing = None
        best = fit_stages(
            classifier,
            module,
            stages,
            trainer_of,
            best_of=lambda trainer: trainer.checkpoint_callback.best_model_path,
            stored=StoredFeatures(folder=tmp_path / "features"),
        )
        assert seen["warm-up"]
        assert seen["head"]
        assert not seen["warm-up"] & seen["head"]
        assert seen["joint"] == seen["warm-up"] | seen["head"] == {scan.scan_id for scan in module.scans["train"]}
        assert [fit.patients for fit in ScanClassifier.load(best).fits] == ["encoder", "head", "all"]

    @pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9])
    def test_is_about_the_share_and_no_patient_moves(self, share: float) -> None:
        chosen = [is_left_to_head(f"patient {number}", share, 0) for number in range(2000)]
        assert sum(chosen) / 2000 == pytest.approx(share, abs=0.03)
        more = [is_left_to_head(f"patient {number}", min(1.0, share + 0.1), 0) for number in range(2000)]
        assert all(later for now, later in zip(chosen, more, strict=True) if now)
        assert share == 0 or chosen != [is_left_to_head(f"patient {number}", share, 1) for number in range(2000)]

    def test_no_share_is_refused_before_anything_is_trained(self, data: Callable[..., ScanDataModule]) -> None:
        stages = [
            Stage(name="warm-up", max_epochs=1, train="encoder"),
            Stage(name="head", max_epochs=1, train="head", patients="head"),
        ]
        with pytest.raises(ConfigError, match=r"no_training_patients.*stages, head, patients"):
            fit_stages(make_classifier(), data(), stages, lambda stage, last: quick_trainer(), best_of=lambda trainer: "")

    def test_a_share_that_leaves_nobody_is_named(self, data: Callable[..., ScanDataModule]) -> None:
        module = data(head_share=1e-9)
        module.setup()
        module.training_patients = "head"
        with pytest.raises(ConfigError, match=r"no_training_patients.*1e-09 of 4 training patients"):
            module.train_dataloader()

    @pytest.mark.parametrize("share", [-0.1, 1.0])
    def test_a_share_is_checked(self, share: float) -> None:
        with pytest.raises(ConfigError, match="head_share_out_of_range"):
            ScanDataModule("somewhere", head_share=share)


class TestRefused:
    @pytest.mark.parametrize("trained", ["all", "encoder", "encoder-through-head"])
    def test_features_that_the_fit_changes(self, trained: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="features_change"):
            make_classifier().choose_trained(trained, stored=StoredFeatures(folder=tmp_path))  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"features_change.*stages, s, features"):
            Stage(name="s", max_epochs=1, train=trained, features="stored")  # type: ignore[arg-type]

    @pytest.mark.parametrize("settings", [{"views": 1}, {"views": -1, "features": "stored"}, {"features": "kept"}])
    def test_other_settings(self, settings: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match="stage_out_of_range"):
            Stage(name="s", max_epochs=1, train="head", **settings)

    def test_equal_copies(self, fit: FitMaker, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="equal_views"):
            fit(tmp_path, way=on_stored(tmp_path / "features", 2), loading={"augment": None})

    def test_mixed_pixels(self, data: Callable[..., ScanDataModule], tmp_path: Path) -> None:
        classifier = on_stored(tmp_path)(make_classifier())
        with pytest.raises(ConfigError, match="cutmix_of_features"):
            quick_trainer().fit(classifier, data(batches=Batches(slices=24, cutmix=1.0)))

    def test_a_fit_without_scan_data(self, tmp_path: Path) -> None:
        classifier = on_stored(tmp_path)(make_classifier())
        with pytest.raises(ConfigError, match="no_data"):
            quick_trainer().fit(classifier, torch.utils.data.DataLoader([0]), torch.utils.data.DataLoader([0]))

    def test_the_head_of_an_encoder_that_nobody_trained(self, data: Callable[..., ScanDataModule]) -> None:
        stages = [Stage(name="head", max_epochs=1, train="head")]
        with pytest.raises(ConfigError, match="untrained_encoder"):
            fit_stages(make_classifier(), data(), stages, lambda stage, last: quick_trainer(), best_of=lambda trainer: "")

    def test_no_folder(self, data: Callable[..., ScanDataModule]) -> None:
        stages = [
            Stage(name="warm-up", max_epochs=1, train="encoder"),
            Stage(name="head", max_epochs=1, train="head", features="stored"),
        ]
        with pytest.raises(ConfigError, match=r"no_place_for_features.*stages head"):
            fit_stages(make_classifier(), data(), stages, lambda stage, last: quick_trainer(), best_of=lambda trainer: "")

    @pytest.mark.parametrize(
        ("code", "views", "loading"),
        [("equal_views", 1, {"augment": None}), ("cutmix_of_features", 0, {"batches": Batches(slices=24, cutmix=1.0)})],
    )
    def test_before_the_stages_in_front_of_it(
        self, data: Callable[..., ScanDataModule], tmp_path: Path, code: str, views: int, loading: dict[str, Any]
    ) -> None:
        stages = [
            Stage(name="warm-up", max_epochs=1, train="encoder"),
            Stage(name="head", max_epochs=1, train="head", features="stored", views=views),
        ]

        def never(stage: Stage, is_last: bool) -> Trainer:
            raise AssertionError("a fit began")

        place = StoredFeatures(folder=tmp_path)
        with pytest.raises(ConfigError, match=code):
            fit_stages(make_classifier(), data(**loading), stages, never, best_of=lambda trainer: "", stored=place)


def quick_trainer() -> Trainer:
    return Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
