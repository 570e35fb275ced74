"""The output folder of a training run, and the configuration stored in it."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from ich_lstm.errors import ConfigError
from ich_lstm.files.output_folder import check_new_or_empty
from ich_lstm.privacy import private_folder
from ich_lstm.training.callbacks import without_folders

PATH_KEYS = (
    "out",
    "data.root",
    "data.labels",
    "data.corrections",
    "data.choices",
    "data.split_file",
    "data.cache_dir",
    "data.project_key",
    "model.pretrained_file",
    "checkpoint",
    "trainer.default_root_dir",
)
"""Keys whose values are paths: in the shareable configuration stands what they are, or only the last part of them."""

INPUT = "data."
"""Folders and tables of these keys come from a hospital, and may be named after a patient."""

KINDS = (".csv", ".json", ".yaml", ".key", ".zip", ".tar", ".gz", ".nii", ".parquet")


def run_folder(out: str | None, recipe: str, *, rank: int) -> Path:
    """The folder to fill; one for all processes.

    Raises:
        ConfigError: If it is not new or empty, or a further process was not told which.
    """
    if rank != 0:
        if out is None:
            raise ConfigError(
                "no_out", where="--out", got="nothing", expected="one folder for all processes", todo="Give --out DIR."
            )
        return Path(out)
    folder = Path(out) if out else Path("runs") / f"{recipe}-{datetime.now():%Y%m%d-%H%M%S}"
    check_new_or_empty(folder)
    if out is None:
        # Lightning starts its other processes with this command line: they must work in the same folder.
        sys.argv += ["--out", str(folder)]
    return folder


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """The configuration as it was, private; and without paths, shareable."""
    config.pop("config", None)
    (private_folder(folder) / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    for key in PATH_KEYS:
        *sections, last = key.split(".")
        place = config
        for section in sections:
            place = place[section]
        if place.get(last):
            named = place[last]
            shown = _kind if key.startswith(INPUT) else _name
            place[last] = [shown(path) for path in named] if isinstance(named, list) else shown(named)
    config = without_folders(config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def _name(path: str) -> str:
    return Path(path).name


def _kind(path: str) -> str:
    suffix = Path(path).suffix.lower()
    return f"(a {suffix} file)" if suffix in KINDS else "(a folder)"
