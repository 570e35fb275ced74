"""What a training logs beside its CSV: where the files lie, and what they do not say."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ich_lstm.cli import train

HOST = "canary-host"
WORDS = (HOST, "canary-user", "canary-home", "canary-here", "--phantom.patients", sys.executable, str(Path(__file__).parent))
"""Host, user, home, current folder, command line, interpreter, and the sources' folder."""

MEASURED = ("requirements.txt", "wandb-metadata.json", "output.log", "memory_percent", "cpu.threads", "usagePercent")
"""Names of what wandb records of the machine and its packages."""

TWO_STAGES = "[{name: warm-up, max_epochs: 1}, {name: joint, max_epochs: 1}]"

ARGUMENTS = [
    *("--config=demo", "--out=run", "--wandb=offline", f"--stages={TWO_STAGES}"),
    *("--phantom.patients=6", "--phantom.slices=8", "--phantom.size=64", "--phantom.prevalence=0.6"),
    *("--data.size=32", "--data.slices_per_batch=24", "--trainer.accelerator=cpu"),
    *("--model.backbone=resnet10t", "--model.global_pool=null", "--model.hidden_size=8"),
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
        assert b"run warm-up" not in second
        assert b"run 1-warm-up" in first
        for content in (first, second):
            assert b"val/loss" in content
            assert b"resnet10t" in content  # the configuration
            assert b"exit" not in content or b"_wandb" in content

    def test_all_its_files_are_private(self, run: Path, machine: Path) -> None:
        private = {path for path in written(machine.parent) if "private" in path.relative_to(machine.parent).parts}
        others = [path for path in written(machine.parent) if path not in private]
        assert len(records(run / "private")) == 2
        assert [path for path in others if "wandb" in str(path)] == []
        assert [path.name for path in machine.iterdir()] == ["run"]

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
