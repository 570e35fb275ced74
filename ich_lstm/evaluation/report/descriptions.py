"""Descriptions of a study as text for the model card and the checklist; a text is empty where the fact is unknown."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from ich_lstm.evaluation.evidence import Evidence
from ich_lstm.evaluation.figures import Figures
from ich_lstm.evaluation.report.cohort import FlowStep
from ich_lstm.evaluation.run_facts import COUNTED_UNITS, StudyFacts
from ich_lstm.settings import flattened
from ich_lstm.statistics.proportions import PROPORTIONS

DEFAULT_THRESHOLD = 0.5
"""This default was not chosen on any data. For any other number, there is no record of the data on which it was chosen."""


def describe_initialization(facts: StudyFacts) -> str:
    """Describe the initial weights from the model's own record; empty if it has no record."""
    return _start_in_words(facts.model.get("starting_weights"))


def _start_in_words(start: Mapping[str, Any] | None) -> str:
    if not start:
        return ""
    if "released" in start:
        return f"Weights released by other authors. {start['released']}"
    if "model" in start:
        return (
            f"The trained model {start['model']}, weights {start['hash']}. {_start_in_words(start['starting_weights'])}".strip()
        )
    encoder = start["encoder"]
    if encoder["source"] == "random":
        return "All weights were initialized at random."
    if encoder["source"] == "file":
        return (
            f"Encoder: weights of timm's {encoder['name']} from the file {encoder['file']}; the rest was initialized at random."
        )
    origin = encoder.get("hf_hub_id") or encoder.get("url")
    further = "; ".join(filter(None, [origin, f"licence {encoder['license']}" if encoder.get("license") else ""]))
    return f"Encoder: timm's {encoder['name']}{f' ({further})' if further else ''}; the rest was initialized at random."


def training_rows(facts: StudyFacts) -> list[tuple[str, dict[str, str]]]:
    """List the recorded settings of every fit, oldest first, including the fits of the model from which training started.

    Returns:
        The name of each fit, and its recorded settings by name.
    """
    return _rows_of_fits(facts.model.get("starting_weights"), facts.model.get("fits") or ())


def _rows_of_fits(start: Mapping[str, Any] | None, fits: Sequence[Mapping[str, Any]]) -> list[tuple[str, dict[str, str]]]:
    before = _rows_of_fits(start["starting_weights"], start["fits"]) if start and "model" in start else []
    rows = [(f"earlier, {name}", cells) for name, cells in before]
    for number, fit in enumerate(fits, start=1):
        limit = fit["max_epochs"]
        cells = {
            "encoder trained": fit["encoder"],
            "head": fit["head"],
            "epochs": f"{fit['epochs']}" + ("" if limit in (None, -1) else f" of at most {limit}"),
            "steps": f"{fit['steps']:,}",
            **_rows(fit["settings"]),
            **_rows(fit["batches"]),
            "augmentation": ", ".join(f"{name} {_setting(value)}" for name, value in fit["augmentation"].items() if value)
            or "none",
            "seed": _setting(fit["seed"]),
            "precision": fit["precision"],
            "processes": f"{fit['processes']}",
            "accumulated batches": f"{fit['accumulated_batches']}",
            "gradient clip": _setting(fit["gradient_clip"]),
            **_patients(fit),
            **_stored(fit),
            **_faults(fit),
        }
        rows.append((fit["stage"] or f"fit {number}", cells))
    return rows


def _patients(fit: Mapping[str, Any]) -> dict[str, str]:
    """Which share of the training patients a fit had; nothing for all of them."""
    words = {"encoder": "those that were not left to the head", "head": "those that the encoder was not trained on"}
    patients = fit.get("patients", "all")
    return {"training patients": words[patients]} if patients in words else {}


def _stored(fit: Mapping[str, Any]) -> dict[str, str]:
    """Which features a fit stored; nothing for a fit that encoded each batch. Older models did not record it."""
    views = fit.get("views")
    if views is None:
        return {}
    return {"stored features": f"of each scan{f' and {views} augmented copies' if views else ', without augmentation'}"}


def _faults(fit: Mapping[str, Any]) -> dict[str, str]:
    """What went wrong in a fit; nothing for a fit without faults. Older models did not record it."""
    cells = {}
    if fit.get("skipped_steps"):
        cells["skipped steps"] = f"{fit['skipped_steps']:,}, in which a loss or a gradient was not finite"
    if fit.get("returned"):
        cells["went back"] = "once, to an earlier checkpoint or the start, with half the learning rates from there on"
    if fit.get("reduced_chunk"):
        cells["slices per chunk, reduced"] = f"{fit['reduced_chunk']}, because memory ran out"
    return cells


