"""Fabricate all that a run leaves behind, with identities where they belong, and read figures off a report's page."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import yaml
from prediction_files import make_tables, write_run

from ich_lstm.labels import LABELS
from ich_lstm.training.fit_record import FitRecord

PRIVATE_WORDS = ("/hospital/pacs", "MUSTERMANN", "1.2.826.0.1.3680043", "scanner-room-7")
"""Stand in the private files of `write_study`, and nowhere else."""

PARTS = {
    "train": {"patients": 70, "scans": 90, "slices": 2700},
    "validation": {"patients": 15, "scans": 20, "slices": 600},
}
UNLABELLED = {"patients": 1, "scans": 2, "slices": 60}
LEFT_OUT = {"bone_kernel": 30, "localizer": 4, "truncated_pixels": 1}


def write_study(folder: Path, tables: dict[str, pd.DataFrame] | None = None) -> Path:
    """A run's folder: predictions, configuration, model, results, audit, and the prepared scans with their private ledger."""
    tables = tables or make_tables(40)
    write_run(folder, tables)
    scans, slices = tables["scans"], tables["slices"]
    judged = {"patients": int(scans["patient_id"].nunique()), "scans": len(scans), "slices": len(slices)}
    parts = {**PARTS, "test": judged}
    positives = {
        label: {part: {"patients": 9, "scans": 10, "slices": 80, "unknown_slices": 0} for part in parts} for label in LABELS
    }
    split = {"by": "random", "seed": 0, "fractions": [0.7, 0.15, 0.15]}
    config = {
        "seed_everything": 1,
        "trainer": {"max_epochs": 8},
        "model": {"optimizer": {"lr": 1e-3, "encoder_lr": 1e-4, "weight_decay": 0.01}, "loss": {"slice": 1.0}},
        "data": {"labels": "labels.csv", "batches": {"slices": 256}, "augment": {"flip": 0.5}},
    }
    settings = {
        "encoder": {"backbone": "resnet18", "pretrained": False},
        "windows": {"channels": [[40, 80]]},
        "head": {"class_path": "LSTM", "init_args": {"num_layers": 2, "hidden_size": 64}},
    }
    fit = FitRecord(
        stage="joint",
        encoder="all",
        head="train",
        settings={"optimizer": {"kind": "adamw", "lr": 1e-3, "encoder_lr": 1e-4}},
        batches={"slices": 256, "slices_per_sample": None},
        augmentation={"flip": 0.5},
        seed=1,
        max_epochs=8,
        epochs=6,
        steps=1200,
        precision="32-true",
        processes=1,
        accumulated_batches=1,
        gradient_clip=None,
    )
    model = {"name": "resnet18", "hash": "c0ffee12ab34", "settings": {**settings, "pooling": {"kind": "max"}}}
    model |= {"starting_weights": {"encoder": {"source": "timm", "name": "resnet18.a1_in1k"}}, "fits": [fit.to_dict()]}
    whole = {unit: sum(part[unit] for part in parts.values()) + UNLABELLED[unit] for unit in UNLABELLED}
    _write(folder / "results.json", {"recipe": "demo", "counts": parts, "seconds": 600.0, "patients_are_studies": False})
    _write(folder / "audit.json", {"parts": parts, "labels": positives, "split": split, "findings": [], "synthetic": False})
    _write(folder / "model" / "model.json", model | {"preprocessing": {"size": 256, "crop": "head"}, "positive_share": 0.41})
    _write(folder / "private" / "prepared" / "manifest.json", {**whole, "files": {"used": whole["slices"]}})
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "private" / "config.yaml").write_text(yaml.safe_dump({"data": {"root": f"{PRIVATE_WORDS[0]}/{PRIVATE_WORDS[3]}"}}))
    fates = [("used", "", whole["slices"]), *(("skipped", code, count) for code, count in LEFT_OUT.items())]
    rows = [(f"{PRIVATE_WORDS[0]}/{PRIVATE_WORDS[1]}/{i}", PRIVATE_WORDS[2], a, c, "") for a, c, n in fates for i in range(n)]
    (folder / "private" / "prepared" / "private").mkdir()
    pd.DataFrame(rows, columns=["path", "series_uid", "action", "code", "detail"]).to_csv(
        folder / "private" / "prepared" / "private" / "ledger.csv", index=False
    )
    return folder


def _write(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


class ShownFigures(HTMLParser):
    """Texts of the elements that say of which figure they are, by view, label and metric: the value, then what is below it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: dict[tuple[str, str, str], list[str]] = {}
        self._open: list[tuple[str, tuple[str, str, str] | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("meta", "link", "br", "img"):
            return
        about = dict(attrs)
        key = tuple(str(about[name]) for name in ("data-view", "data-label", "data-metric")) if "data-metric" in about else None
        self._open.append((tag, key))
        if key:
            self.texts.setdefault(key, [])

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "link", "br", "img"):
            self._open.pop()

    def handle_data(self, data: str) -> None:
        keys = [key for _, key in self._open if key]
        if keys and data.strip():
            self.texts[keys[-1]].append(data.strip())


def shown_number(text: str) -> float:
    """The number that a text of the page shows."""
    return float(text.replace("\u2212", "-").replace(",", ""))
