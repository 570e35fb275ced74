"""A study in words, for the model card and the checklist; what is not known is an empty text."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from ich_lstm.labels import LABELS
from ich_lstm.learning.statistics.proportions import PROPORTIONS
from ich_lstm.results.cohort import FlowStep
from ich_lstm.results.evidence import Evidence
from ich_lstm.results.figures import Figures
from ich_lstm.results.study import PARTS_COUNTED, StudyFacts

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
    """Where the weights began."""
    pretrained = ((facts.config.get("model") or {}) | (facts.model.get("settings") or {})).get("pretrained")
    if pretrained is None:
        return ""
    return "Encoder: timm's pretrained weights; the rest at random." if pretrained else "All weights at random."


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
    """Loss, optimizer, batches, augmentation, epochs."""
    model, data, trainer = (facts.config.get(name) or {} for name in ("model", "data", "trainer"))
    if not model:
        return ""
    weights = ", ".join(
        f"{what} {model[key]:g}"
        for key, what in (("slice_loss", "slices"), ("encoder_loss", "encoder alone"), ("scan_loss", "scans"))
        if model.get(key) is not None
    )
    augment = data.get("augment")
    drawn = ", ".join(f"{name} {value:g}" for name, value in augment.items() if value) if isinstance(augment, Mapping) else "none"
    parts = [
        f"Binary cross-entropy, any weighted 2 (RSNA's weights); losses of {weights}",
        f"AdamW, peak rates {model.get('learning_rate'):g} (head) and {model.get('encoder_learning_rate'):g} (encoder), "
        f"weight decay {model.get('weight_decay'):g}, linear warm-up and cosine",
        f"{trainer.get('max_epochs')} epochs, at most {data.get('slices_per_batch')} slices a batch",
        f"augmentation: {drawn}",
        f"seed {facts.config.get('seed_everything')}",
    ]
    return "; ".join(parts) + "."


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
