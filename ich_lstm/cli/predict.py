"""ich-predict: probabilities of hemorrhage for every study found under a path."""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ich_lstm.archive.exports.formats import EXPORTS, describe_exports, find_export
from ich_lstm.cli.console import DONE, FAILED, SOME_FAILED, OptionParser, choose_device, console, progress_bar, run_command

if TYPE_CHECKING:
    from rich.console import Console

    from ich_lstm.archive.run import Finished, Progressed

STUDIES_IN_FULL = 3
"""Probabilities are printed for at most this many studies, so that logs stay readable; the tables hold all of them."""

WHOLE = "Finished studies, tables and pages are complete; none is truncated."

_EXPORT_OPTIONS = ", ".join(f"--{export.name}" for export in EXPORTS)

HELP = f"""
ich-predict PATH [PATH ...] --checkpoint FILE_OR_FOLDER --out DIR

Predict every study below the paths (folders, zips, PACS exports): probabilities of the five hemorrhage types and "any",
for each slice and each scan. A study that cannot be read gets a row with the reason, and no probabilities.

  --checkpoint PATH    a run's folder, its model folder, a .ckpt, or released weights (docs/released.md)
  --out DIR            slices.csv, scans.csv, worklist.csv (the most urgent first), manifest.json (all shareable, with
                       hashed ids), and private/ (the key to the ids, the ledger of all files, the choice of series, a page
                       per scan and an index of the pages). The folder is new or empty, or it holds predictions of the same
                       model with the same key and options; then new studies are added, for example every night, and a
                       study that is read again replaces its row. If ich-predict was stopped, the same command resumes it
  --identify           write accession number, study UID, patient id and study date into the worklist, which then lies in
                       private/
  --share-pages        also write defaced pages with hashed ids, and an index of them
  --heat-maps WHAT     heat maps on the pages: positive for labels that are called positive (the default), all, or none
{describe_exports(indent=23, width=125)}
  --devices N          number of devices, each with its own process
  --series UID         read this series instead of the chosen one; the beginning of the UID is enough
  --allow-contrast     predict a series with contrast if a study has no non-contrast series (enhanced vessels look like
                       subarachnoid blood; the prediction is flagged)
  --allow-other-body-part  also predict series that do not show a head, judged by their name or pixels
  --vocabulary FILE    your hospital's own words for series, added to the library's: a CSV with the columns kind, language
                       and word (docs/reading.md)
  --submission FILE    stage_2_sample_submission.csv of RSNA's challenge; fill it, in its order, in private/submission.csv
  --operating-point R  rule of the operating point to apply, among those stored with the model; left out: the first
  --channel-order O    bgr or rgb, for Nguyen et al.'s released weights only (docs/released.md); left out: bgr
  --raw-probabilities  write the probabilities of the network; left out: the probability of a scan is raised to that of its
                       most probable slice, and that of "any" to that of the most probable type
  --prevalence P       share of positive scans at your site, 0 to 1, for which probabilities are calibrated; or: estimate
  --project-key FILE   key for the hashed ids; left out: the user's own
  --device cpu         or cuda; left out: cuda if there is one
  --engine NAME        torch or openvino; left out: OpenVINO where it is installed and the device is the CPU
  --precision NAME     float32 or bfloat16; left out: bfloat16 on a CPU that has it. Whatever is chosen is compared with float32
                       on the first scan; if a probability differs by more than 0.005, it is not used (docs/speed.md)
  --debug              show the traceback of an error
  --version

Research use only, not for diagnosis.
Exit codes: 0 every study has a result, 1 failed (or no study has a result), 2 wrong usage, 3 a study has no result (its row
gives the reason), a file that belongs to no study was refused, or an output that was requested ({_EXPORT_OPTIONS},
--heat-maps) could not be made.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ich-predict.

    Args:
        argv: Arguments of the command; None for those of the process.

    Returns:
        The exit code.
    """
    return run_command("ich-predict", HELP, _predict, argv, whole=WHOLE)


