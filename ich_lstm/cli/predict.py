"""ich-predict: probabilities of hemorrhage for every study below a path."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ich_lstm.cli.console import DONE, FAILED, SOME_FAILED, OptionParser, console, progress_bar, run_command

HELP = """
ich-predict PATH [PATH ...] --checkpoint FILE_OR_FOLDER --out DIR

Predict every study below the paths (folders, zips, PACS exports): probabilities of the five hemorrhage types and "any",
for each slice and each scan. A study that cannot be read gets a row with the reason, and never a probability.

  --checkpoint PATH    a run's folder, its model folder, a .ckpt, or weights that others released (docs/released.md)
  --out DIR            new or empty folder: slices.csv, scans.csv, manifest.json (shareable, hashed ids), and private/
                       (the key to the ids, the ledger of all files, the choice of series, a page per scan)
  --series UID         read this series instead of the one that is chosen; the beginning of the UID is enough
  --allow-contrast     predict series with contrast too, where a study has nothing plainer (enhanced vessels look like
                       subarachnoid blood; the prediction is flagged)
  --allow-other-body-part  predict what is no head by its name or its pixels too
  --submission FILE    stage_2_sample_submission.csv of RSNA's challenge: answer it, in its order, in private/submission.csv
  --operating-point R  which of the operating points stored with the model is applied, by its rule; left out: the first
  --prevalence P       share of positive scans here, to which calibrated probabilities are moved; or: estimate
  --project-key FILE   key for the ids; left out: the user's own
  --device cpu         or cuda; left out: cuda if there is one
  --debug              show the traceback of an error
  --version

Research use only, not for diagnosis. Exit codes: 0 all done, 1 failed, 2 wrong usage, 3 some inputs failed.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command("ich-predict", HELP, _predict, argv)


def _predict(arguments: list[str]) -> int:
    parser = OptionParser("ich-predict")
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--series")
    parser.add_argument("--allow-contrast", action="store_true")
    parser.add_argument("--allow-other-body-part", action="store_true")
    parser.add_argument("--submission", type=Path)
    parser.add_argument("--operating-point")
    parser.add_argument("--prevalence")
    parser.add_argument("--project-key", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    given = parser.parse(arguments)
    import torch

    from ich_lstm.cli.operating import ESTIMATE, choose_calibration, print_calibration
    from ich_lstm.learning.classifier import ScanClassifier
    from ich_lstm.privacy import PRIVATE, ProjectKey
    from ich_lstm.results.predict import MANIFEST, SUBMISSION, predict_archive

    out = console()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no GPU that torch can use")
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    classifier = ScanClassifier.load(given.checkpoint).to(device)
    classifier.calibration = choose_calibration(classifier.calibration, given.operating_point, given.prevalence)
    done = failed = 0
    with progress_bar(out) as tell:
        results = predict_archive(
            classifier,
            given.paths,
            given.out,
            key=ProjectKey.open(given.project_key),
            series_uid=given.series,
            allow_contrast=given.allow_contrast,
            allow_other_part=given.allow_other_body_part,
            estimate_share=given.prevalence == ESTIMATE,
            submission=given.submission,
            progress=tell,
        )
        for result in results:
            # markup=False: a series description may hold square brackets.
            if result.error is not None:
                failed += 1
                out.print(f"{result.name}: {result.error}", markup=False)
                continue
            done += 1
            out.print(f"{result.name}: {result.page}", markup=False)
            for line in result.choices:
                out.print(f"  {line}", markup=False)
            out.print(repr(result.prediction), markup=False)
    out.print(f"{done} studies predicted, {failed} failed: {given.out / 'scans.csv'}")
    if given.submission:
        out.print(f"submission: {given.out / PRIVATE / SUBMISSION}")
    manifest = json.loads((given.out / MANIFEST).read_text())
    print_calibration(out, manifest)
    if not done:
        return FAILED
    refused = manifest["counts"]["files"]["refused"]
    return SOME_FAILED if failed or refused else DONE


if __name__ == "__main__":
    sys.exit(main())
