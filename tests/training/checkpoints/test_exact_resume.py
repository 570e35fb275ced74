"""A fit that was interrupted anywhere and resumed equals one that was not, bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fabricated import make_classifier
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from ich_lstm import ScanClassifier, ScanDataModule
from ich_lstm.data.loading.batches import Batches
from ich_lstm.training.checkpoints.callbacks import LastCheckpoint, PathlessCheckpoint

DROPOUT = {"encoder": {"dropout": 0.3}, "head": {"input_dropout": 0.3, "recurrent_dropout": 0.3, "output_dropout": 0.3}}


EPOCHS = 3


class Killed(Exception):
    """Stands for a kill: nothing more is saved."""


class KillAt(Callback):
    """Ends a fit in one hook, after it was called so many times."""

    def __init__(self, hook: str, calls: int) -> None:
        self.calls = calls
        setattr(self, hook, self._count)

    def _count(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.calls -= 1
        if self.calls == 0:
            raise Killed


class Rows(Callback):
    """The logged values of each validation."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.rows.append({name: float(value) for name, value in sorted(trainer.callback_metrics.items())})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": list(self.rows)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])


Result = tuple[dict[str, Tensor], list[dict[str, float]], float]


@pytest.fixture(scope="module")
def known() -> dict[str, Result]:
    """The results of fits that were not killed, by their settings."""
    return {}


@pytest.fixture
def whole(run: Callable[..., Result], known: dict[str, Result]) -> Callable[..., Result]:
    """The result of a fit that is not killed; each is fitted once."""

    def _whole(**changes: Any) -> Result:
        key = repr(changes)
        if key not in known:
            known[key] = run(**changes)
        return known[key]

    return _whole


@pytest.fixture
def run(data: Callable[..., ScanDataModule], tmp_path: Path) -> Callable[..., Result]:
    """Fit three epochs, kill the fit in a hook if one is given, and resume it until it ends."""

    def _run(
        *, kill: tuple[str, int] | None = None, trainer: dict[str, Any] | None = None, workers: int = 0, **changes: Any
    ) -> Result:
        folder = tmp_path / ("killed" if kill else "whole")
        resume = None
        while True:
            seed_everything(1 if resume is None else 99, verbose=False)
            classifier = make_classifier(**(DROPOUT | {"ema": 0.8} | changes))
            classifier.preprocessing = None
            rows = Rows()
            best = PathlessCheckpoint(dirpath=folder, filename="best", monitor="val/monitor", enable_version_counter=False)
            callbacks = [rows, best, LastCheckpoint(folder, minutes=0)]
            fit = Trainer(
                max_epochs=EPOCHS,
                accelerator="cpu",
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                callbacks=[*callbacks, *([KillAt(*kill)] if kill else [])],
                **{"num_sanity_val_steps": 0, **(trainer or {})},
            )
            module = data(num_workers=workers, batches=Batches(slices=12))
            try:
                fit.fit(classifier, module, ckpt_path=resume)
            except Killed:
                kill = None
                last = folder / "last.ckpt"
                resume = last if last.exists() else None
                continue
            return weights(classifier), rows.rows, float(best.best_model_score or 0)

    return _run


def weights(classifier: ScanClassifier) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in classifier.state_dict().items()}


def check_equal(one: Result, other: Result) -> None:
    assert one[0].keys() == other[0].keys()
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    assert one[1]
    assert repr(one[1]) == repr(other[1])  # NaN, too
    assert one[2] == other[2]


PLACES = [
    ("on_train_batch_start", 1),
    ("on_train_batch_start", 3),
    ("on_train_batch_end", 2),
    ("on_train_batch_end", 5),
    ("on_validation_start", 1),
    ("on_validation_batch_end", 1),
    ("on_validation_end", 2),
    ("on_train_epoch_end", 1),
    ("on_train_epoch_start", 2),
    ("on_train_end", 1),
]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
class TestExactResume:
    @pytest.mark.parametrize("place", PLACES, ids=str)
    def test_a_fit_killed_anywhere_ends_as_if_it_had_not_been(
        self, run: Callable[..., Result], whole: Callable[..., Result], place: tuple[str, int]
    ) -> None:
        check_equal(whole(), run(kill=place))

    @pytest.mark.parametrize(
        "place",
        [
            ("on_train_batch_start", 2),
            *(
                pytest.param(place, marks=pytest.mark.slow)
                for place in (("on_validation_start", 1), ("on_train_batch_end", 1), ("on_train_epoch_start", 2))
            ),
        ],
        ids=str,
    )
    @pytest.mark.parametrize(
        "changes",
        [
            {"trainer": {"accumulate_grad_batches": 2}},
            {"trainer": {"val_check_interval": 1}},
            {"trainer": {"num_sanity_val_steps": 2}},
            {"trainer": {"max_steps": 7}},
            {"trainer": {"limit_train_batches": 2, "check_val_every_n_epoch": 2}},
            {"workers": 2},
            {"ema": None, "encoder": {"slices_per_chunk": 5, "dropout": 0.3}},
        ],
        ids=str,
    )
    def test_in_every_way_of_fitting(
        self, run: Callable[..., Result], whole: Callable[..., Result], place: tuple[str, int], changes: dict[str, Any]
    ) -> None:
        check_equal(whole(**changes), run(kill=place, **changes))

    def test_the_same_seed_gives_the_same_fit_with_any_number_of_workers(
        self, run: Callable[..., Result], whole: Callable[..., Result]
    ) -> None:
        check_equal(whole(), run())
        check_equal(whole(), whole(workers=2))

    def test_without_the_place_in_the_checkpoint_it_would_not(
        self, run: Callable[..., Result], whole: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = whole()
        monkeypatch.setattr("ich_lstm.training.classifier.restore_place", lambda trainer, place: {})
        killed = run(kill=("on_train_batch_start", 3))
        assert not all(torch.equal(expected[0][name], killed[0][name]) for name in expected[0])
