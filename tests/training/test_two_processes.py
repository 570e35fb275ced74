"""Two processes train as one does with the same global batch, and measure the same."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from fits import *
from fabricated import make_classifier
from pytorch_lightning import Callback, Trainer, seed_everything
from ich_lstm import ScanDataModule
from ich_lstm.data.loading.batches import Batches
from ich_lstm.data.split.split_file import Split
from ich_lstm.training.features.stored_features import StoredFeatures


class Notes(Callback):
    def __init__(self):
        self.epochs, self.scans, self.encoded = [], [], 0

    def setup(self, trainer, module, stage):
        module.model.encoder.register_forward_pre_hook(self.count)

    def count(self, module, inputs):
        self.encoded += len(inputs[0])

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_index, dataloader_index=0):
        self.scans += batch.scan_ids

    def on_validation_end(self, trainer, module):
        self.epochs.append({{name: float(value) for name, value in trainer.callback_metrics.items()}})


if __name__ == "__main__":
    seed_everything(7, verbose=False)
    processes = int(sys.argv[1])
    classifier = make_classifier(encoder={{"batch_norm": "frozen"}}, optimizer={optimizer!r})
    classifier.preprocessing = None
    if {stored!r}:
        classifier.choose_trained("head", stored=StoredFeatures(folder=Path(f"features-{{processes}}")))
    # Each step has all training scans, so that the global batch is the same.
    data = ScanDataModule({root!r}, {labels!r}, num_workers=0, batches=Batches(slices=10_000 // processes, scans=4 // processes),
                          split=Split(fractions=(4, 2, 0)), augment=None)
    notes = Notes()
    trainer = Trainer(max_epochs={epochs}, accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto",
                      precision="64-true", logger=False, callbacks=[notes], num_sanity_val_steps=0, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(classifier, data)
    found = {{"epochs": notes.epochs, "scans": notes.scans, "encoded": notes.encoded}}
    Path(f"{{processes}}-{{trainer.global_rank}}.json").write_text(json.dumps(found))
"""

EPOCHS = 6


def fitted(
    folder: Path, prepared: Any, phantom: Path, processes: int, *, lr: float, stored: bool = False
) -> list[dict[str, Any]]:
    """What each process has noted.

    Args:
        folder: Working folder of the processes.
        prepared: The prepared scans.
        phantom: The folder with their labels.
        processes: Their number.
        lr: Peak of the head's rate.
        stored: Whether the head alone is trained, on stored features.
    """
    script = SCRIPT.format(
        tests=str(Path(__file__).parents[1]),
        root=str(prepared.folder),
        labels=str(phantom / "stage_2_train.csv"),
        epochs=EPOCHS,
        optimizer={"lr": lr, "encoder_lr": lr / 3},
        stored=stored,
    )
    (folder / "script.py").write_text(script)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""}
    command = [sys.executable, "script.py", str(processes)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{processes}-{rank}.json").read_text()) for rank in range(processes)]


@pytest.mark.timeout(300)
def test_the_same_global_batch_gives_the_same_curve(prepared: Any, phantom: Path, tmp_path: Path) -> None:
    (one,) = fitted(tmp_path, prepared, phantom, 1, lr=3e-3)
    first, second = fitted(tmp_path, prepared, phantom, 2, lr=3e-3)
    assert first["epochs"][-1]["train/loss"] < 0.95 * first["epochs"][0]["train/loss"]  # it has learned something
    for alone, together in zip(one["epochs"], first["epochs"], strict=True):
        for name, value in alone.items():
            assert together[name] == pytest.approx(value, abs=1e-5, nan_ok=True), name
    assert repr(first["epochs"]) == repr(second["epochs"])
    assert not set(first["scans"]) & set(second["scans"])


@pytest.mark.timeout(300)
def test_two_processes_share_stored_features(prepared: Any, phantom: Path, tmp_path: Path) -> None:
    """Each scan is encoded by one of them, and both train on all: the curve is that of one process."""
    (one,) = fitted(tmp_path, prepared, phantom, 1, lr=3e-3, stored=True)
    first, second = fitted(tmp_path, prepared, phantom, 2, lr=3e-3, stored=True)
    assert first["encoded"] > 0
    assert second["encoded"] > 0
    assert first["encoded"] + second["encoded"] == one["encoded"]
    for alone, together in zip(one["epochs"], first["epochs"], strict=True):
        for name, value in alone.items():
            assert together[name] == pytest.approx(value, abs=1e-5, nan_ok=True), name
    assert repr(first["epochs"]) == repr(second["epochs"])
    files = {rank: sorted(path.name for path in tmp_path.glob(f"features-{rank}/*/*.features")) for rank in (1, 2)}
    assert len(files[2]) == 2 * len(files[1]), "a file for each process"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_same_weights_give_the_same_validation_table(prepared: Any, phantom: Path, tmp_path: Path) -> None:
    """Each scan counts once, also if there are too few for all processes."""
    (one,) = fitted(tmp_path, prepared, phantom, 1, lr=0.0)
    first, second = fitted(tmp_path, prepared, phantom, 2, lr=0.0)
    validation = {name: value for name, value in one["epochs"][0].items() if name.startswith("val")}
    assert repr({name: first["epochs"][0][name] for name in validation}) == repr(validation)
    assert sorted(first["scans"] + second["scans"]) == sorted(one["scans"])
    assert len(set(one["scans"])) * EPOCHS == len(one["scans"])
