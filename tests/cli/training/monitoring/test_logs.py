"""What a training logs beside its CSV: where the files lie, and what they do not say."""

import importlib.util
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.utilities import rank_zero_only

from ich_lstm.cli import train
from ich_lstm.cli.training.monitoring import logs
from ich_lstm.cli.training.monitoring.logs import check_logging, make_loggers
from ich_lstm.errors import ConfigError

HOST = "canary-host"
WORDS = (HOST, "canary-user", "canary-home", "canary-here", "--phantom.patients", sys.executable, str(Path(__file__).parent))
"""Host, user, home, current folder, command line, interpreter, and the sources' folder."""

os.umask(UMASK := os.umask(0))  # it can only be read by setting it

MEASURED = ("requirements.txt", "wandb-metadata.json", "output.log", "memory_percent", "cpu.threads", "usagePercent")
"""Names of what wandb records of the machine and its packages."""

TWO_STAGES = "{warm-up: {max_epochs: 1}, joint: {max_epochs: 1}}"

ARGUMENTS = [
    *("--config=demo", "--out=run", "--wandb=offline", f"--stages={TWO_STAGES}"),
    *("--phantom.patients=6", "--phantom.slices=8", "--phantom.size=64", "--phantom.prevalence=0.6"),
    *("--data.preprocessing.size=32", "--data.num_workers=0", "--data.batches.slices=24", "--trainer.accelerator=cpu"),
    *("--model.encoder.backbone=test_resnet", "--model.encoder.global_pool=null", "--model.head.hidden_size=8"),
]


