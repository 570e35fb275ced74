"""What a loader process cannot load, or its death, reaches the user as the library's own error."""

import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from data.loading.test_loader import make_loader
from fabricated import make_labelled
from failing_dataset import Failing
from torch.utils.data import DataLoader

from ich_lstm import IchLstmError, errors
from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.data.loading import batch as batch_module
from ich_lstm.data.loading.dataset import ScanDataset
from ich_lstm.data.loading.loader import ScanLoader, begin_worker, worker_context
from ich_lstm.data.loading.slice_sampling import SampleRequest
from ich_lstm.errors import CacheError, UnexpectedError, WorkerError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, IchLstmError)]

STRANGE: list[Exception] = [
    MemoryError(),
    cv2.error("OpenCV(4.11.0) error: (-215:Assertion failed) !ssize.empty() in function 'resize'"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
    RecursionError("maximum recursion depth exceeded"),
    ValueError(""),
]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "truncated": _truncate,
    "flipped": _flip,
}


@pytest.fixture
def scans(tmp_path: Path) -> list[LabelledScan]:
    return [make_labelled(tmp_path, f"1.2.{i}", slices=8, seed=i, size=16) for i in range(8)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_damaged_file_is_named(workers: int, how: str, scans: list[LabelledScan]) -> None:
    loader = make_loader(scans, workers, shuffle=False)
    assert len(list(loader)) == 4  # the first epoch finds all of them sound
    DAMAGE[how](scans[5].cache_path)
    with pytest.raises(CacheError) as raised:
        list(loader)
    assert (raised.value.code, raised.value.where) == ("cache_unreadable", scans[5].cache_path.name)
    assert "ich-prepare" in raised.value.todo
    assert "\n" not in str(raised.value)


def failing_loader(scans: list[LabelledScan], raised: list[Exception], *, workers: int = 1) -> ScanLoader:
    loader = make_loader([scans[0]] * len(raised), scans_per_batch=1, shuffle=False)
    return ScanLoader(
        Failing([scans[0]] * len(raised), raised),
        batch_size=None,
        sampler=loader.sampler,
        num_workers=workers,
        multiprocessing_context=worker_context() if workers else None,
        worker_init_fn=begin_worker,
    )


def test_every_kind_of_error_comes_home_whole(scans: list[LabelledScan]) -> None:
    sent: list[Exception] = [
        kind("bad_thing", where="a: place", got="seven: [7]", expected="eight", todo="Say [repair_any=true].") for kind in KINDS
    ]
    loader = failing_loader(scans, sent)
    for error, back in zip(sent, DataLoader.__iter__(loader), strict=True):
        assert type(back) is type(error)
        assert vars(back) == vars(error)
    with pytest.raises(IchLstmError) as raised:
        list(loader)
    assert vars(raised.value) == vars(sent[0])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("error", STRANGE, ids=lambda error: type(error).__name__)
def test_a_strange_error_names_the_scan(workers: int, error: Exception, scans: list[LabelledScan]) -> None:
    with pytest.raises(UnexpectedError) as raised:
        list(failing_loader(scans, [pickle.loads(pickle.dumps(error))], workers=workers))
    is_memory = isinstance(error, MemoryError) or "memory" in str(error)
    assert raised.value.code == ("out_of_memory" if is_memory else "unexpected_error")
    assert scans[0].scan_id in raised.value.where
    assert type(error).__name__ in raised.value.got
    assert "\n" not in str(raised.value)


def kill_workers_of(loader: ScanLoader, how: signal.Signals) -> None:
    for number, _ in enumerate(loader):
        if number == 3:
            for worker in loader._iterator._workers:
                os.kill(worker.pid, how)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGBUS, signal.SIGSEGV])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_killed_process_ends_the_loading_with_advice(how: signal.Signals, scans: list[LabelledScan]) -> None:
    loader = make_loader(scans * 20, 2, shuffle=False)
    began = time.monotonic()
    with pytest.raises(WorkerError) as raised:
        kill_workers_of(loader, how)
    assert time.monotonic() - began < 30
    assert raised.value.code == "worker_died"
    assert "data.num_workers=0" in str(raised.value)
    assert "shm-size" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_full_shared_memory_is_named(scans: list[LabelledScan], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(size: int) -> None:
        raise RuntimeError("unable to write to file </torch_42_1>: No space left on device (28)")

    for module in ("ich_lstm.data.loading.dataset", "ich_lstm.data.loading.batch"):
        monkeypatch.setattr(f"{module}.get_worker_info", lambda: object())
    monkeypatch.setattr(batch_module.torch.UntypedStorage, "_new_shared", full)
    failed = ScanDataset(scans)[[SampleRequest(0, 0)]]
    assert isinstance(failed, WorkerError)
    assert failed.code == "shared_memory_full"
    assert "shm-size" in failed.todo
