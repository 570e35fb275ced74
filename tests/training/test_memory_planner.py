"""What fits into memory, on devices whose needs are known."""

import multiprocessing
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from fabricated import TINY

from ich_lstm import ScanDataModule
from ich_lstm.data.loading.batches import Batches
from ich_lstm.errors import ConfigError
from ich_lstm.models.encoder import Encoder
from ich_lstm.models.reduction import Reduction
from ich_lstm.training import memory_planner
from ich_lstm.training.memory_planner import MOST_SLICES, USABLE_SHARE, MemoryPlan, Trial, _child, _measure, plan_memory

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
    return plan_memory(TINY, **(settings | options)), tried


class TestPlan:
    @pytest.mark.parametrize("available", [200, 400, 1000, 3000, 5000])
    def test_fits_and_is_nearly_the_largest(self, available: int) -> None:
        found, tried = plan(available)
        assert found.needed == needs(Trial(found.slices_per_batch, found.slices_per_chunk, 1)) <= USABLE_SHARE * available
        largest = (USABLE_SHARE * available - BASE - PER_KEPT * found.slices_per_batch) / PER_SLICE
        assert found.slices_per_chunk >= largest / 2 - 1
        assert len(tried) <= 16

    def test_a_large_device_needs_no_chunks(self) -> None:
        found, _ = plan(100_000)
        assert (found.slices_per_chunk, found.slices_per_batch) == (None, MOST_SLICES)
        assert "--model.encoder.slices_per_chunk null" in str(found)

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


class TestTimeLimit:
    """What is known to fit when the time is over is the plan."""

    @pytest.fixture
    def slow(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """A clock that every trial moves on by a minute."""
        clock = [0.0]
        monkeypatch.setattr(memory_planner.time, "monotonic", lambda: clock[0])
        return clock

    @pytest.mark.parametrize(("minutes", "slices"), [(1, 1), (2, 4), (4, 64)])
    def test_the_largest_that_fits_is_the_plan(self, slow: list[float], minutes: int, slices: int) -> None:
        begun: list[Trial] = []

        def measure(trial: Trial) -> int:
            slow[0] += 60
            return needs(trial)

        found, _ = plan(100_000, seconds=60 * minutes, measure=measure, begin=begun.append)
        assert (found.slices_per_batch, found.slices_per_chunk) == (slices, None)
        assert [trial.slices for trial in begun] == [4**i for i in range(minutes)]

    @pytest.mark.parametrize(("seconds", "options"), [(0, {}), (120, {"slices_per_batch": 512})])
    def test_without_an_answer_it_says_so(self, slow: list[float], seconds: int, options: dict) -> None:
        def measure(trial: Trial) -> int:
            slow[0] += 60
            return needs(trial)

        with pytest.raises(ConfigError) as caught:
            plan(100_000, seconds=seconds, measure=measure, **options)
        assert caught.value.code == "plan_timeout"

    def test_a_trial_that_takes_too_long_is_ended(self) -> None:
        began = time.monotonic()
        with pytest.raises(memory_planner._OutOfTime):
            _measure(TINY, Trial(4096, None, 256), CPU, "32-true", began + 0.5)
        assert time.monotonic() - began < 20


class Answers(list):
    """The parent's end of a pipe."""

    send = list.append


class TestTrial:
    def test_is_a_process_of_its_own(self) -> None:
        """What this one holds does not count."""
        held = b"x" * (3 * 2**29)
        settings = replace(TINY, reduction=Reduction(kind="pca", features=4))
        needed = _measure(settings, Trial(8, 4, 32), CPU, "32-true")
        assert needed is not None
        assert 100 * 2**20 < needed < len(held)

    def test_too_large_does_not_fit(self) -> None:
        answers = Answers()
        _child(answers, TINY, Trial(10**9, None, 4096), "32-true")
        assert answers == [None]

    def test_what_fails_for_another_reason_is_told(self) -> None:
        """One slice of 32 x 32 leaves batch-norm one value, which torch refuses."""
        answers = Answers()
        _child(answers, TINY, Trial(1, None, 32), "32-true")
        assert answers[0].startswith("ValueError: Expected more than 1 value per channel")

    @pytest.mark.parametrize("code", [-9, 1])
    def test_that_ends_without_a_word(self, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Killed, it did not fit; otherwise nobody knows."""

        class Context:
            Pipe = staticmethod(multiprocessing.Pipe)

            class Process:
                exitcode = code

                def __init__(self, **_: Any) -> None: ...
                def start(self) -> None: ...
                def join(self) -> None: ...

        monkeypatch.setattr(memory_planner.multiprocessing, "get_context", lambda _: Context)
        if code < 0:
            assert _measure(TINY, Trial(1, None, 32), CPU, "32-true") is None
            return
        with pytest.raises(ConfigError) as caught:
            _measure(TINY, Trial(1, None, 32), CPU, "32-true")
        assert caught.value.code == "trial_failed"


def test_auto_is_for_the_command_alone() -> None:
    for make in (lambda: ScanDataModule("x", "y", batches=Batches(slices="auto")), lambda: Encoder(slices_per_chunk="auto")):
        with pytest.raises(ConfigError, match=r"'?auto'?.*a whole number"):
            make()
