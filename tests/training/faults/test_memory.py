"""Memory that runs out: the batch is repeated with smaller chunks, as if these had been chosen from the start."""

import logging
import os
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from fits import Fit
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from ich_lstm import ScanClassifier
from ich_lstm.errors import TrainingError
from ich_lstm.unexpected import is_out_of_memory

FitMaker = Callable[..., Fit]

ROOM = 12
"""The number of slices that fit into the memory of `Allocator`; batches have 24."""

MESSAGES: list[Callable[[], BaseException]] = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    lambda: RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
    lambda: MemoryError(),
]


class Allocator(Callback):
    """Fails as an allocator does, if the encoder holds more slices than there is room for.

    Args:
        moment: ``forward``, ``backward`` (of the encoder, with the head's gradients computed already), ``recompute`` (in a
            backward pass, with chunks), ``head``.
        batches: Numbers of the batches in which memory is short.
    """

    def __init__(self, moment: str, batches: set[int], error: Callable[[], BaseException] = MESSAGES[0]) -> None:
        self.moment, self.batches, self.error = moment, batches, error
        self.room = ROOM
        self.number = -1
        self.failures = 0

    def fail(self) -> None:
        self.failures += 1
        raise self.error()

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        seen = {"slices": 0}

        def before(_: Any, args: Any) -> None:
            seen["slices"] = len(args[0])
            is_short = self.number in self.batches and module.training and len(args[0]) > self.room
            if is_short and self.moment == "recompute" and torch._C._current_graph_task_id() != -1:
                self.fail()

        def after(_: Any, args: Any, out: torch.Tensor) -> None:
            is_short = self.number in self.batches and module.training and len(args[0]) > self.room
            if is_short and self.moment == "forward":
                self.fail()  # the running statistics have been updated
            if is_short and self.moment == "backward" and out.requires_grad:
                out.register_hook(lambda _: self.fail())

        def in_head(_: Any, args: Any) -> None:
            if self.number in self.batches and module.training and self.moment == "head" and seen["slices"] > self.room:
                self.fail()  # the dropout of the features has been drawn

        self.handles = [
            module.model.encoder.register_forward_pre_hook(before),
            module.model.encoder.register_forward_hook(after),
            module.model.sequence.register_forward_pre_hook(in_head),
        ]

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_index: int) -> None:
        self.number += 1


class ChosenAt(Callback):
    """Sets the smaller chunks before a batch, as a user might have."""

    def __init__(self, batch: int, chunk: int) -> None:
        self.batch, self.chunk, self.number = batch, chunk, -1

    def on_train_batch_start(self, trainer: Trainer, module: ScanClassifier, *_: Any) -> None:
        self.number += 1
        if self.number == self.batch:
            module.change_training({"encoder": {"slices_per_chunk": self.chunk}})


def weights_of(fit: Fit) -> dict[str, torch.Tensor]:
    return fit.classifier.state_dict()


DROPOUT = {"dropout": 0.4}


def few_quick(cases: Iterable[tuple[Any, ...]], *, every: int) -> list[Any]:
    """The cases of a test, all but every n-th of them marked as slow."""
    return [pytest.param(*case, marks=pytest.mark.slow if i % every else ()) for i, case in enumerate(cases)]


class TestTheRepeatedBatch:
    @pytest.mark.timeout(120)
    @pytest.mark.parametrize(
        ("moment", "at", "batch_norm"),
        few_quick(product(("forward", "backward", "head", "recompute"), (0, 1, 2), ("batch", "frozen")), every=5),
    )
    def test_equals_the_one_with_smaller_chunks(
        self, fit: FitMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture, moment: str, at: int, batch_norm: str
    ) -> None:
        """Weights, running statistics and, with dropout, all draws are equal bit for bit."""
        # With chunks, a backward pass computes the encoder again; these begin with 24 slices in one chunk.
        first = 100 if moment == "recompute" else None
        encoder = {"batch_norm": batch_norm, "slices_per_chunk": first, **DROPOUT}
        allocator = Allocator(moment, set(range(at, 100)))
        settings = {"max_epochs": 2, "enable_checkpointing": False}
        with caplog.at_level(logging.WARNING, logger="ich_lstm"):
            done = fit(tmp_path, encoder=encoder, ema=0.9, trainer={**settings, "callbacks": [allocator]})
        assert allocator.failures == 1
        wanted = fit(tmp_path, encoder=encoder, ema=0.9, trainer={**settings, "callbacks": [ChosenAt(at, 12)]})
        for name, tensor in weights_of(wanted).items():
            assert torch.equal(tensor, weights_of(done)[name]), name
        assert done.classifier.settings.encoder.slices_per_chunk == 12
        assert done.classifier.fits[-1].reduced_chunk == 12
        (told,) = [record.getMessage() for record in caplog.records if "out of memory" in record.getMessage()]
        assert "slices_per_chunk=12" in told

    @pytest.mark.timeout(120)
    @pytest.mark.parametrize(
        ("moment", "at", "error"), few_quick(product(("forward", "backward", "head"), (1, 2, 5), MESSAGES), every=5)
    )
    def test_keeps_the_gradients_of_its_window(self, fit: FitMaker, tmp_path: Path, moment: str, at: int, error: Any) -> None:
        """Batches of 24 slices, three in a window."""
        allocator = Allocator(moment, set(range(at, 100)), error)
        settings = {"max_epochs": 2, "enable_checkpointing": False, "accumulate_grad_batches": 3}
        encoder = {"batch_norm": "frozen", **DROPOUT}
        done = fit(tmp_path, encoder=encoder, trainer={**settings, "max_epochs": 4, "callbacks": [allocator]})
        assert allocator.failures == 1
        wanted = fit(tmp_path, encoder=encoder, trainer={**settings, "max_epochs": 4, "callbacks": [ChosenAt(at, 12)]})
        for name, tensor in weights_of(wanted).items():
            assert torch.equal(tensor, weights_of(done)[name]), name

    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
    def test_in_every_precision(self, fit: FitMaker, tmp_path: Path, precision: str) -> None:
        settings = {"max_epochs": 2, "enable_checkpointing": False, "precision": precision}
        done = fit(tmp_path, trainer={**settings, "callbacks": [Allocator("backward", {1, 2, 3})]})
        wanted = fit(tmp_path, trainer={**settings, "callbacks": [ChosenAt(1, 12)]})
        for name, tensor in weights_of(wanted).items():
            assert torch.equal(tensor, weights_of(done)[name]), name

    @pytest.mark.timeout(120)
    def test_with_frozen_statistics_equals_the_whole_batch(self, fit: FitMaker, tmp_path: Path) -> None:
        settings = {"max_epochs": 2, "enable_checkpointing": False, "precision": "64-true"}
        encoder = {"batch_norm": "frozen"}
        done = fit(tmp_path, encoder=encoder, trainer={**settings, "callbacks": [Allocator("backward", set(range(100)))]})
        wanted = fit(tmp_path, encoder=encoder, trainer=settings | {"callbacks": []})
        for name, tensor in weights_of(wanted).items():
            torch.testing.assert_close(tensor, weights_of(done)[name], atol=1e-9, rtol=0)