def wandb_variables() -> dict[str, str]:
    """Of the environment, what concerns wandb."""
    return {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A machine of telling names; returns the current folder."""
    import wandb

    folder = tmp_path_factory.mktemp("logs")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("canary-home", "canary-here"):
            (folder / name).mkdir()
        patch.setenv("HOME", str(folder / "canary-home"))
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
            patch.delenv(name, raising=False)
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        for name in ("USER", "LOGNAME", "USERNAME"):
            patch.setenv(name, "canary-user")
        patch.setattr(socket, "gethostname", lambda: HOST)
        patch.setattr(sys, "argv", ["ich-train", *ARGUMENTS])
        patch.chdir(folder / "canary-here")
        yield folder / "canary-here"
        wandb.teardown()


@pytest.fixture(scope="module")
def run(machine: Path) -> Path:
    """The folder of a run of two stages, logged offline."""
    before = wandb_variables()
    assert train.main(ARGUMENTS) == 0
    assert wandb_variables() == before
    return machine / "run"


def written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def found(words: tuple[str, ...], path: Path) -> list[str]:
    content = path.read_bytes()
    return [word for word in words if word.encode() in content or word in path.name]


def records(folder: Path) -> list[Path]:
    """The files with what was logged: what ``wandb sync`` would send."""
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)


class TestWandbOffline:
    def test_every_stage_is_a_run_with_all_its_values(self, run: Path) -> None:
        first, second = (path.read_bytes() for path in records(run / "private"))
        assert b"run 1-warm-up" in first
        assert b"run 1-warm-up" not in second
        for content in (first, second):
            assert b"val/loss" in content
            assert b"test_resnet" in content  # the configuration

    def test_all_its_files_are_private(self, run: Path, machine: Path) -> None:
        assert [path.name for path in machine.iterdir()] == ["run"]
        everywhere = [path for path in machine.parent.rglob("*") if "wandb" in path.name]
        assert everywhere != []
        assert [path for path in everywhere if run / "private" not in path.parents] == []

    def test_its_files_are_their_owner_s(self, run: Path) -> None:
        below = [path for path in (run / "private").rglob("*") if not path.is_symlink()]
        assert any("wandb" in path.parts for path in below)
        assert [path for path in below if path.stat().st_mode & 0o077] == []
        assert (run / "results.json").stat().st_mode & 0o777 == 0o666 & ~UMASK

    def test_nothing_shareable_knows_the_machine(self, run: Path) -> None:
        for path in written(run):
            if not {"private", "phantom"} & set(path.relative_to(run).parts):
                assert found(WORDS, path) == [], path

    def test_what_would_be_sent_knows_neither_machine_nor_command_line(self, run: Path) -> None:
        for path in records(run / "private"):
            assert found(WORDS + MEASURED, path) == [], path
            assert list((path.parent / "files").iterdir()) == []

    def test_the_test_can_fail(self, machine: Path, tmp_path: Path) -> None:
        """wandb as it comes records what the words of the tests above look for."""
        code = "import wandb; run = wandb.init(project='p', dir='.', mode='offline'); run.log({'a': 1}); run.finish()"
        environment = {**os.environ, "WANDB_ERROR_REPORTING": "false", "WANDB_CACHE_DIR": str(tmp_path), "WANDB_SILENT": "true"}
        code = f"import socket; socket.gethostname = lambda: {HOST!r}; {code}"
        command = [sys.executable, "-c", code, "--phantom.patients"]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)
        (record,) = records(tmp_path)
        assert {HOST, "--phantom.patients", sys.executable, "requirements.txt", "memory_percent"} <= set(
            found(WORDS + MEASURED, record)
        )

    def test_the_service_reports_nothing_to_its_maker(self, run: Path) -> None:
        """Otherwise it looks up a server as it starts; its own log is all that shows from outside whether it would."""
        (log,) = (run / "private/wandb/cache").rglob("core-debug-*.log")
        assert '"disable-analytics":true' in log.read_text()


class TestWandbOnline:
    def test_without_a_key_stops_before_any_work(self, machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert train.main(["--config=demo", "--out=online", "--wandb=online"]) == 2
        assert "[no_api_key]" in capsys.readouterr().err
        assert not (machine / "online").exists()

    def test_is_not_asked_for_on_the_terminal(self, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for stream in ("stdin", "stdout", "stderr"):
            monkeypatch.setattr(getattr(sys, stream), "isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
        monkeypatch.setattr("getpass.getpass", lambda *_: pytest.fail("asked"))
        with pytest.raises(ConfigError, match="no_api_key"):
            check_logging(wandb="online", tensorboard=False)

    @pytest.mark.parametrize("mode", ["offline", "online"])
    def test_a_key_is_found(self, mode: str, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
        monkeypatch.setenv("WANDB_MODE", mode)  # the command line's word counts
        before = wandb_variables()
        check_logging(wandb="online", tensorboard=False)
        assert wandb_variables() == before
        assert [path for path in (machine.parent / "canary-home").rglob("*") if "wandb" in path.name] == []


class TestTensorBoard:
    def test_what_is_missing_is_named_before_any_work(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if "tensorboard" in name else find(name, *more))
        assert train.main(["--config=demo", f"--out={tmp_path}/run", "--tensorboard=true"]) == 2
        assert "pip install tensorboard" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()

    def test_its_files_are_private(self, tmp_path: Path) -> None:
        pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")
        for place in (tmp_path / "stages/1-warm-up", tmp_path):
            _, logger = make_loggers(None, place, tmp_path / "private", wandb=None, tensorboard=True)
            logger.log_metrics({"val/loss": 0.5}, step=1)
            logger.finalize("success")
        events = {path.parent.relative_to(tmp_path).as_posix() for path in written(tmp_path) if b"val/loss" in path.read_bytes()}
        assert events == {"private/tensorboard", "private/tensorboard/stages/1-warm-up"}


class TestMakeLoggers:
    @pytest.mark.parametrize("given", [None, True, False])
    def test_the_csv_is_always_written(self, given: bool | None, tmp_path: Path) -> None:
        (logger,) = make_loggers(given, tmp_path, tmp_path / "private", wandb=None, tensorboard=False)
        logger.log_metrics({"val/loss": 0.5})
        logger.save()
        assert (tmp_path / "metrics.csv").read_text().startswith("step,val/loss")

    @pytest.mark.parametrize("in_a_list", [False, True])
    def test_a_user_s_logger_is_kept(self, in_a_list: bool, tmp_path: Path) -> None:
        mine = CSVLogger(tmp_path / "mine")
        given: Logger | list[Logger] = [mine] if in_a_list else mine
        loggers = make_loggers(given, tmp_path, tmp_path / "private", wandb="offline", tensorboard=False)
        assert loggers[0].save_dir == str(tmp_path)
        assert loggers[-1] is mine
        assert len(loggers) == 3

    def test_only_the_first_process_logs_to_wandb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rank_zero_only, "rank", 1)
        _, logger = make_loggers(None, tmp_path, tmp_path / "private", wandb="offline", tensorboard=False)
        before = wandb_variables()
        _ = logger.experiment
        logger.log_metrics({"val/loss": 0.5})
        logger.finalize("success")
        assert written(tmp_path) == []
        assert wandb_variables() == before


def test_wandb_is_imported_only_if_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # cannot be imported
    module = runpy.run_path(logs.__file__)
    module["check_logging"](wandb=None, tensorboard=False)
    module["make_loggers"](None, tmp_path, tmp_path / "private", wandb=None, tensorboard=False)
    with pytest.raises(ImportError):
        module["check_logging"](wandb="online", tensorboard=False)


class TestEpochLines:
    """The line of an epoch shows the level that has labels."""

    def line(self, capsys: pytest.CaptureFixture[str], **metrics: float) -> str:
        from types import SimpleNamespace

        from ich_lstm.cli.training.monitoring.epoch_lines import EpochLines

        lines = EpochLines("")
        trainer = SimpleNamespace(
            is_global_zero=True,
            current_epoch=0,
            max_epochs=2,
            callback_metrics={k.replace("__", "/"): v for k, v in metrics.items()},
        )
        lines.on_train_epoch_start(trainer, None)
        lines.on_train_epoch_end(trainer, None)
        return capsys.readouterr().out

    def test_slices_where_they_have_labels(self, capsys: pytest.CaptureFixture[str]) -> None:
        line = self.line(capsys, val__loss=0.1, val__auroc_any=0.9, val__scan_loss=0.2, val__scan_auroc_any=0.8)
        assert "validation loss 0.1000" in line
        assert "AUC any 0.9000" in line

    def test_scans_where_labels_name_scans_alone(self, capsys: pytest.CaptureFixture[str]) -> None:
        nan = float("nan")
        line = self.line(capsys, val__loss=0.01, val__auroc_any=nan, val__scan_loss=0.2, val__scan_auroc_any=0.8)
        assert "validation loss, scans 0.2000" in line
        assert "AUC any, scans 0.8000" in line
        assert "nan" not in line

    def test_nothing_undefined_is_printed(self, capsys: pytest.CaptureFixture[str]) -> None:
        nan = float("nan")
        line = self.line(capsys, train__loss=0.5, val__loss=0.1, val__auroc_any=nan, val__scan_loss=nan, val__scan_auroc_any=nan)
        assert "validation loss 0.1000" in line
        assert "nan" not in line