def network_rows(facts: StudyFacts) -> dict[str, str]:
    """List the settings of the network by name, as stored with the weights."""
    # The record of each fit contains the settings of training; `describe_initialization` says which weights were loaded first.
    elsewhere = {"encoder pretrained", *(name for fit in facts.model.get("fits") or () for name in flattened(fit["settings"]))}
    rows = _rows(facts.model.get("settings") or {})
    return {name: text for name, text in rows.items() if name not in elsewhere}


def preprocessing_rows(facts: StudyFacts) -> dict[str, str]:
    """List the settings of the preprocessing by name, as stored with the weights."""
    return _rows(facts.model.get("preprocessing") or {})


def split_rows(facts: StudyFacts) -> dict[str, str]:
    """Describe how patients were divided, the size of each subset, and the share of positive scans in training."""
    split = facts.split
    how = ""
    if split.get("folds"):
        how = f"{split['folds']} folds, fold {split.get('fold')} held out"
    elif split.get("by") == "date":
        how = "by the date of the patient's oldest study: the latest patients are held out"
    elif split.get("fractions"):
        shares = " / ".join(f"{100 * share:g} %" for share in split["fractions"])
        how = f"at random, each label's positive patients in the same shares, {shares}"
    share = facts.model.get("positive_share")
    rows = {
        "split": how,
        **{name: amounts(counts) for name, counts in facts.subsets.items()},
        "positive scans in training": f"{100 * share:.3g} %" if isinstance(share, float) else "",
    }
    return {name: text for name, text in rows.items() if text}


def rows_in_words(rows: Mapping[str, str]) -> str:
    """Write settings in one line for the checklist; empty without settings.

    Example:
        >>> rows_in_words({"size": "256", "crop": "head"})
        'size: 256; crop: head.'
    """
    return "; ".join(f"{name}: {text}" for name, text in rows.items()) + ("." if rows else "")


def _rows(settings: Mapping[str, Any]) -> dict[str, str]:
    """List settings as text by name; those of a part follow the name of the part."""
    return {name: _setting(value) for name, value in flattened(settings).items()}


def _setting(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        is_nested = any(isinstance(item, list | tuple) for item in value)  # windows: level/width of each
        return ", ".join("/".join(map(_setting, item)) if is_nested else _setting(item) for item in value)
    return str(value)


def describe_truth(evidence: Evidence) -> str:
    """Describe the rule by which readers decide on a finding."""
    truth = evidence.source["truth"]
    readers = {
        "majority": "at least two of three readers",
        "unanimous": "all three readers",
        "any": "at least one of three readers",
    }
    return f"A finding counts as present if seen by {readers.get(truth, f'reader {truth}')}." if truth else ""


def describe_uncertainty(figures: Figures) -> str:
    """Describe the method of the intervals."""
    settings = figures.settings
    text = (
        f"95 % intervals by the bootstrap over patients ({settings['replicates']:,} resamples, seed {settings['seed']}), "
        "each patient with all slices and scans; for AUROC, patients with and without the finding are resampled separately"
    )
    return f"{text}. ECE in {settings['bins']} bins of equal width." if "ece" in figures.protocol.figures else f"{text}."


def describe_thresholds(figures: Figures) -> str:
    """Describe the threshold at which a case is called positive."""
    if not set(figures.protocol.figures) & set(PROPORTIONS):
        return ""
    points = figures.settings["thresholds"]
    if isinstance(points, Mapping):
        return "A case is called positive at or above the operating point of its label, which was not chosen on these cases."
    origin = (
        ", which was not chosen on these cases"
        if points == DEFAULT_THRESHOLD
        else "; it is not known on which cases this was chosen"
    )
    return f"A case is called positive at or above a probability of {points:g}{origin}."


def describe_flow(flow: Sequence[FlowStep]) -> str:
    """Describe the flow diagram in one line."""
    lines = []
    for step in flow:
        lost = "; ".join(f"{reason}: {amounts(counts)}" for reason, counts in step.excluded)
        lines.append(f"{step.title}: {amounts(step.counts)}" + (f" (excluded: {lost})" if lost else ""))
    return ". ".join(lines) + "."


def describe_software() -> str:
    """List the versions of the software that computed the figures."""
    names = ("ich_lstm", "numpy", "scipy", "pandas", "torch")
    return "Figures: " + ", ".join(f"{name} {version(name)}" for name in names) + "."


def amounts(counts: Mapping[str, Any]) -> str:
    """Write numbers of files, patients, scans and slices, as far as they are counted.

    Example:
        >>> amounts({"slices": 2700, "patients": 1})
        '1 patient, 2,700 slices'
    """
    order = ("files", *COUNTED_UNITS)
    return ", ".join(f"{counts[unit]:,} {unit if counts[unit] != 1 else unit[:-1]}" for unit in order if unit in counts)
