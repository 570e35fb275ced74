"""Large trees: shards on disk, a kill and what goes on after it, other executors."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dicom_files import make_series

from ich_lstm.errors import ConfigError, SourceError
from ich_lstm.parallel import map_ahead
from ich_lstm.reading import Index, choose_series, index_source, load_scan
from ich_lstm.reading.index import build as index_module
from ich_lstm.reading.index import shards as shards_module
from ich_lstm.reading.index.check import check_source
from ich_lstm.reading.index.shards import SHARDS_FOLDER

SERIES = 6


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Six studies of eight slices, with strays among them."""
    folder = tmp_path / "tree"
    for i in range(SERIES):
        own = {"StudyInstanceUID": f"1.2.3.{i}", "SeriesInstanceUID": f"1.2.3.{i}.1"}
        make_series(folder / f"s{i}", **own)
        (folder / f"s{i}" / "note.txt").write_text("hello")
    (folder / "link").symlink_to(folder)
    return folder


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of ten files, so that a small tree has many."""
    monkeypatch.setattr(index_module, "CHUNK_FILES", 5)
    monkeypatch.setattr(shards_module, "SHARD_FILES", 10)


def assert_same(one: Index, other: Index) -> None:
    assert list(one.headers) == list(other.headers)
    assert one.ledger.to_frame().equals(other.ledger.to_frame())
    assert one.ledger.summary() == other.ledger.summary()
    assert [(study.study_uid, len(study.series)) for study in one.studies()] == [
        (study.study_uid, len(study.series)) for study in other.studies()
    ]


class TestShards:
    def test_many_shards_give_the_same_as_memory(self, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = index_source(tree)
        monkeypatch.setattr(index_module, "CHUNK_FILES", 5)
        monkeypatch.setattr(shards_module, "SHARD_FILES", 10)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
        (tmp_path / "scratch").mkdir()
        parted = index_source(tree)
        assert len(parted.headers.table.batches) > 3
        assert_same(whole, parted)
        assert not list((tmp_path / "scratch").iterdir())

    def test_the_ledger_follows_headers_that_lie_in_many_shards(self, tree: Path, small_shards: None) -> None:
        index = index_source(tree)
        shuffled = sorted(index.headers, key=lambda header: header.sop_uid[::-1])
        index.ledger.mark(shuffled[:7], "few_slices", "for a test")
        index.ledger.mark(index.studies()[0].series[0].headers, "contrast", "for a test")
        frame = index.ledger.to_frame()
        assert set(frame[frame.code == "few_slices"].sop_uid) <= {header.sop_uid for header in shuffled[:7]}
        assert (frame.code == "contrast").sum() == 8
        assert len(load_scan(index.studies()[1].series[0])) == 8

    def test_index_is_written_and_read(self, tree: Path, tmp_path: Path, small_shards: None) -> None:
        index = index_source(tree, folder=tmp_path / "private")
        choose_series(index.studies()[0], ledger=index.ledger)
        assert_same(index, Index.read(tmp_path / "private"))
        assert {path.name for path in (tmp_path / "private").iterdir()} == {"files.parquet"}

    def test_csv_has_every_file(self, tree: Path, tmp_path: Path, small_shards: None) -> None:
        index = index_source(tree)
        index.ledger.write_csv(tmp_path / "ledger.csv")
        import pandas as pd

        rows = pd.read_csv(tmp_path / "ledger.csv", keep_default_na=False).sort_values("path", ignore_index=True)
        assert rows.equals(index.ledger.to_frame().astype(rows.dtypes.to_dict()))


CHILD = textwrap.dedent(
    """
    import os, sys, time
    from ich_lstm.reading import index_source
    from ich_lstm.reading.index import build, shards
    build.CHUNK_FILES, shards.SHARD_FILES = 5, 10
    done = 0
    def progress(count):
        global done
        done += count
        if done >= 30:
            print("half", flush=True)
            time.sleep(60)
    index_source(sys.argv[1], folder=sys.argv[2], progress=progress)
    """
)


@pytest.fixture
def killed(tree: Path, tmp_path: Path) -> Path:
    """A folder in which indexing was killed half-way."""
    folder = tmp_path / "private"
    child = subprocess.Popen([sys.executable, "-c", CHILD, tree, folder], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "half\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert len(list((folder / SHARDS_FOLDER).glob("*.parquet"))) >= 2
    return folder


def headers_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose headers are read from now on."""
    read: list[str] = []
    real = index_module.read_header

    def noting(ref: Any) -> Any:
        read.append(str(ref))
        return real(ref)

    monkeypatch.setattr(index_module, "read_header", noting)
    return read


