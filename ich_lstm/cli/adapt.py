"""ich-adapt: adapts a model to a site's own scans, and checks every month whether the scans have changed."""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ich_lstm.cli.console import (
    DONE,
    SOME_FAILED,
    OptionParser,
    choose_device,
    console,
    progress_bar,
    run_command,
)
from ich_lstm.errors import ConfigError, as_option

if TYPE_CHECKING:
    from rich.console import Console

    from ich_lstm.adaptation.adapt import Adaptation

FILE_WIDTH = 160
"""Width of the printed table in characters if the output is not a terminal; no cell is wrapped."""

WHOLE = "Give the same command again: scans that were read and encoded are not done twice."

HELP = """
ich-adapt --checkpoint MODEL --data.root PATH --data.labels CSV --out DIR
ich-adapt --check DIR --data.root PATH

Adapt a model to the scans of a hospital, on a CPU: some 300 scans with report labels are enough. Every scan is encoded once.
Then are compared, by cross-validation over patients: the model as it is; corrections of its probabilities (prevalence,
temperature, Platt); a new pooling; a new head. The simplest that is as good as the best is taken, if it is clearly better than
the model as it is; otherwise the model stays as it is, with the reason and the number of positive patients that would be needed.

  --checkpoint MODEL       a run's folder, its model folder, a .ckpt, or released weights (docs/released.md)
  --data.root PATH         DICOM files, or a folder made by ich-prepare
  --data.labels CSV        label table, as for training; rows of whole scans, by accession number, are enough; may be repeated
  --data.corrections CSV   corrections of labels, such as a filled-in private/doubtful.csv; may be repeated
  --out DIR                a new folder, or that of the same command which was stopped: model/, adaptation.html (one page),
                           adaptation.json, report.html, MODEL_CARD.md, tables/ (all shareable), private/

  --operating-point RULE   sensitivity=0.95, specificity=0.9, youden or alarms=10; may be repeated, the first is the default
  --doubtful keep          labels that are probably wrong: keep, unknown or soft (the probability that they are right). With
                           keep, more than 10 % of them stop the command
  --last-stage             try the encoder's last layer group too; this trains on pixels, and takes hours on a CPU
  --folds 5                folds of the cross-validation
  --repeats 2              how often patients are divided into folds
  --epochs 10              epochs in which a pooling or a head is trained, at least
  --head-lr 0.0003         peak learning rate of the head
  --replicates 2000        bootstrap resamples of patients, for intervals
  --seed 1                 seed of the folds and of the training

  --check DIR              compare new scans with those that DIR was adapted to. No labels are needed: scanner, kernel, spacing,
                           HU, and the probabilities. A sentence says what has moved; --out DIR keeps it as check.json
  --workers N              number of processes that read scans for --check; left out: one per core

  --truth, --repair-any, --patient-ids, --disagreement, --unmatched    labels, as for ich-evaluate
  --project-key FILE       key for the hashed ids; left out: the user's own
  --data.cache_dir DIR     folder for prepared scans; left out: in private/ of --out, or a temporary one for --check
  --data.num_workers N     loader processes
  --device cpu             or cuda; left out: cuda if there is one
  --debug                  show the traceback of an error
  --version

Research use only, not for diagnosis.
Exit codes: 0 adapted, or nothing has moved; 1 failed; 2 wrong usage; 3 the model stays as it is, or something has moved.
"""

MINE = (
    *("private", "audit.html", "audit.json", "model", "adaptation.html", "tables"),
    *("report.html", "report.json", "MODEL_CARD.md", "claim.csv", "claim.md"),
)
"""What an adaptation that was stopped may have left in its folder."""

SETTINGS = ("rules", "doubtful", "last_stage", "folds", "repeats", "epochs", "head_lr", "replicates", "seed")
"""Options that are settings of `AdaptSettings` under the same name."""

DATA = ("truth", "repair_any", "patient_ids", "disagreement", "unmatched", "project_key", "cache_dir", "num_workers")
"""Options that are settings of `ScanDataModule` under the same name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ich-adapt.

    Args:
        argv: Arguments of the command; None for those of the process.

    Returns:
        The exit code.
    """
    return run_command("ich-adapt", HELP, _adapt, argv, whole=WHOLE, spell=as_option)


