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
"""Figures that are printed where no protocol names them; the files hold all of them."""

FILE_WIDTH = 160
"""Width in characters of a table where the output is no terminal: enough that no cell is wrapped."""

WHOLE = "The figures have to be computed again: files in the folder may be incomplete."

HELP = """
ich-evaluate RUN --out DIR
ich-evaluate PREDICTIONS --labels CSV --out DIR
ich-evaluate --checkpoint PATH --data.root PATH --labels CSV --out DIR

Log loss, AUROC, average precision, calibration, accuracy, sensitivity, specificity, PPV, NPV, F1 and Brier score of every
label, each with a 95 % interval over patients: of the held-out patients of a run of ich-train; of a folder that ich-predict
made, beside a label table; or of a model on a data set.

  --out DIR              new or empty folder: report.html and .json, MODEL_CARD.md, claim.csv and .md (CLAIM 2024), tables/,
                         figures.csv, .md and .json (all shareable)
  --level LEVEL ...      slice, scan, patient; left out: all three
  --aggregation own      how slices become scans: own (the model's scan output), max, mean, top-3 (mean of the three
                         highest; any number), noisy-or; scans become patients by their maximum
  --protocol NAME        evaluate as others did: rsna, cq500-nguyen, burduja-table3, burduja-table5
  --threshold 0.5        called positive at or above; never chosen on the cases that are judged
  --at-prevalence P ...  PPV and NPV also at these shares of positive cases
  --replicates 2000      of the bootstrap over patients     --seed 0     --bins 10 (of the calibration error)
  --part test            of a run; or validation

  --compare WHAT ...     with another model on the same cases: a run or a folder like the first; encoder: the model without
                         its recurrent head; position: one that knows only where in its scan a slice is
  --strata [PATH ...]    by kinds of scans: slices, their distance, types of hemorrhage, flags, columns of the labels; and
                         those of a CSV with scan_id, or of a prepared folder (thickness, tilt); after RUN or PREDICTIONS
  --readers CSV          readers' marks (scan_id or study_uid ..., reader, labels), or CQ500's reads.csv: each reader and the
                         model by the labels, and by the other readers where they agree; kappa

  --review DIR           pages with pictures of the slices and scans on which model and labels disagree most, to be settled: with
                         the folder of ich-prepare that holds them; --most 50 of each. private/review.html, review.html

  --calibrate RULE ...   first choose operating points and calibration on a run's validation patients, and write them beside
                         its model: sensitivity=0.95, specificity=0.9, youden, alarms=10 (per 100 scans), alarms=10@0.08
                         (where 8 % are positive); --recalibration platt or temperature; then judge at the first
  --operating-point [R]  judge at the thresholds stored with the model: of this rule, or the first; after RUN
  --calibrated           judge calibrated probabilities; --prevalence P: moved to this share of positive scans
  --model PATH           the run of the model that made PREDICTIONS: for these two options, and to check that it was not
                         trained on the patients that are judged

  --labels CSV           label table, as for training; repeat it for several
  --key CSV              key to the ids of PREDICTIONS; left out: its private/key.csv. For --readers after RUN: the folder of
                         ich-prepare that it was trained from
  --truth majority       who of CQ500's readers must have seen a finding: majority, unanimous, any, R1, R2, R3
  --unmatched WORD       where labels and scans do not match: stop; or leave out, and count: labels (and readers' marks, of scans
                         that are not judged), images (that have no label), both
  --disagreement WORD    where the label of a scan contradicts those of its slices: stop; unknown: neither counts
  --repair-any           where labels say that a type is present and any is not, believe the type
  --patient-ids WORD     study: every study counts as a patient of its own; trusted: with --checkpoint, doubtful ids do not
                         stop
  --project-key FILE     key for the ids; left out: the user's own
  --checkpoint PATH      a run's folder, its model folder, or a .ckpt     --device cpu   or cuda
  --data.root PATH       DICOM files, or a folder made by ich-prepare     --data.cache_dir DIR
  --data.num_workers N   loader processes; left out: one less than there are cores, at most 8, none for two cores or one

  --debug                show the traceback of an error
  --version

Exit codes: 0 done, 1 failed (predictions or labels that cannot be judged), 2 wrong usage.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
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
        out.print(review, markup=False)
    out.print(f"Figures: {given.out / 'figures.csv'}, and as .md and .json", markup=False)
    out.print(f"Report: {page}; model card and CLAIM 2024 beside it", markup=False)
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
        # The defaults are those of evaluate_labels: what is not given is not passed on.
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
        parser.error("name a run or a folder of predictions; or a model with --checkpoint and --data.root")
    if given.checkpoint is not None and (given.root is None or not given.labels):
        parser.error("--checkpoint goes with --data.root and --labels")
    if given.root is not None and given.checkpoint is None:
        parser.error("--data.root goes with --checkpoint")
    if given.labels and "subset" in given:
        parser.error("--part is of a run, which has its labels; leave --labels or --part out")
    if not given.labels and {"truth", "patient_ids", "disagreement", "repair_any"} & {*vars(given)}:
        parser.error("--truth, --patient-ids, --disagreement and --repair-any go with --labels")
    if not given.labels and not given.readers and (given.key or "unmatched" in given):
        parser.error("--key and --unmatched go with --labels or --readers")
    if given.protocol and (given.level or "aggregation" in given):
        parser.error("--protocol says which levels and which aggregation; leave --level and --aggregation out")
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
    """The threshold that was given, by the name that `compute_figures` has for it."""
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
                todo="A threshold chosen on the cases that it is judged on looks better than it is.",
            ) from error
    return settings


def _evidence(given: argparse.Namespace, truth: str, progress: "Progress") -> "Evidence":
    """The predictions that are judged, from any of their sources."""
    if not given.labels:
        from ich_lstm.evaluation.evidence import read_run

        return read_run(given.source, **_given(given, "subset"))
    if truth and getattr(given, "truth", truth) != truth:
        raise ConfigError(
            "other_truth", where="--truth", got=given.truth, expected=f"{truth}, as --protocol {given.protocol} has it"
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
    """The evidence of another model on the same cases, with the choices that were made for that model."""
    name = "source" if given.checkpoint is None else "checkpoint"
    other = argparse.Namespace(**{**vars(given), name: path, "key": None, "model": None})
    return judge_by_choice(other, _evidence(other, truth, progress))


def _predict(given: argparse.Namespace, key: Any, readers: dict[str, Any], progress: "Progress") -> "Evidence":
    """Predict a data set with a model that was trained on another."""
    from ich_lstm.data.datamodule import ScanDataModule
    from ich_lstm.data.prepared.folder import PreparedFolder
    from ich_lstm.evaluation.external import patients_of_run, predict_evidence
    from ich_lstm.training.classifier import ScanClassifier

    device = choose_device(given.device)
    classifier = ScanClassifier.load(given.checkpoint)
    classifier.to(device)
    # A prepared folder says itself how its scans were prepared; whether that is the model's way, `predict_evidence` checks.
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
    """Those of some options that were given: the others are left to the signatures."""
    return {name: getattr(given, name) for name in names if name in given}


def _print_figures(out: "Console", evidence: "Evidence", figures: "Figures") -> None:
    from ich_lstm.evaluation.figures import main_rows
    from ich_lstm.evaluation.report.tables import flat_counts, readable_tables, remarks

    out.print("; ".join(f"{name} {count:,}" for name, count in flat_counts(evidence).items()), markup=False)
    if figures.protocol.name:
        out.print(f"Protocol {figures.protocol.name}: {figures.protocol.source}", markup=False)
    if not out.is_terminal:
        out.width = FILE_WIDTH
    for title, cells, over_all in readable_tables(figures):
        shown = list(cells.columns) if figures.protocol.name else list(LEADING)
        _print_table(out, f"{title}; {over_all}".rstrip("; "), cells[shown])
    for line in remarks(evidence, figures):
        out.print(f"- {line}", markup=False)
    rows = main_rows(figures.table)
    undefined, bare = int(rows["value"].isna().sum()), int((rows["value"].notna() & rows["low"].isna()).sum())
    if undefined or bare:
        out.print(f"- {undefined} figures are undefined, and {bare} have no interval; figures.md says why of each")


def _print_table(out: "Console", title: str, cells: "pd.DataFrame") -> None:
    from rich.table import Table

    table = Table("", *map(str, cells.columns), title=title, title_justify="left")
    for name, row in zip(cells.index, cells.to_numpy(dtype=object).tolist(), strict=True):
        table.add_row(str(name), *map(str, row))
    out.print(table)


if __name__ == "__main__":
    sys.exit(main())
