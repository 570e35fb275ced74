"""From DICOM files to a page, in Python: what a notebook would hold.

    python examples/quickstart.py quickstart/

Makes 12 synthetic patients, trains a small model for two epochs (it has learned next to nothing by then), predicts: a minute.
"""

import sys
from pathlib import Path

from pytorch_lightning import Trainer

import ich_lstm
from ich_lstm.phantom import PhantomSettings, write_phantom


def main(folder: Path) -> None:
    dicom = write_phantom(PhantomSettings(patients=12, size=128), folder / "dicom")

    data = ich_lstm.ScanDataModule(
        dicom,
        preprocessing=ich_lstm.Preprocessing(size=64),
        batches=ich_lstm.Batches(slices=64),
        num_workers=0,
        cache_dir=folder / "prepared",
    )
    model = ich_lstm.ScanClassifier(
        encoder=ich_lstm.Encoder(backbone="resnet10t", pretrained=False),
        head=ich_lstm.LSTM(hidden_size=32),
        optimizer=ich_lstm.Optimizer(encoder_lr=1e-3),  # the head's, because the encoder starts from scratch too
    )
    Trainer(max_epochs=2, logger=False, enable_checkpointing=False, accelerator="cpu").fit(model, data)
    model.save_pretrained(folder / "model")

    model = ich_lstm.ScanClassifier.load(folder / "model")
    scan = ich_lstm.read_scan(dicom, series_uid=data.scans["test"][0].series_uid)
    for prediction in model.predict(scan):
        print(prediction)
        print(prediction.to_frame().head())
        print(prediction.to_html(folder / "page.html"))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "quickstart"))
