"""ich-evaluate: evaluates predictions against labels, with confidence intervals over patients."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ich_lstm.cli.console import DONE, OptionParser, choose_device, console, progress_bar, run_command
from ich_lstm.cli.evaluating.comparisons import add_options, figure_settings, write_supplements
from ich_lstm.cli.evaluating.comparisons import check_options as check_supplements
from ich_lstm.cli.evaluating.report import write_report_pages
from ich_lstm.cli.evaluating.review import add_review_options, check_review_options, write_review_pages
from ich_lstm.cli.evaluating.thresholds import add_options as add_operating_options
from ich_lstm.cli.evaluating.thresholds import calibrate_run, check_options, judge_by_choice
from ich_lstm.errors import ConfigError
from ich_lstm.files.output_folder import check_new_or_empty

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from rich.console import Console

    from ich_lstm.evaluation.evidence import Evidence
    from ich_lstm.evaluation.figures import Figures
    from ich_lstm.evaluation.protocols import Protocol

    Progress = Callable[[str, int, int | None], None]

LEADING = ("auroc", "calibration slope", "sensitivity", "specificity")
"""Figures to print if no protocol is given; the files hold all figures."""

FILE_WIDTH = 160
"""Width of printed tables in characters if the output is not a terminal; it is large enough that no cell is wrapped."""

WHOLE = "Compute the figures again, because files in the folder may be incomplete."

HELP = """
ich-evaluate RUN --out DIR
ich-evaluate PREDICTIONS --labels CSV --out DIR
ich-evaluate --checkpoint PATH --data.root PATH --labels CSV --out DIR

Compute log loss, AUROC, average precision, calibration, accuracy, sensitivity, specificity, PPV, NPV, F1 and Brier score of
every label, each with a 95 % interval over patients. RUN: the held-out patients of a run of ich-train. PREDICTIONS: a folder
made by ich-predict, with a label table. --checkpoint: a model on a labelled data set.

  --out DIR              new or empty folder: report.html and .json, MODEL_CARD.md, claim.csv and .md (CLAIM 2024), tables/,
                         figures.csv, .md and .json (all shareable)
  --level LEVEL ...      slice, scan, patient; left out: all three
  --aggregation own      how slices become scans: own (the model's scan output), max, mean, top-3 (mean of the three
                         highest; any number), noisy-or; the probability of a patient is the maximum over the scans
  --protocol NAME        evaluate as in a publication: rsna, cq500-nguyen, burduja-table3, burduja-table5
  --threshold 0.5        threshold at or above which a label is called positive; it must be chosen on other patients
  --at-prevalence P ...  also compute PPV and NPV at these shares of positive cases
  --replicates 2000      number of bootstrap resamples over patients
  --seed 0               seed of the bootstrap
  --bins 10              number of bins of the calibration error
  --part test            subset of a run to evaluate: test or validation

  --compare WHAT ...     compare with another model on the same cases: the path of a run or of predictions; encoder: the model
                         without its recurrent head; position: a model that only knows the place of a slice in its scan
  --strata [PATH ...]    evaluate groups of scans, by number and spacing of slices, types of hemorrhage, flags and columns of
                         the labels, and by the columns of a CSV with scan_id or of a prepared folder (thickness, tilt); for
                         RUN or PREDICTIONS
  --readers CSV          readers' marks (scan_id or study_uid ..., reader, labels), or CQ500's reads.csv: evaluate each reader
                         and the model against the labels, and against the other readers where they agree; kappa

  --review DIR           write pages with pictures of the slices and scans on which model and labels disagree most, for a
                         review: private/review.html, review.html; DIR is the folder of ich-prepare that holds the scans
  --most 50              number of slices, and of scans, on these pages

  --calibrate RULE ...   first choose operating points and calibration on a run's validation patients, and store them with its
                         model: sensitivity=0.95, specificity=0.9, youden, alarms=10 (per 100 scans), alarms=10@0.08 (if 8 %
                         are positive); then evaluate at the first operating point
  --recalibration platt  method of --calibrate; or temperature
  --operating-point [R]  evaluate at the thresholds stored with the model, by this rule or by the first; for RUN
  --calibrated           evaluate calibrated probabilities
  --prevalence P         share of positive scans, 0 to 1, for which --calibrated adjusts the probabilities
  --model PATH           run of the model that made PREDICTIONS, for --operating-point and --calibrated, and to check that it
                         was not trained on the evaluated patients

  --labels CSV           label table, as for training; may be repeated, and the tables are read as one
  --key CSV              key to the ids of PREDICTIONS; left out: its private/key.csv. For --readers with RUN: the folder of
                         ich-prepare with the scans of the run
  --truth majority       which of CQ500's readers must have marked a finding; or unanimous, any, R1, R2, R3
  --unmatched WORD       where labels and scans do not match: stop, or exclude and count labels (and readers' marks, without an
                         evaluated scan), images (without a label), or both
  --disagreement WORD    where the label of a scan contradicts those of its slices: stop, or unknown (both become unknown)
  --repair-any           set "any" to 1 where a type is 1 and "any" is 0
  --patient-ids WORD     study: every study counts as a patient of its own; trusted: with --checkpoint, doubtful ids do not
                         stop the command
  --project-key FILE     key for the hashed ids; left out: the user's own
  --checkpoint PATH      a run's folder, its model folder, or a .ckpt
  --device cpu           or cuda
  --data.root PATH       DICOM files, or a folder made by ich-prepare
  --data.cache_dir DIR   folder for prepared scans
  --data.num_workers N   loader processes; left out: one less than the cores, at most 8, and 0 for one or two cores

  --debug                show the traceback of an error
  --version

