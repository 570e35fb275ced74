"""Descriptions of a study as text for the model card and the checklist; a text is empty where the fact is unknown."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from ich_lstm.evaluation.evidence import Evidence
from ich_lstm.evaluation.figures import Figures
from ich_lstm.evaluation.report.cohort import FlowStep
from ich_lstm.evaluation.run_facts import PARTS_COUNTED, StudyFacts
from ich_lstm.labels import LABELS
from ich_lstm.statistics.proportions import PROPORTIONS

HEADS = {"lstm": "LSTM", "gru": "GRU", "none": "no recurrent head"}
POOLINGS = {
    "max": "maximum",
    "noisy-or": "noisy-or",
    "log-sum-exp": "log-sum-exp",
    "attention": "attention per label",
    "feature-attention": "attention per label over features",
}

DEFAULT_THRESHOLD = 0.5
"""Chosen on no data at all; of any other number that is given, nothing tells on which."""


def describe_model(facts: StudyFacts) -> str:
    """Inputs, encoder, sequence head, outputs."""
    settings = facts.model.get("settings") or {}
    if not settings:
        return ""
    windows = ", ".join(f"{level:g}/{width:g}" for level, width in settings.get("windows") or ())
    head = HEADS.get(str(settings.get("sequence")), str(settings.get("sequence")))
    if settings.get("sequence") != "none":
        way = "bidirectional " if settings.get("bidirectional") else ""
        head = f"{way}{head}, {settings.get('num_layers')} layers of {settings.get('hidden_size')} units"
    parts = [
        "Input: all slices of a scan in Hounsfield units" + (f", as windows (level/width) {windows}" if windows else ""),
        f"encoder of each slice: {settings.get('backbone')} (timm)",
        f"along the slices: {head}"
        + (", with slice positions" if settings.get("positions") not in (None, False, "none") else ""),
        f"scan output by {POOLINGS.get(str(settings.get('pooling')), settings.get('pooling'))} over slices",
        f"output: probabilities of {', '.join(LABELS)}, for each slice and for the scan",
    ]
    return "; ".join(parts) + "."


def describe_initialization(facts: StudyFacts) -> str:
    """Where the weights began, as the model's own record says; empty if it has none."""
    return _start_in_words(facts.model.get("starting_weights"))


def _start_in_words(start: Mapping[str, Any] | None) -> str:
    if not start:
        return ""
    if "released" in start:
        return f"Weights released by others. {start['released']}"
    if "model" in start:
        return (
            f"The trained model {start['model']}, weights {start['hash']}. {_start_in_words(start['starting_weights'])}".strip()
        )
    encoder = start["encoder"]
    if encoder["source"] == "random":
        return "All weights at random."
    if encoder["source"] == "file":
        return f"Encoder: weights of timm's {encoder['name']} from the file {encoder['file']}; the rest at random."
    origin = encoder.get("hf_hub_id") or encoder.get("url")
    further = "; ".join(filter(None, [origin, f"licence {encoder['license']}" if encoder.get("license") else ""]))
    return f"Encoder: timm's {encoder['name']}{f' ({further})' if further else ''}; the rest at random."


def describe_preprocessing(facts: StudyFacts) -> str:
    """From DICOM to what the network gets."""
    how = facts.model.get("preprocessing") or {}
    if not how:
        return ""
    crops = {
        "head": "cropped to the head, one square for all slices, resized to",
        "center": "the middle of the image at its own resolution, filled up with air, as",
    }
    crop = crops.get(str(how.get("crop")), "the whole field of view, resized to")
    clip = how.get("clip")
    limits = f"; HU clipped to {clip[0]} to {clip[1]}" if clip else ""
    size = how.get("size")
    return f"Rescaled to Hounsfield units, slices ordered by position, {crop} {size} x {size}{limits}."


def describe_training(facts: StudyFacts) -> str:
    """Every recorded fit in a sentence, oldest first; empty if the model has no record."""
    return " ".join(
        f"{name}: {'; '.join(f'{key} {value}' for key, value in rows.items())}." for name, rows in training_rows(facts)
    )


