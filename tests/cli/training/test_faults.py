"""ich-train with learning rates at which no training can succeed."""

from pathlib import Path

import pytest
import torch

from ich_lstm.cli import train
from ich_lstm.training.faults.non_finite import check_finite

SMALL = [
    *("--phantom.patients=8", "--phantom.slices=8", "--phantom.size=64", "--phantom.prevalence=0.6"),
    *("--data.preprocessing.size=32", "--data.batches.slices=24", "--data.num_workers=0"),
    *("--model.encoder.backbone=test_resnet", "--model.encoder.global_pool=null", "--model.head.hidden_size=8"),
]

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.mark.timeout(200)
@pytest.mark.parametrize(("rate", "encoder_rate"), [("1e6", "1e6"), ("1e30", "1e30"), ("1e-3", "1e30")])
def test_it_stops_with_the_step_and_the_scans(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rate: str, encoder_rate: str
) -> None:
    out = tmp_path / "run"
    rates = [f"--model.optimizer.lr={rate}", f"--model.optimizer.encoder_lr={encoder_rate}"]
    assert train.main(["--config", "demo", "--out", str(out), *SMALL, *rates, "--trainer.max_epochs=6"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    for words in ("TrainingError[not_finite]", "epoch ", "step ", "scans: ", "model.optimizer.lr"):
        assert words in error
    assert not (out / "model").exists()
    assert not (out / "report.html").exists()
    assert not (out / "results.json").exists()
    for path in out.rglob("*.ckpt"):
        check_finite(torch.load(path, weights_only=True)["state_dict"])
