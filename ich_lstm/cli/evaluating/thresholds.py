"""Command-line options of ich-evaluate and ich-predict for operating points and calibration."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ich_lstm.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from ich_lstm.evaluation.evidence import Evidence
    from ich_lstm.evaluation.protocols import Protocol
    from ich_lstm.inference.calibration import ModelCalibration

ESTIMATE = "estimate"


def choose_calibration(
    calibration: "ModelCalibration | None", point: str | None, prevalence: str | None
) -> "ModelCalibration | None":
    """Set the calibration of a model to the requested operating point and prevalence.

    Args:
        calibration: Stored calibration; None if the model has none.
        point: Rule of the operating point; None for the first one.
        prevalence: A number from 0 to 1, or the word `ESTIMATE`; None for the prevalence in the validation data.

    Raises:
        ConfigError: If the model has no calibration or no such operating point.
    """
    if calibration is None:
        if point is None and prevalence is None:
            return None
        raise not_calibrated("--operating-point" if point is not None else "--prevalence")
    return calibration.choose(point, read_share(prevalence))


def print_calibration(out: "Console", manifest: dict[str, Any]) -> None:
    """Print the calibration that ich-predict has applied, and a warning if the prevalence was estimated.

    Args:
        out: Console that prints the lines.
        manifest: Manifest of the predictions.
    """
    about = manifest["calibration"]
    if about is None:
        return
    if about["operating_point"]:
        out.print(f"operating point {about['operating_point']['rule']}, chosen on {about['chosen_on']} patients")
    prevalence = about["prevalence"]
    if not isinstance(prevalence, dict):
        share, whose = (about["share"], f"as in {about['share_of']}") if prevalence is None else (prevalence, "as stated")
        at = "" if share is None else f" for {100 * share:.3g} % positive scans, {whose}"
        out.print(f"calibrated probabilities ({about['method']}) are{at or ' those of validation'}")
        return
    if prevalence["value"] is None:
        out.print(f"warning: the share of positive scans cannot be estimated: {prevalence['note']}")
        return
    interval = "" if prevalence["low"] is None else f" ({100 * prevalence['low']:.3g} to {100 * prevalence['high']:.3g})"
    out.print(
        f"warning: {100 * prevalence['value']:.3g}{interval} % positive scans were estimated without labels; the estimate "
        f"{prevalence['note']}",
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ich-evaluate that choose operating points on validation patients, or apply stored ones."""
    parser.add_argument("--calibrate", nargs="+", metavar="RULE")
    parser.add_argument("--recalibration", choices=("platt", "temperature"), default=argparse.SUPPRESS)
    parser.add_argument("--operating-point", nargs="?", const="", metavar="RULE")
    parser.add_argument("--calibrated", action="store_true")
    parser.add_argument("--prevalence")
    parser.add_argument("--model", type=Path)


def check_options(given: argparse.Namespace, protocol: "Protocol") -> None:
    """Check that the options are compatible with each other and the protocol, before anything is read or written.

    ``--calibrate`` alone also applies the first operating point that it chooses.

    Args:
        given: Options of ich-evaluate; the operating point may be set.
        protocol: The figures that will be computed.

    Raises:
        ConfigError: If options are not compatible.
    """
    from ich_lstm.evaluation.aggregate import OWN

    if given.calibrate and given.operating_point is None and not given.calibrated:
        given.operating_point = ""
    at_point = given.operating_point is not None
    for is_wrong, got, expected in (
        (
            at_point and given.calibrated,
            "an operating point, and --calibrated",
            "one, because thresholds apply to raw probabilities",
        ),
        (at_point and "threshold" in given, "an operating point, and --threshold", "only one of them"),
        (given.prevalence is not None and not given.calibrated, "--prevalence alone", "--calibrated --prevalence P"),
        (given.prevalence == ESTIMATE, f"--prevalence {ESTIMATE}", "a number; ich-predict estimates it"),
        ("recalibration" in given and not given.calibrate, "--recalibration alone", "--calibrate RULE --recalibration METHOD"),
        (
            given.calibrate and getattr(given, "subset", "") == "validation",
            "--calibrate with --part validation",
            "--part test, because thresholds must not be evaluated on the patients on whom they were chosen",
        ),
        (
            given.calibrate and (given.labels or given.checkpoint),
            "--calibrate with --labels",
            "a run, because --calibrate needs validation patients",
        ),
    ):
        if is_wrong:
            raise ConfigError("wrong_usage", where="command line", got=got, expected=expected)
    if not at_point and not given.calibrated:
        return
    for view in protocol.views:
        if view.output != "sequence" or (view.level != "slice" and view.aggregation != OWN):
            option = "--calibrated" if given.calibrated else "--operating-point"
            raise ConfigError(
                "other_output",
                where=option,
                got=f"{view.level}, {view.aggregation}, {view.output}",
                expected="slices, and scans by the model's own output, because thresholds and calibration were fitted to these",
                todo=f"Leave out {option}, or leave out --aggregation and --protocol.",
            )