def _adapt(arguments: list[str]) -> int:
    given = _parse(arguments)
    given.device = choose_device(given.device)
    return _check(given) if given.check is not None else _run(given)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = OptionParser("ich-adapt")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--check", type=Path)
    parser.add_argument("--data.root", dest="root", type=Path, required=True)
    parser.add_argument("--data.labels", dest="labels", type=Path, action="append")
    parser.add_argument("--data.corrections", dest="corrections", type=Path, action="append")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--operating-point", dest="rules", action="append", default=argparse.SUPPRESS)
    parser.add_argument("--doubtful", choices=("keep", "unknown", "soft"), default=argparse.SUPPRESS)
    parser.add_argument("--last-stage", dest="last_stage", action="store_true", default=argparse.SUPPRESS)
    for name in ("folds", "repeats", "epochs", "replicates", "seed"):
        # Options that are not given are not passed on, so that the defaults stand in AdaptSettings alone.
        parser.add_argument(f"--{name}", type=int, default=argparse.SUPPRESS)
    parser.add_argument("--head-lr", type=float, default=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--truth", default=argparse.SUPPRESS)
    parser.add_argument("--repair-any", action="store_true", default=argparse.SUPPRESS)
    parser.add_argument("--patient-ids", choices=("trusted", "study"), default=argparse.SUPPRESS)
    parser.add_argument("--disagreement", choices=("stop", "unknown"), default=argparse.SUPPRESS)
    parser.add_argument("--unmatched", choices=("stop", "labels", "images", "both"), default=argparse.SUPPRESS)
    parser.add_argument("--project-key", type=Path, default=argparse.SUPPRESS)
    parser.add_argument("--data.cache_dir", dest="cache_dir", type=Path, default=argparse.SUPPRESS)
    parser.add_argument("--data.num_workers", dest="num_workers", type=int, default=argparse.SUPPRESS)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    given = parser.parse(arguments)
    if given.check is not None:
        foreign = [name for name in ("checkpoint", "labels", "corrections") if getattr(given, name)]
        foreign += [
            name for name in ("rules", "doubtful", "last_stage", "folds", "repeats", "epochs", "head_lr", "seed") if name in given
        ]
        if foreign:
            parser.error(f"--check takes no {', '.join(foreign)}")
    elif given.checkpoint is None or not given.labels or given.out is None:
        parser.error("give --checkpoint, --data.root, --data.labels and --out; or --check and --data.root")
    elif given.workers is not None:
        parser.error("--workers is for --check")
    return given


def _run(given: argparse.Namespace) -> int:
    from ich_lstm.adaptation.adapt import NoisyLabels, adapt
    from ich_lstm.adaptation.comparing.settings import AdaptSettings
    from ich_lstm.adaptation.write import DOUBTFUL, RECORD, write_adaptation, write_doubtful
    from ich_lstm.cli.preparing.audit import report_audit
    from ich_lstm.data.datamodule import ScanDataModule
    from ich_lstm.evaluation.external import patients_of_run
    from ich_lstm.privacy import PRIVATE, private_folder
    from ich_lstm.training.classifier import ScanClassifier

    out = console()
    chosen: dict[str, Any] = {name: getattr(given, name) for name in SETTINGS if name in given}
    if "rules" in chosen:
        chosen["rules"] = tuple(chosen["rules"])
    settings = AdaptSettings(**chosen)
    _claim(given.out, RECORD)
    model = ScanClassifier.load(given.checkpoint)
    private = private_folder(given.out)
    options = {name: getattr(given, name) for name in DATA if name in given}
    data = ScanDataModule(
        given.root,
        given.labels,
        corrections=given.corrections,
        **{"cache_dir": private / "prepared", **options},
    )

    @contextmanager
    def show() -> Any:
        with progress_bar(out) as progress:
            yield progress

    data.prepare_as(model.known_preprocessing())
    with progress_bar(out) as progress:
        data.progress = progress
        data.prepare_data()
        data.progress = None
    try:
        data.setup("fit")
    finally:
        if data.audit is not None:
            report_audit(data.audit, given.out, out)
    _say_what_follows(out, model, data, settings.last_stage)
    try:
        adaptation = adapt(
            model,
            data,
            settings,
            features=private / "features",
            accelerator="gpu" if given.device == "cuda" else "cpu",
            trained_on=patients_of_run(given.checkpoint),
            show=show,
        )
    except NoisyLabels as error:
        path = write_doubtful(given.out, error.noise, error.series_uids)
        out.print(f"Doubtful labels, the most doubtful first: {path}")
        raise
    page = write_adaptation(given.out, adaptation)
    _print(out, adaptation)
    out.print(f"Page: {page}; report.html and MODEL_CARD.md lie next to it")
    out.print(f"Scans with doubtful labels: {given.out / PRIVATE / DOUBTFUL}")
    if not adaptation.is_adapted:
        return SOME_FAILED
    out.print(f"Next: ich-predict PATH --checkpoint {given.out / 'model'} --out predictions")
    return DONE


def _claim(folder: Path, record: str) -> None:
    """Refuse a folder that holds anything but a stopped adaptation."""
    from ich_lstm.files.output_folder import is_new_or_empty, out_not_empty

    if (folder / record).exists() or not is_new_or_empty(folder, apart_from=MINE):
        raise out_not_empty(folder, "a new or empty folder, or that of an adaptation which was stopped")


def _say_what_follows(out: "Console", model: Any, data: Any, last_stage: bool) -> None:
    """Say how much is encoded, before hours pass."""
    from ich_lstm.data.features.feature_store import bytes_per_slice
    from ich_lstm.files.full_disk import in_bytes

    slices = sum(len(scan.slice_labels) for scans in data.scans.values() for scan in scans)
    scans = sum(len(scans) for scans in data.scans.values())
    passes = 1 if model.settings.test_time == "none" else 2
    needed = in_bytes(passes * slices * bytes_per_slice(model.model.encoder.out_features))
    mirrored = ", twice because the model also looks at mirror images" if passes == 2 else ""
    out.print(f"{scans:,} scans, {slices:,} slices: each is encoded once{mirrored}; {needed} of features")
    if last_stage:
        out.print("--last-stage trains on pixels in every fold: expect some hundred times the time of the encoding")


def _print(out: "Console", adaptation: "Adaptation") -> None:
    from rich.table import Table

    table = Table(title="Weighted log loss of candidates, cross-validated by patient")
    for name, justify in (
        ("", "left"),
        ("loss", "right"),
        ("difference to the model as it is", "right"),
        ("AUC any, scans", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in adaptation.candidates.itertuples():
        chosen = " <" if row.candidate == adaptation.verdict.chosen else ""
        change = "" if row.Index == 0 else f"{row.change:+.4f} ({row.change_low:+.4f} to {row.change_high:+.4f})"
        table.add_row(f"{row.candidate}{chosen}", f"{row.loss:.4f}", change, f"{row.auroc_any:.3f}")
    if not out.is_terminal:
        out.width = FILE_WIDTH
    out.print(table)
    verdict = adaptation.verdict
    out.print(f"{'Adapted' if verdict.is_adapted else 'The model stays as it is'}. {verdict.reason}")


def _check(given: argparse.Namespace) -> int:
    from tempfile import TemporaryDirectory

    from ich_lstm.adaptation.check import check_drift
    from ich_lstm.files.atomic_write import write_text
    from ich_lstm.files.output_folder import check_new_or_empty
    from ich_lstm.privacy import ProjectKey

    out = console()
    if given.out is not None:
        check_new_or_empty(given.out)
    if "num_workers" in given:
        raise ConfigError("wrong_usage", where="command line", got="--data.num_workers with --check", expected="--workers")
    with TemporaryDirectory() as temporary, progress_bar(out) as progress:
        check = check_drift(
            given.check,
            given.root,
            getattr(given, "cache_dir", Path(temporary) / "prepared"),
            key=ProjectKey.open(getattr(given, "project_key", None)),
            workers=given.workers,
            device=given.device,
            progress=progress,
        )
    out.print(check.in_words)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        about = {"scans": check.scans, "moved": bool(check.moved), "drift": [each._asdict() for each in check.drift]}
        write_text(given.out / "check.json", json.dumps(about, indent=1) + "\n")
    return SOME_FAILED if check.moved else DONE


if __name__ == "__main__":
    sys.exit(main())