Exit codes: 0 done, 1 failed (predictions or labels that cannot be evaluated), 2 wrong usage.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ich-evaluate.

    Args:
        argv: Arguments of the command; None for those of the process.

    Returns:
        The exit code.
    """
    return run_command("ich-evaluate", HELP, _evaluate, argv, whole=WHOLE)


def _evaluate(arguments: list[str]) -> int:
    given = _parse(arguments)
    from ich_lstm.evaluation.figures import compute_figures
    from ich_lstm.evaluation.report.tables import write_figures

    protocol = _protocol(given)
    out = console()
    check_options(given, protocol)
    check_supplements(given)
    if given.calibrate:
        calibrate_run(given, out)
    with progress_bar(out) as progress:
        evidence, chosen = judge_by_choice(given, _evidence(given, protocol.truth, progress))
        progress("computing figures", 0, len(protocol.views))
        figures = compute_figures(
            evidence,
            protocol,
            settings=figure_settings(given),
            progress=lambda done: progress("computing figures", done, len(protocol.views)),
            **{**_thresholds(given), **chosen},
        )
        write_figures(given.out, evidence, figures)
        shown, supplements = write_supplements(
            given, evidence, figures, lambda path: _other_evidence(given, path, protocol.truth, progress), progress
        )
        page = write_report_pages(given, evidence, figures, supplements, progress)
        review = write_review_pages(given, evidence, figures, progress)
    _print_figures(out, evidence, figures)
    for title, cells, _ in shown:
        _print_table(out, title, cells)
    if review:
        out.print(review)
    out.print(f"Figures: {given.out / 'figures.csv'}, and as .md and .json")
    out.print(f"Report: {page}; the model card and CLAIM 2024 lie next to it")
    return DONE


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = OptionParser("ich-evaluate")
    parser.add_argument("source", type=Path, nargs="?", metavar="RUN_OR_PREDICTIONS")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--level", nargs="+", choices=("slice", "scan", "patient"))
    parser.add_argument("--aggregation", default=argparse.SUPPRESS)
    parser.add_argument("--protocol")
    parser.add_argument("--threshold", default=argparse.SUPPRESS)
    parser.add_argument("--at-prevalence", dest="prevalences", type=float, nargs="+", default=argparse.SUPPRESS)
    for name in ("replicates", "seed", "bins"):
        # Options that are not given are not passed on, so that the defaults stand in FigureSettings alone.
        parser.add_argument(f"--{name}", type=int, default=argparse.SUPPRESS)
    parser.add_argument("--part", dest="subset", choices=("test", "validation"), default=argparse.SUPPRESS)
    add_options(parser)
    add_operating_options(parser)
    add_review_options(parser)
    parser.add_argument("--labels", type=Path, action="append")
    parser.add_argument("--key", type=Path)
    parser.add_argument("--truth", default=argparse.SUPPRESS)
    parser.add_argument("--unmatched", choices=("stop", "labels", "images", "both"), default=argparse.SUPPRESS)
    parser.add_argument("--disagreement", choices=("stop", "unknown"), default=argparse.SUPPRESS)
    parser.add_argument("--repair-any", action="store_true", default=argparse.SUPPRESS)
    parser.add_argument("--patient-ids", choices=("trusted", "study"), default=argparse.SUPPRESS)
    parser.add_argument("--project-key", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--data.root", dest="root", type=Path)
    parser.add_argument("--data.cache_dir", dest="cache_dir", type=Path)
    parser.add_argument("--data.num_workers", dest="num_workers", type=int, default=argparse.SUPPRESS)
    given = parser.parse(arguments)
    check_review_options(parser, given)
    if (given.source is None) == (given.checkpoint is None):
        parser.error("give the path of a run or of predictions, or give a model with --checkpoint and --data.root")
    if given.checkpoint is not None and (given.root is None or not given.labels):
        parser.error("--checkpoint needs --data.root and --labels")
    if given.root is not None and given.checkpoint is None:
        parser.error("--data.root needs --checkpoint")
    if given.labels and "subset" in given:
        parser.error("--part is for a run, which stores its labels; leave out --labels or --part")
    if not given.labels and {"truth", "patient_ids", "disagreement", "repair_any"} & {*vars(given)}:
        parser.error("--truth, --patient-ids, --disagreement and --repair-any need --labels")
    if not given.labels and not given.readers and (given.key or "unmatched" in given):
        parser.error("--key and --unmatched need --labels or --readers")
    if given.protocol and (given.level or "aggregation" in given):
        parser.error("--protocol sets the levels and the aggregation; leave out --level and --aggregation")
    check_new_or_empty(given.out)
    return given


def _protocol(given: argparse.Namespace) -> "Protocol":
    from ich_lstm.evaluation.aggregate import check_aggregation
    from ich_lstm.evaluation.protocols import all_figures, find_protocol

    if given.protocol:
        return find_protocol(given.protocol)
    chosen = _given(given, "aggregation")
    if chosen:
        check_aggregation(given.aggregation)
    if given.level:
        chosen["levels"] = tuple(dict.fromkeys(given.level))
    return all_figures(**chosen)


def _thresholds(given: argparse.Namespace) -> dict[str, float]:
    """The value of ``--threshold`` as a setting of `compute_figures`; empty if it was not given."""
    settings = {}
    if "threshold" in given:
        try:
            settings["thresholds"] = float(given.threshold)
        except ValueError as error:
            raise ConfigError(
                "threshold_from_test",
                where="--threshold",
                got=repr(given.threshold),
                expected="a number from 0 to 1 that was chosen on other patients",
                todo="Give a number. A threshold that is evaluated on the cases it was chosen on looks better than it is.",
            ) from error
    return settings


def _evidence(given: argparse.Namespace, truth: str, progress: "Progress") -> "Evidence":
    """The predictions to evaluate, from a run, from predictions with a label table, or from a model on a data set."""
    if not given.labels:
        from ich_lstm.evaluation.evidence import read_run

        return read_run(given.source, **_given(given, "subset"))
    if truth and getattr(given, "truth", truth) != truth:
        raise ConfigError(
            "other_truth", where="--truth", got=given.truth, expected=f"{truth}, which --protocol {given.protocol} uses"
        )
    from ich_lstm.data.labels.table import read_label_tables
    from ich_lstm.privacy import ProjectKey

    key = ProjectKey.open(given.project_key)
    readers: dict[str, Any] = {"truth": getattr(given, "truth", truth)} if truth or "truth" in given else {}
    if given.checkpoint is not None:
        return _predict(given, key, readers, progress)
    from ich_lstm.evaluation.external import patients_of_run
    from ich_lstm.evaluation.joined import join_predictions

    return join_predictions(
        given.source,
        read_label_tables(given.labels, **readers, **_given(given, "repair_any")),
        given.key,
        project_key=key,
        trained_on=patients_of_run(given.model) if given.model else (),
        **_given(given, "patient_ids", "unmatched", "disagreement"),
        **readers,
    )


def _other_evidence(given: argparse.Namespace, path: Path, truth: str, progress: "Progress") -> "tuple[Evidence, dict[str, Any]]":
    """The evidence of another model on the same cases, with the operating point or calibration of that model."""
    name = "source" if given.checkpoint is None else "checkpoint"
    other = argparse.Namespace(**{**vars(given), name: path, "key": None, "model": None})
    return judge_by_choice(other, _evidence(other, truth, progress))


def _predict(given: argparse.Namespace, key: Any, readers: dict[str, Any], progress: "Progress") -> "Evidence":
    """Predict a data set with a model that was trained on another one."""
    from ich_lstm.data.datamodule import ScanDataModule
    from ich_lstm.data.prepared.folder import PreparedFolder
    from ich_lstm.evaluation.external import patients_of_run, predict_evidence
    from ich_lstm.training.classifier import ScanClassifier

    device = choose_device(given.device)
    classifier = ScanClassifier.load(given.checkpoint)
    classifier.to(device)
    # A prepared folder holds its own preprocessing; predict_evidence checks that it is the model's.
    is_prepared = PreparedFolder.is_one(given.root)
    data = ScanDataModule(
        root=given.root,
        labels=given.labels,
        cache_dir=given.cache_dir,
        project_key=given.project_key,
        preprocessing=None if is_prepared else classifier.preprocessing,
        **_given(given, "patient_ids", "num_workers", "unmatched", "disagreement", "repair_any"),
        **readers,
    )
    data.progress = progress
    data.prepare_data()
    data.setup()
    return predict_evidence(
        classifier,
        data,
        key=key,
        trained_on=patients_of_run(given.checkpoint),
        progress=lambda done, total: progress("predicting", done, total),
        **readers,
    )


def _given(given: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The values of those options that were given; for the others, the defaults of the called function hold."""
    return {name: getattr(given, name) for name in names if name in given}