def training_rows(facts: StudyFacts) -> list[tuple[str, dict[str, str]]]:
    """What is recorded of every fit, oldest first, those of the model that training went on from included.

    Returns:
        The name of each fit, and its settings by name; no setting that the record does not hold.
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
            **{name.replace("_", " "): _setting(value) for name, value in fit["settings"].items()},
            **{name.replace("_", " "): _setting(value) for name, value in fit["batches"].items()},
            "augmentation": ", ".join(f"{name} {_setting(value)}" for name, value in fit["augmentation"].items() if value)
            or "none",
            "seed": _setting(fit["seed"]),
            "precision": fit["precision"],
            "processes": f"{fit['processes']}",
            "accumulated batches": f"{fit['accumulated_batches']}",
            "gradient clip": _setting(fit["gradient_clip"]),
        }
        rows.append((fit["stage"] or f"fit {number}", cells))
    return rows


def network_rows(facts: StudyFacts) -> dict[str, str]:
    """The settings of the network and of its preprocessing, as they are stored with the weights."""
    stored = {**(facts.model.get("settings") or {}), **(facts.model.get("preprocessing") or {})}
    # What each fit was trained with stands in its own record; whether weights were loaded first, in `describe_initialization`.
    elsewhere = {"pretrained", *(name for fit in facts.model.get("fits") or () for name in fit["settings"])}
    return {name.replace("_", " "): _setting(value) for name, value in stored.items() if name not in elsewhere}


def _setting(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(_setting, value)) if isinstance(value, list | tuple) else str(value)


def describe_split(facts: StudyFacts) -> str:
    """How patients were divided."""
    split = facts.split
    if split.get("folds"):
        how = f"{split['folds']} folds, fold {split.get('fold')} held out"
    elif split.get("by") == "date":
        how = "by the date of the patient's oldest study: the latest patients are held out"
    elif split.get("fractions"):
        how = "at random, each label's positive patients in the same shares, " + " / ".join(
            f"{100 * share:g} %" for share in split["fractions"]
        )
    else:
        how = ""
    parts = [f"{name}: {_amounts(counts)}" for name, counts in facts.parts.items()]
    return ". ".join(filter(None, [how.capitalize(), "; ".join(parts)])) + ("." if how or parts else "")


def describe_truth(evidence: Evidence) -> str:
    """Who says what is there."""
    truth = evidence.source["truth"]
    readers = {
        "majority": "at least two of three readers",
        "unanimous": "all three readers",
        "any": "at least one of three readers",
    }
    return f"A finding counts as present if seen by {readers.get(truth, f'reader {truth}')}." if truth else ""


def describe_uncertainty(figures: Figures) -> str:
    """How intervals were made."""
    settings = figures.settings
    text = (
        f"95 % intervals by the bootstrap over patients ({settings['replicates']:,} resamples, seed {settings['seed']}), "
        "each patient with all slices and scans; AUROC with patients with and without the finding drawn apart"
    )
    return f"{text}. ECE in {settings['bins']} bins of equal width." if "ece" in figures.protocol.figures else f"{text}."


def describe_thresholds(figures: Figures) -> str:
    """Where a case is called positive."""
    if not set(figures.protocol.figures) & set(PROPORTIONS):
        return ""
    points = figures.settings["thresholds"]
    if isinstance(points, Mapping):
        return "Called positive at or above the operating point of its label; not chosen on these cases."
    whence = "; not chosen on these cases" if points == DEFAULT_THRESHOLD else ", as given; where it was chosen is not known"
    return f"Called positive at or above a probability of {points:g}{whence}."


def describe_flow(flow: Sequence[FlowStep]) -> str:
    """The boxes of the diagram in a line."""
    lines = []
    for step in flow:
        lost = "; ".join(f"{reason}: {_amounts(counts)}" for reason, counts in step.left_out)
        lines.append(f"{step.title}: {_amounts(step.counts)}" + (f" (left out: {lost})" if lost else ""))
    return ". ".join(lines) + "."


def describe_software() -> str:
    """What computed the figures."""
    names = ("ich_lstm", "numpy", "scipy", "pandas", "torch")
    return "Figures: " + ", ".join(f"{name} {version(name)}" for name in names) + "."


def _amounts(counts: Mapping[str, Any]) -> str:
    order = ("files", *PARTS_COUNTED)
    return ", ".join(f"{counts[unit]:,} {unit if counts[unit] != 1 else unit[:-1]}" for unit in order if unit in counts)
