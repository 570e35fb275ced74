"""A run of ich-train that is killed, stopped or damaged goes on, and ends as if nothing had happened."""

import hashlib
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from ich_lstm.cli import train
from ich_lstm.data.prepared.folder import PreparedFolder
from ich_lstm.training.checkpoints.checkpoint_io import BEFORE_LAST, LAST

pytestmark = [pytest.mark.usefixtures("one_core"), pytest.mark.timeout(150)]

RECIPE = """
data: {batches: {slices: 24}, num_workers: 0}
model:
  encoder: {backbone: test_resnet, pretrained: false, dropout: 0.2}
  head: {class_path: LSTM, init_args: {hidden_size: 8, num_layers: 1, input_dropout: 0.2, output_dropout: 0.2}}
stages:
  warm-up: {train: encoder, max_epochs: 1, optimizer: {encoder_lr: 0.003}}
  head: {train: head, features: stored, views: 1, max_epochs: 2, optimizer: {lr: 0.003}}
  joint: {max_epochs: 2, ema: 0.9, optimizer: {lr: 0.003, encoder_lr: 0.001}}
trainer: {accelerator: cpu, precision: 32-true}
checkpoint_minutes: 0.0001
"""

FILES = (
    *("model/model.safetensors", "model/model.json", "predictions/scans.csv", "metrics.csv"),
    *("stages/1-warm-up/metrics.csv", "stages/2-head/metrics.csv"),
)


class Recipe(NamedTuple):
    """The training of all tests.

    Args:
        options: Command line without ``--out``.
    """

    options: list[str]

    def start(self, run: Path, *more: str) -> subprocess.Popen[str]:
        """Begin the training in a process group of its own."""
        return self.command([*self.options, "--out", str(run), *more])

    def command(self, arguments: list[str]) -> subprocess.Popen[str]:
        """Run ich-train in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "ich_lstm.cli.train", *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def recipe(prepared: PreparedFolder, phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE)
    data = ["--data.root", str(prepared.folder), "--data.labels", str(phantom / "stage_2_train.csv")]
    return Recipe(["--config", str(path), *data])


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    _, error = recipe.start(run).communicate(timeout=120)
    assert (run / "report.html").is_file(), error
    return run


@pytest.fixture(scope="module")
def killed(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in its last stage."""
    run = tmp_path_factory.mktemp("killed") / "run"
    process = recipe.start(run)
    wait_for(lambda: (run / "checkpoints" / BEFORE_LAST).is_file(), process)
    process.kill()
    process.communicate(timeout=60)
    return run


@pytest.fixture
def unfinished(killed: Path, tmp_path: Path) -> Path:
    """A copy of the killed run, at another place than that where it was begun."""
    return Path(shutil.copytree(killed, tmp_path / "moved"))


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 100) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


def digests(run: Path) -> dict[str, str]:
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in FILES}


def assert_same(run: Path, whole: Path) -> None:
    assert digests(run) == digests(whole)
    assert not (run / "private" / "features").exists()
    for name in ("report.html", "results.json", "history.png", "MODEL_CARD.md"):
        assert (run / name).is_file()


class TestKilled:
    @pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4))])
    def test_three_times_at_random_moments(self, seed: int, recipe: Recipe, whole: Path, tmp_path: Path) -> None:
        draw, run = random.Random(seed), tmp_path / "run"
        process = recipe.start(run)
        for _ in range(3):
            wait_for((run / "private" / "data.sha256").is_file, process)
            if process.poll() is None:
                time.sleep(draw.uniform(0, 3))
            process.kill()
            process.communicate(timeout=60)
            process = recipe.command(["--resume", str(run)])
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        assert_same(run, whole)
        assert not list(run.rglob("*.unfinished"))