def calibrate_run(given: argparse.Namespace, out: "Console") -> None:
    """Choose operating points on a run's validation patients by the rules of ``--calibrate``, and store them with its model.

    Args:
        given: Options of ich-evaluate.
        out: Console that prints the operating points.
    """
    from ich_lstm.evaluation.evidence import read_run
    from ich_lstm.evaluation.thresholds.calibrate import fit_calibration
    from ich_lstm.evaluation.thresholds.operating_points import parse_rule
    from ich_lstm.inference.calibration_file import write_calibration
    from ich_lstm.inference.checkpoint import ABOUT_FILE

    rules = [parse_rule(rule) for rule in given.calibrate]
    settings = {name: getattr(given, name) for name in ("replicates", "seed") if name in given}
    if "recalibration" in given:
        settings["method"] = given.recalibration
    evidence = read_run(given.source, "validation")
    about = given.source / "model" / ABOUT_FILE
    share = json.loads(about.read_text()).get("positive_share") if about.is_file() else None
    calibration = fit_calibration(evidence, rules, training_share=share, **settings)
    path = write_calibration(about.parent, calibration)
    for points in calibration.points:
        for level, labels in points.thresholds.items():
            for label, found in labels.items():
                rates = f"sensitivity {found.sensitivity}, specificity {found.specificity}"
                what = f"none: {found.note}" if found.value is None else f"{found.value:.4g}: {rates}"
                out.print(f"{points.rule}, {level}, {label}: {what}")
    for level, corrections in calibration.corrections.items():
        for label, correction in corrections.items():
            if correction.recalibration is None:
                out.print(f"not calibrated: {level}, {label}: {correction.note}")
    out.print(f"Chosen on validation patients, so figures on these patients are optimistic: {path}")


def judge_by_choice(given: argparse.Namespace, evidence: "Evidence") -> "tuple[Evidence, dict[str, Any]]":
    """Apply the stored operating point or calibration of the model, if an option asks for it.

    Args:
        given: Options of ich-evaluate.
        evidence: Predictions with the labels to evaluate them.

    Returns:
        The evidence, with a note on the operating point or with calibrated probabilities, and settings for `compute_figures`.

    Raises:
        ConfigError: If the model has no calibration, or if its calibration was chosen on these cases.
    """
    from ich_lstm.evaluation.thresholds.calibrate import calibrate_evidence, operating_thresholds
    from ich_lstm.inference.calibration_file import read_calibration
    from ich_lstm.inference.checkpoint import find_model_folder

    if given.operating_point is None and not given.calibrated:
        return evidence, {}
    option = "--calibrated" if given.calibrated else "--operating-point"
    folder = find_model_folder(given.model or given.checkpoint or given.source)
    weights = evidence.source["model"].get("hash", "")
    stored = None if folder is None else read_calibration(folder, weights)
    if stored is None:
        raise not_calibrated(option)
    chosen = stored.choose(given.operating_point or None, read_share(given.prevalence))
    if given.calibrated:
        return calibrate_evidence(evidence, chosen), {}
    thresholds, notes = operating_thresholds(evidence, chosen)
    source = {**evidence.source, "notes": [*evidence.source["notes"], *notes]}
    return replace(evidence, source=source), {"thresholds": thresholds}


def read_share(prevalence: str | None) -> float | None:
    """The share of positive scans that ``--prevalence`` states; None if it is to be estimated, or was not given.

    Args:
        prevalence: Value of ``--prevalence``; None if it was not given.

    Raises:
        ConfigError: If the value is neither a number nor `ESTIMATE`.
    """
    try:
        return None if prevalence is None or prevalence == ESTIMATE else float(prevalence)
    except ValueError as error:
        expected = f"a number between 0 and 1, or {ESTIMATE}"
        raise ConfigError("wrong_usage", where="--prevalence", got=repr(prevalence), expected=expected) from error


def not_calibrated(option: str) -> ConfigError:
    """The error for a model that has no calibration.

    Args:
        option: The option that needs a calibration.
    """
    return ConfigError(
        "not_calibrated",
        where=option,
        got="a model without calibration.json",
        expected="a model with the calibration.json that ich-evaluate RUN --calibrate RULE --out DIR writes",
        todo="Give the model's folder, not a .ckpt (for predictions: --model DIR), or run ich-evaluate RUN --calibrate first.",
    )
