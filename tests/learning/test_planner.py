"""What fits into memory, on devices whose needs are known."""

from typing import Any

import pytest
import torch

from ich_lstm import ScanClassifier, ScanDataModule
from ich_lstm.errors import ConfigError
from ich_lstm.learning.planner import MOST_SLICES, SPARE, MemoryPlan, Trial, _measure, plan_memory

CPU = torch.device("cpu")
BASE, PER_SLICE, PER_KEPT = 100, 10, 0.2
"""Of a device's memory: the model, a slice of a chunk, a slice of the batch."""


def needs(trial: Trial) -> int:
    return int(BASE + PER_SLICE * (trial.chunk or trial.slices) + PER_KEPT * trial.slices)


def plan(available: int, **options: Any) -> tuple[MemoryPlan, list[Trial]]:
    tried: list[Trial] = []

    def measure(trial: Trial) -> int | None:
        tried.append(trial)
        return needs(trial) if needs(trial) < 4 * available else None  # far beyond, the process dies

    settings = {"size": 1, "device": CPU, "precision": "32-true", "measure": measure, "available": available}
    return plan_memory({}, **(settings | options)), tried


class TestPlan:
    @pytest.mark.parametrize("available", [200, 400, 1000, 3000, 5000])
    def test_fits_and_is_nearly_the_largest(self, available: int) -> None:
        found, tried = plan(available)
        assert found.needed == needs(Trial(found.slices_per_batch, found.slices_per_chunk, 1)) <= SPARE * available
        largest = (SPARE * available - BASE - PER_KEPT * found.slices_per_batch) / PER_SLICE
        assert found.slices_per_chunk >= largest / 2 - 1
        assert len(tried) <= 16

    def test_a_large_device_needs_no_chunks(self) -> None:
        found, _ = plan(100_000)
        assert (found.slices_per_chunk, found.slices_per_batch) == (None, MOST_SLICES)
        assert "--model.slices_per_chunk null" in str(found)

    def test_a_batch_that_is_settled_stays(self) -> None:
        found, _ = plan(1000, slices_per_batch=200)
        assert found.slices_per_batch == 200
        assert found.slices_per_chunk < 200

    def test_processes_share_the_memory(self) -> None:
        alone, _ = plan(4000)
        shared, _ = plan(4000, processes=2)
        assert shared.slices_per_chunk < alone.slices_per_chunk

    @pytest.mark.parametrize(("available", "options"), [(100, {}), (140, {"slices_per_batch": 512})])
    def test_too_little(self, available: int, options: dict) -> None:
        with pytest.raises(ConfigError) as caught:
            plan(available, **options)
        assert caught.value.code == "no_room"


def test_a_real_trial_is_a_process_of_its_own() -> None:
    settings = {"backbone": "resnet10t", "hidden_size": 8, "reduction": "pca", "reduced_features": 4}
    needed = _measure(settings, Trial(8, 4, 32), CPU, "32-true")
    assert needed is not None
    assert 100 * 2**20 < needed < 8 * 2**30


def test_auto_is_for_the_command_alone() -> None:
    for make in (
        lambda: ScanDataModule("x", "y", slices_per_batch="auto"),
        lambda: ScanClassifier(backbone="resnet10t", pretrained=False, slices_per_chunk="auto"),
    ):
        with pytest.raises(ConfigError) as caught:
            make()
        assert caught.value.code == "auto_unresolved"
        assert "--plan" in caught.value.todo