MOMENTS: dict[str, str] = {
    "after the configuration": "private/config.yaml",
    "after the preparation": "private/data.sha256",
    "in the first stage": f"stages/1-warm-up/checkpoints/{LAST}",
    "between the stages": "stages/1-warm-up/checkpoints/best.ckpt",
    "while features are stored": "private/features/*/*.features",
    "on stored features": f"stages/2-head/checkpoints/{LAST}",
    "in the last stage": f"checkpoints/{LAST}",
    "at the end of an epoch": "checkpoints/best.ckpt",
    "when the model is written": "model/model.safetensors",
    "in the evaluation": "predictions/scans.csv",
    "in the report": "results.json",
}


class TestStopped:
    @pytest.mark.parametrize(
        ("how", "moment"),
        [
            (signal.SIGTERM, "in the last stage"),
            (signal.SIGINT, "between the stages"),
            *(pytest.param(how, moment, marks=pytest.mark.slow) for moment in MOMENTS for how in (signal.SIGTERM, signal.SIGINT)),
        ],
    )
    def test_the_whole_group_as_by_a_terminal(
        self, how: signal.Signals, moment: str, recipe: Recipe, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Loader processes get the signal too; they must not end before the process that needs them."""
        run = tmp_path / "a run"  # the printed command must quote it
        process = recipe.start(run, "--data.num_workers=2")
        wait_for(lambda: any(run.glob(MOMENTS[moment])), process)
        os.killpg(process.pid, how)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 128 + how, error
        line = error.strip().splitlines()[-1]
        assert line.startswith(f"ich-train: stopped by {how.name}. "), error
        assert "Traceback" not in error
        saved, _, command = line.partition("Go on with: ")
        if "Everything is saved in " in saved:
            assert Path(saved.split("Everything is saved in ")[1].rstrip(". ")).is_file()
        if command:
            name, *arguments = shlex.split(command)
            assert name == "ich-train"
            assert train.main([*arguments, "--data.num_workers=0"]) == 0, capsys.readouterr().err
        else:  # before the run could be resumed, or after its report
            assert "same command again" in line or "finished" in line
            again = recipe.start(run)
            _, error = again.communicate(timeout=120)
            assert again.returncode == (0 if "again" in line else 2)
        assert_same(run, whole)

    def test_before_anything_was_begun(self, recipe: Recipe, tmp_path: Path) -> None:
        process = recipe.start(tmp_path / "run")
        time.sleep(1)  # while modules are imported
        assert not (tmp_path / "run").exists()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode in (143, -signal.SIGTERM)  # a shell shows 143 for both
        assert not (tmp_path / "run").exists()


class TestDamaged:
    @pytest.mark.parametrize(
        "damage", ["cut", *(pytest.param(damage, marks=pytest.mark.slow) for damage in ("empty", "flipped"))]
    )
    def test_a_broken_checkpoint_is_named_and_the_one_before_is_taken(
        self, damage: str, unfinished: Path, whole: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = unfinished / "checkpoints" / LAST
        content = path.read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes(255 - byte for byte in content[middle : middle + 64]) + content[middle + 64 :]
        path.write_bytes({"empty": b"", "cut": content[:middle], "flipped": flipped}[damage])
        assert train.main(["--resume", str(unfinished)]) == 0
        assert f"{path} is damaged and not used" in caplog.text
        assert_same(unfinished, whole)

    @pytest.mark.slow
    def test_the_stage_is_repeated_if_both_are_broken(
        self, unfinished: Path, whole: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        for name in (LAST, BEFORE_LAST):
            (unfinished / "checkpoints" / name).write_bytes(b"")
        assert train.main(["--resume", str(unfinished)]) == 0
        assert LAST in caplog.text
        assert BEFORE_LAST in caplog.text
        assert_same(unfinished, whole)

    @pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
    def test_the_best_of_a_finished_stage(self, damage: str, unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = unfinished / "stages" / "2-head" / "checkpoints" / "best.ckpt"
        content = path.read_bytes()
        path.unlink()
        if damage != "missing":
            path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
        assert train.main(["--resume", str(unfinished)]) == 1
        error = capsys.readouterr().err
        assert str(path) in error
        assert "CheckpointError[missing_checkpoint]" in error or "CheckpointError[checkpoint_damaged]" in error


class TestRefused:
    def test_the_same_command_says_how_to_go_on(
        self, recipe: Recipe, unfinished: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for _ in range(3):
            assert train.main([*recipe.options, "--out", str(unfinished)]) == 2
            error = capsys.readouterr().err
            assert "ConfigError[unfinished_run]" in error
            assert f"ich-train --resume {shlex.quote(str(unfinished))}" in error

    @pytest.mark.parametrize("option", ["--model.optimizer.lr=0.1", "--data.batches.slices=48", "--seed_everything=5"])
    def test_other_settings(self, option: str, unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert train.main(["--resume", str(unfinished), option]) == 2
        error = capsys.readouterr().err
        assert "ConfigError[other_run]" in error
        assert option.removeprefix("--").partition("=")[0] in error

    @pytest.mark.parametrize(
        "change",
        [
            "other labels",
            *(pytest.param(change, marks=pytest.mark.slow) for change in ("other labels of one image", "fewer images")),
        ],
    )
    def test_other_data(
        self, change: str, unfinished: Path, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Otherwise patients on whom the network was trained could be held out, or a score be that of two sets of labels."""
        table = pd.read_csv(phantom / "stage_2_train.csv")
        image = table["ID"].str.rpartition("_")[0]
        changed = image.eq(image.iloc[0]) if "image" in change else image.notna()
        if change == "fewer images":
            table = table[~changed]
        else:
            table.loc[changed, "Label"] = 1 - table.loc[changed].groupby(image)["Label"].transform("max")
        table.to_csv(tmp_path / "labels.csv", index=False)
        more = ["--data.labels", str(tmp_path / "labels.csv")]
        config = (unfinished / "private" / "config.yaml").read_text()
        split = (unfinished / "private" / "split.json").read_text()
        code = train.main(["--resume", str(unfinished), *more])
        error = capsys.readouterr().err
        expected = (1, "AuditError[images_without_label]") if change == "fewer images" else (2, "ConfigError[other_data]")
        assert code == expected[0], error
        assert expected[1] in error
        assert (unfinished / "private" / "config.yaml").read_text() == config
        assert (unfinished / "private" / "split.json").read_text() == split

    @pytest.mark.parametrize("attempt", [1, *(pytest.param(attempt, marks=pytest.mark.slow) for attempt in (2, 3))])
    def test_two_trainings_in_one_folder(self, attempt: int, recipe: Recipe, whole: Path, tmp_path: Path) -> None:
        processes = [recipe.start(tmp_path / "run") for _ in range(2)]
        errors = [process.communicate(timeout=120)[1] for process in processes]
        codes = sorted(process.returncode for process in processes)
        assert codes == [0, 2], errors
        refused = "".join(error for error, process in zip(errors, processes, strict=True) if process.returncode)
        assert any(code in refused for code in ("[out_taken]", "[unfinished_run]", "[out_not_empty]")), refused
        assert_same(tmp_path / "run", whole)


class TestLengthened:
    def test_the_last_stage(self, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = Path(shutil.copytree(whole, tmp_path / "run"))
        assert train.main(["--resume", str(run)]) == 0
        assert f"ich-train --resume {run} --stages.joint.max_epochs N" in capsys.readouterr().out
        assert train.main(["--resume", str(run), "--stages.joint.max_epochs", "3"]) == 0
        before, after = (pd.read_csv(each / "metrics.csv") for each in (whole, run))
        pd.testing.assert_frame_equal(after.iloc[: len(before)], before)
        assert after.loc[after["val/loss"].notna(), "epoch"].tolist() == [0, 1, 2]
        assert (run / "stages/1-warm-up/metrics.csv").read_bytes() == (whole / "stages/1-warm-up/metrics.csv").read_bytes()

    def test_an_earlier_stage_cannot_be(self, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert train.main(["--resume", str(whole), "--stages.warm-up.max_epochs", "3"]) == 2
        assert "only the last stage can be trained longer" in capsys.readouterr().err