class TestNoRoomAtAll:
    @pytest.mark.timeout(120)
    @pytest.mark.parametrize(
        "moment", ["backward", *(pytest.param(moment, marks=pytest.mark.slow) for moment in ("forward", "head"))]
    )
    def test_ends_with_advice(self, fit: FitMaker, tmp_path: Path, moment: str) -> None:
        allocator = Allocator(moment, set(range(100)))
        allocator.room = 0
        with pytest.raises(TrainingError) as error:
            fit(tmp_path, encoder={"batch_norm": "frozen"}, trainer={"max_epochs": 2, "callbacks": [allocator]})
        assert allocator.failures == 5  # 24, 12, 6, 3 and 1 slices
        assert error.value.code == "out_of_memory"
        assert "chunks of 1" in str(error.value)
        assert "data.batches.slices" in str(error.value)

    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("moment", ["forward", "backward", "head"])
    def test_synchronized_statistics_have_no_chunks(self, fit: FitMaker, tmp_path: Path, moment: str) -> None:
        with pytest.raises(TrainingError, match="checkpoint_blocks=true") as error:
            fit(
                tmp_path,
                encoder={"batch_norm": "synchronized"},
                trainer={"max_epochs": 2, "callbacks": [Allocator(moment, set(range(100)))]},
            )
        assert error.value.code == "out_of_memory"

    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("moment", ["forward", "backward", "head"])
    def test_several_processes_repeat_nothing_and_say_what_to_set(self, fit: FitMaker, tmp_path: Path, moment: str) -> None:
        """A strategy for several processes, here with one, as each of many would have it."""
        trainer = {"max_epochs": 2, "strategy": "ddp", "devices": 1, "callbacks": [Allocator(moment, set(range(100)))]}
        # Lightning leaves its variables and the process group behind, and later tests would count as one process of several.
        with mock.patch.dict(os.environ):
            try:
                with pytest.raises(TrainingError, match="slices_per_chunk=12") as error:
                    fit(tmp_path, trainer=trainer)
            finally:
                torch.distributed.destroy_process_group()
        assert error.value.code == "out_of_memory"

    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("moment", ["forward", "backward", "head"])
    def test_other_errors_are_left_alone(self, fit: FitMaker, tmp_path: Path, moment: str) -> None:
        allocator = Allocator(moment, {1}, lambda: RuntimeError("a fault of its own"))
        with pytest.raises(RuntimeError, match="a fault of its own"):
            fit(tmp_path, trainer={"max_epochs": 2, "callbacks": [allocator]})
        assert allocator.failures == 1


class TestResuming:
    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("given", [None, 20, 4])
    def test_a_resumed_fit_keeps_the_smaller_chunks(
        self, fit: FitMaker, tmp_path: Path, given: int | None, recwarn: pytest.WarningsRecorder
    ) -> None:
        writer = ModelCheckpoint(dirpath=tmp_path / "checkpoints", filename="last", enable_version_counter=False)
        fit(tmp_path, trainer={"max_epochs": 1, "callbacks": [Allocator("forward", {1}), writer]})
        resumed = fit(
            tmp_path,
            resume=True,
            encoder={"slices_per_chunk": given},
            trainer={"max_epochs": 2, "callbacks": [], "enable_checkpointing": False},
        )
        assert resumed.classifier.settings.encoder.slices_per_chunk == min(given or 12, 12)
        assert resumed.classifier.fits[-1].reduced_chunk == 12


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        *((make(), True) for make in MESSAGES),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_what_counts_as_memory(error: BaseException, is_memory: bool) -> None:
    assert is_out_of_memory(error) == is_memory