def _predict(arguments: list[str]) -> int:
    parser = OptionParser("ich-predict")
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--identify", action="store_true")
    parser.add_argument("--share-pages", action="store_true", default=argparse.SUPPRESS)
    parser.add_argument("--heat-maps", choices=("positive", "all", "none"), default=argparse.SUPPRESS)
    for export in EXPORTS:
        parser.add_argument(f"--{export.name}", dest="exports", action="append_const", const=export.name, default=[])
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--series", dest="series_uid", default=argparse.SUPPRESS)
    parser.add_argument("--allow-contrast", action="store_true", default=argparse.SUPPRESS)
    parser.add_argument("--allow-other-body-part", dest="allow_other_part", action="store_true", default=argparse.SUPPRESS)
    parser.add_argument("--vocabulary", type=Path)
    parser.add_argument("--submission", type=Path)
    parser.add_argument("--raw-probabilities", dest="coherent", action="store_false", default=argparse.SUPPRESS)
    parser.add_argument("--channel-order", choices=("bgr", "rgb"))
    parser.add_argument("--operating-point")
    parser.add_argument("--prevalence")
    parser.add_argument("--project-key", type=Path)
    parser.add_argument("--engine", choices=("auto", "torch", "openvino"), default=argparse.SUPPRESS)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default=argparse.SUPPRESS)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    given = parser.parse(arguments)
    if given.devices < 1:
        parser.error(f"--devices {given.devices}: expected at least 1")

    from ich_lstm.archive.folder.file_names import LEDGER_TABLE, MANIFEST, PAGES, SUBMISSION, WORKLIST
    from ich_lstm.archive.folder.folder import claim_predictions
    from ich_lstm.archive.run import ArchiveRun, find_studies
    from ich_lstm.archive.study import REPEATED, PredictOptions
    from ich_lstm.cli.evaluating.thresholds import ESTIMATE, choose_calibration, print_calibration
    from ich_lstm.inference.predictor import Predictor
    from ich_lstm.parallel import end_with_parent
    from ich_lstm.privacy import PRIVATE, ProjectKey
    from ich_lstm.reading.terms.word_table import use_vocabulary

    out = console()
    device = choose_device(given.device)
    given.vocabulary = use_vocabulary(given.vocabulary)
    given.exports = tuple(export.name for export in EXPORTS if export.name in given.exports)
    options = PredictOptions(**{name: getattr(given, name) for name in PredictOptions.names() if name in given})
    for name in options.exports:
        if (requirement := find_export(name).requirement) is not None:
            requirement.check(f"--{name}")
    is_first = True
    if given.devices > 1:
        from pytorch_lightning.utilities import rank_zero_only

        is_first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    if not is_first:
        end_with_parent()
    # The further processes of --devices work in the folder that the first one has claimed.
    with claim_predictions(given.out) if is_first else nullcontext(), progress_bar(out) as progress:
        predictor = Predictor.load(given.checkpoint, channel_order=given.channel_order, engine=options.engine_choice)
        predictor.model.to(device)
        predictor.calibration = choose_calibration(predictor.calibration, given.operating_point, given.prevalence)
        if predictor.calibration is not None:
            predictor.calibration.check_fits(options.coherent)
        run = ArchiveRun(
            predictor,
            find_studies(given.paths, out=given.out, progress=progress),
            given.out,
            key=ProjectKey.open(given.project_key),
            options=options,
            identify=given.identify,
            estimate_share=given.prevalence == ESTIMATE,
            submission=given.submission,
        )
        progress("predicting", 0, len(run))

        def done(progressed: "Progressed") -> None:
            progress("predicting", 1, len(run))
            _print_study(out, progressed, given.out, is_long=len(run) <= STUDIES_IN_FULL)

        if given.devices > 1:
            from ich_lstm.archive.devices import predict_on_devices

            accelerator = "gpu" if device == "cuda" else "cpu"
            if not predict_on_devices(run, accelerator=accelerator, devices=given.devices, progress=done):
                return DONE  # the first process prints the summary
        else:
            for number in range(len(run)):
                done(run.predict(number))
        finished = run.finish()
    predicted = sum(record.is_predicted for record in finished.records)
    worklist = given.out / PRIVATE / WORKLIST if given.identify else given.out / WORKLIST
    repeated = sum(record.status == REPEATED for record in finished.records)
    failed = len(finished.records) - predicted - repeated
    more = f", {repeated} named twice" if repeated else ""
    out.print(f"{predicted} {'study' if predicted == 1 else 'studies'} predicted, {failed} failed{more}: {worklist}")
    if finished.refused_alone:  # explains the exit code
        files = "1 file that belongs" if finished.refused_alone == 1 else f"{finished.refused_alone:,} files that belong"
        ledger = given.out / PRIVATE / LEDGER_TABLE
        out.print(f"Refused: {files} to no study, so that a study may be missing. Reasons: {ledger}")
    if finished.listed > len(finished.records):
        out.print(f"The worklist holds {finished.listed:,} studies, with those of earlier commands.")
    for path in finished.unfinished:
        out.print(f"{path}: begun by an earlier command and not finished; predict it again to complete the tables.")
    if given.submission:
        out.print(f"submission: {given.out / PRIVATE / SUBMISSION}")
    print_calibration(out, json.loads((given.out / MANIFEST).read_text(encoding="utf-8")))
    if not predicted:
        return FAILED
    asked = {PAGES, *options.exports} | ({"heat_maps"} if "heat_maps" in given else set())
    return DONE if _is_whole(finished, asked) else SOME_FAILED


def _is_whole(finished: "Finished", asked: set[str]) -> bool:
    """Whether every study has a result and all requested outputs were made.

    A refused series does not matter if another series of its study was read.

    Args:
        finished: The result of the run.
        asked: Names of the requested outputs.
    """
    from ich_lstm.archive.study import REPEATED

    # If two paths hold the same study, its result is in the row of the other path.
    has_result = all(record.is_predicted or record.status == REPEATED for record in finished.records)
    is_made = not any(asked & set(record.not_made) for record in finished.records)
    return has_result and is_made and not finished.refused_alone


def _print_study(out: "Console", progressed: "Progressed", folder: Path, *, is_long: bool) -> None:
    """Print the result of a study: in full if there are few studies, and otherwise only failures."""
    record = progressed.record
    if not record.is_predicted:
        out.print(f"{record.name}: {record.error}")
    elif is_long and not progressed.is_new:
        out.print(f"{record.name}: done before")
    elif is_long:
        if record.files:
            out.print(f"{record.name}: {folder / record.files[0]}")
        for line in record.choices:
            out.print(f"  {line}")
        for line in record.text.splitlines():
            out.print(line)
    for what, reason in record.not_made.items():
        out.print(f"{record.name}: no {what.replace('_', ' ')}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