def _print_figures(out: "Console", evidence: "Evidence", figures: "Figures") -> None:
    from ich_lstm.evaluation.figures import main_rows
    from ich_lstm.evaluation.report.tables import flat_counts, readable_tables, remarks

    out.print("; ".join(f"{name} {count:,}" for name, count in flat_counts(evidence).items()))
    if figures.protocol.name:
        out.print(f"Protocol {figures.protocol.name}: {figures.protocol.source}")
    if not out.is_terminal:
        out.width = FILE_WIDTH
    for title, cells, over_all in readable_tables(figures):
        shown = list(cells.columns) if figures.protocol.name else list(LEADING)
        _print_table(out, f"{title}; {over_all}".rstrip("; "), cells[shown])
    for line in remarks(evidence, figures):
        out.print(f"- {line}")
    rows = main_rows(figures.table)
    undefined, bare = int(rows["value"].isna().sum()), int((rows["value"].notna() & rows["low"].isna()).sum())
    if undefined or bare:
        out.print(f"- {undefined} figures are undefined, and {bare} have no interval; figures.md gives the reasons")


def _print_table(out: "Console", title: str, cells: "pd.DataFrame") -> None:
    from rich.table import Table

    table = Table("", *map(str, cells.columns), title=title, title_justify="left")
    for name, row in zip(cells.index, cells.to_numpy(dtype=object).tolist(), strict=True):
        table.add_row(str(name), *map(str, row))
    out.print(table)


if __name__ == "__main__":
    sys.exit(main())