class TestKill:
    def test_the_same_as_without_the_kill(
        self, killed: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_shards: None
    ) -> None:
        read = headers_read(monkeypatch)
        seen: list[int] = []
        resumed = index_source(tree, folder=killed, progress=seen.append)
        files = SERIES * 9 + 1
        assert sum(seen) == files
        assert 0 < len(read) <= files - 20
        unbroken = index_source(tree, folder=tmp_path / "other")
        assert_same(resumed, unbroken)
        assert (killed / "files.parquet").read_bytes() == (tmp_path / "other" / "files.parquet").read_bytes()

    def test_a_file_that_has_changed_is_read_again(self, killed: Path, tree: Path) -> None:
        make_series(tree / "s0", StudyInstanceUID="9.9", SeriesInstanceUID="9.9.1")
        for path in (tree / "s0").iterdir():
            os.utime(path, (1, 1))
        assert_same(index_source(tree, folder=killed), index_source(tree))

    def test_files_that_have_gone_are_forgotten(self, killed: Path, tree: Path) -> None:
        shutil.rmtree(tree / "s0")
        (tree / "s1" / "3.dcm").unlink()
        assert_same(index_source(tree, folder=killed), index_source(tree))

    def test_another_source_begins_anew(self, killed: Path, tree: Path, tmp_path: Path) -> None:
        make_series(tmp_path / "else")
        assert len(index_source(tmp_path / "else", folder=killed).headers) == 8

    def test_damaged_shards_are_read_again(self, killed: Path, tree: Path) -> None:
        for path in (killed / SHARDS_FOLDER).glob("*.parquet"):
            path.write_bytes(path.read_bytes()[:-20])
        assert_same(index_source(tree, folder=killed), index_source(tree))


class _Losing(Executor):
    """An executor whose workers are gone."""

    def submit(self, fn: Any, /, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(RuntimeError("worker lost"))
        return future


class TestExecutors:
    def test_results_come_in_order_and_few_ahead(self) -> None:
        taken = []

        def items() -> Iterator[int]:
            for i in range(100):
                taken.append(i)
                yield i

        with ThreadPoolExecutor(2) as pool:
            results = map_ahead(abs, items(), 2, pool)
            assert [next(results) for _ in range(3)] == [0, 1, 2]
            assert len(taken) < 20
            assert list(results) == list(range(3, 100))

    def test_an_executor_gives_the_same(self, tree: Path, small_shards: None) -> None:
        with ThreadPoolExecutor(2) as pool:
            assert_same(index_source(tree, executor=pool, workers=2), index_source(tree))

    def test_lost_workers_are_an_error(self, tree: Path) -> None:
        with pytest.raises(SourceError) as error:
            index_source(tree, executor=_Losing())
        assert error.value.code == "executor_failed"

    def test_a_process_that_dies_does_not_end_the_run(self) -> None:
        assert list(map_ahead(_die_elsewhere, [os.getpid()] * 9, 2)) == [1] * 9


def _die_elsewhere(parent: int) -> int:
    if os.getpid() != parent:
        os._exit(3)
    return 1


class TestCluster:
    @pytest.fixture
    def address(self) -> Iterator[str]:
        """A cluster of two processes on this machine."""
        distributed = pytest.importorskip("distributed", reason="the extra cluster is not installed")
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, worker_dashboard_address=None
        ) as cluster:
            yield cluster.scheduler_address

    def test_index_and_check_and_prepare(
        self, address: str, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], small_shards: None
    ) -> None:
        from ich_lstm.cli.prepare import main
        from ich_lstm.cli.preparing.cluster import workforce

        with workforce(address, None) as (executor, workers):
            assert workers == 2
            assert_same(index_source(tree, executor=executor, workers=workers), index_source(tree))
            assert check_source(tree, executor=executor, workers=workers).ledger.counts()["used"] == 8 * SERIES
        assert main([str(tree), "--out", str(tmp_path / "out"), "--size", "32", "--cluster", address]) == 0
        assert f"{SERIES} scans" in capsys.readouterr().out

    def test_nobody_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("distributed", reason="the extra cluster is not installed")
        from ich_lstm.cli.preparing import cluster

        monkeypatch.setattr(cluster, "SECONDS_TO_CONNECT", 1)
        with pytest.raises(ConfigError) as error, cluster.workforce("tcp://127.0.0.1:9", None):
            pass
        assert error.value.code == "cluster_unreachable"
