"""The HTML page of a training run: results on held-out patients, next to those of the encoder without the sequence head."""

import base64
from collections.abc import Mapping
from typing import Any, NamedTuple

from ich_lstm.labels import LABELS
from ich_lstm.pages.plots.curves import MODEL_NAMES
from ich_lstm.pages.style import render

LEVELS = {"slices": "Every slice", "scans": "Whole scans"}

CAPTIONS = {
    "history": "Loss by epoch, and the AUC of any hemorrhage in validation.",
    "roc": "ROC curves of the {curves_of} of {whose}.",
    "precision_recall": "Precision and recall of the {curves_of} of {whose}.",
}


class Cell(NamedTuple):
    """One number of the table; ``best`` where it beats all others of its kind in the row."""

    text: str
    best: bool


def train_report_page(results: Mapping[str, Any], pictures: Mapping[str, bytes], *, recipe: str) -> str:
    """The report of a training run as HTML text: self-contained, readable without JavaScript, printable.

    Args:
        results: The contents of ``results.json``: ``slices`` and ``scans`` map a model (``sequence``, ``encoder``) to
            ``weighted_log_loss``, ``auroc`` and ``log_loss`` (each by label; None where it cannot be computed);
            ``seconds`` is the duration; ``counts`` maps a split to its ``patients``, ``scans`` and ``slices``; ``part`` is the
            split that was judged (``test`` or ``validation``); ``curves_of`` says whether the curves are of ``slices`` or
            ``scans``; ``patients_are_studies`` that every study was counted as a patient's own.
        pictures: PNG files by name; ``history``, ``roc`` and ``precision_recall`` get a caption of their own.
        recipe: Name of the recipe.
    """
    given = {level: results[level] for level in LEVELS if results.get(level)}
    told = {level: by_model for level, by_model in given.items() if any(map(tells, by_model.values()))}
    levels = [_level(LEVELS[level], by_model) for level, by_model in (told or given).items()]
    whose = "validation patients" if results.get("part") == "validation" else "held-out patients"
    words = {"whose": whose, "curves_of": results.get("curves_of", "slices")}
    return render(
        "train_report.html.j2",
        title=f"Training report: {recipe}",
        recipe=recipe,
        levels=levels,
        whose=whose,
        patients_are_studies=results.get("patients_are_studies", False),
        labels=LABELS,
        counts=results.get("counts") or {},
        duration=duration(results["seconds"]) if results.get("seconds") is not None else "",
        pictures=[
            (CAPTIONS.get(name, name.replace("_", " ").capitalize()).format(**words), base64.b64encode(png).decode("ascii"))
            for name, png in pictures.items()
        ],
    )


def tells(figures: Mapping[str, Any]) -> bool:
    """Whether some label has both positive and negative cases; where labels name whole scans, that of no slice is known."""
    return any(area is not None for area in figures.get("auroc", {}).values())


def duration(seconds: float) -> str:
    """A duration as people say it.

    Example:
        >>> duration(312.4), duration(8000)
        ('5 min 12 s', '2 h 13 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _level(name: str, by_model: Mapping[str, Any]) -> dict[str, Any]:
    """The table of one level: a row per label, the models side by side, AUC then log loss."""
    models = list(by_model)
    losses = [by_model[model].get("weighted_log_loss") for model in models]
    rows = {}
    for label in LABELS:
        aurocs = [by_model[model].get("auroc", {}).get(label) for model in models]
        log_losses = [by_model[model].get("log_loss", {}).get(label) for model in models]
        rows[label] = [*_cells(aurocs, digits=3, best=max), *_cells(log_losses, digits=4, best=min)]
    return {
        "name": name,
        "models": [MODEL_NAMES.get(model, model) for model in models],
        "headlines": _cells(losses, digits=4, best=min),
        "rows": rows,
    }


def _cells(values: list[float | None], *, digits: int, best: Any) -> list[Cell]:
    texts = ["–" if value is None else f"{value:.{digits}f}" for value in values]
    known = [value for value in values if value is not None]
    # Equal as printed is equal: a reader should not be told of a difference that cannot be seen.
    winner = f"{best(known):.{digits}f}" if len(known) > 1 else None
    return [Cell(text, text == winner and texts.count(text) == 1) for text in texts]
