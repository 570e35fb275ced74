"""Ways to train on real bleeding, with real ImageNet weights: 5-fold cross-validation by patient on PHE-SICH-CT-IDS.

    python examples/benchmarks/real_bleeding.py --data phe_sich --out runs/bleeding
    python examples/benchmarks/real_bleeding.py --data phe_sich --out runs/bleeding --arms 2d whole-scan --folds 0 1
    python examples/benchmarks/real_bleeding.py --data phe_sich --out runs/bleeding --only-table
    python examples/benchmarks/real_bleeding.py --data phe_sich --out runs/smoke --quick     # one fold, tiny trainings

`phe_sich.py` says what the data are and what of them is invented, `imagenet_weights.py` where the weights come from. Each run
of an arm and a fold leaves a folder, and what exists is not done again. In each fold, a fifth of the patients is held out,
another fifth chooses the epoch, and the others are trained on. The first three arms choose nothing, and learn from both.

Only "intraparenchymal" is known, so only it is trained and judged: the library leaves "any" out of the loss, which is known only
as present, and the losses of whole scans are switched off, because every patient bleeds. All windows lie within the HU that the
set has.

All patients bleed near the basal ganglia, so the height of a slice alone ranks slices well. Therefore the figure that counts is
the AUC over pairs of slices within one of ten bins of relative height, and models of the height alone stand in every table. The
one with a share for each bin knows nothing within a bin: 0.5 within the bins of one fold. (Over folds it is below 0.5, because
the patients that are held out are missing in its shares.) A smooth model of the height knows a little even within bins.

What is equal: the passes of the encoder over the training slices. `2d` gets all of them on single slices; `frozen`,
`staged-pca`, `no-joint` and `residual` train a head on stored features of that encoder, which costs nearly nothing; the other
arms of ours split them into a warm-up and a joint stage, with a head on stored features in between.

What it cannot show: anything of other types, of whole scans, or of other hospitals; these are some hundred patients with one
kind of bleeding. Nothing of the data and no weights trained on them belong into the project.
"""

import argparse
import json
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import imagenet_weights
import numpy as np
import pandas as pd
import phe_sich
import torch
from finished import RUN, is_done
from pytorch_lightning import Trainer, seed_everything

from ich_lstm import (
    LABELS,
    LSTM,
    Batches,
    Encoder,
    Loss,
    Optimizer,
    Preprocessing,
    ScanClassifier,
    ScanDataModule,
    Split,
    Windows,
)
from ich_lstm.cli.training.stage_trainer import best_precision
from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.data.prepared.folder import PreparedFolder
from ich_lstm.evaluation.aggregate import Output, cases_at
from ich_lstm.evaluation.comparisons.position_baseline import PositionModel, places_in_scans
from ich_lstm.evaluation.evaluate import LabelledPredictions, predict_subset, write_labelled
from ich_lstm.evaluation.evidence import LABEL_PREFIX, PREDICTIONS, Evidence, columns_of, read_run
from ich_lstm.files.atomic_write import write_text
from ich_lstm.privacy import PRIVATE, ProjectKey
from ich_lstm.settings import merged
from ich_lstm.statistics import compare_labels, compare_stratified_auroc, evaluate_labels, stratified_auroc
from ich_lstm.training.checkpoints.callbacks import PathlessCheckpoint
from ich_lstm.training.classifier import ClassifierSettings
from ich_lstm.training.features.stored_features import StoredFeatures
from ich_lstm.training.stages import Stage, fit_stages

TABLE, RESULTS = "table.md", "results.json"
FOLDS, BINS, REPLICATES, SEED = 5, 10, 2000, 1
COLUMN = LABELS.index(phe_sich.LABEL)
ONE_LABEL: dict[str, Any] = {"names": (phe_sich.LABEL,), "weights": (1.0,)}

REFERENCE = "whole-scan"
WINDOWS = Windows(channels=((40, 80), (60, 40), (30, 30)), mean=(0.5,), std=(0.5,))
"""The brain window, one around blood and one around brain, all within the known HU. Mean and deviation are those with which the
weights of `imagenet_weights.py` were trained."""

SINGLE_SLICES = {"slices": 32, "slices_per_sample": 1, "sample": "every"}
WHOLE_SCANS = {"slices": 64}
SAMPLES_OF_TEN = 3
"""An epoch of samples of ten adjacent slices shows a third of the slices: the set's scans have 29 on average."""

INVERSE_REGULARIZATION = 0.001
"""Of the logistic rule on 1,280 standardized features; fixed, not tuned."""


# ------------------------------------------------------------------------------------------------ arms
Predicted = tuple[np.ndarray, dict[str, Any]]
"""Probabilities of the held-out slices, ``(n,)``, and what is known about the training."""


@dataclass(frozen=True, kw_only=True)
class Simple:
    """A model without a network of its own.

    Args:
        about: In words, for the table.
        fit: Function from the features of slices ``(n, d)`` and their labels ``(n,)`` to a function that predicts.
        uses: ``height``: the relative height alone; ``encoder``: features of the encoder with ImageNet weights.
    """

    about: str
    fit: Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]
    uses: str = "height"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network, and how it is trained.

    Args:
        about: In words, for the table.
        stages: In their order.
        model: Changes of the common settings of `ScanClassifier`.
        starts_with: The arm whose encoder is taken over in the same fold; "" for the weights of ``--weights``, ``random``,
            or ``phantom`` for the model of ``--phantom-model``.
        output: Which probabilities are judged.
    """

    about: str
    stages: tuple[Stage, ...]
    model: Mapping[str, Any] = field(default_factory=dict)
    starts_with: str = ""
    output: Output = "sequence"


Arm = Simple | Trained


def arms(given: argparse.Namespace) -> dict[str, Arm]:
    """All of them, by name."""
    passes = given.warm_up_epochs + given.joint_epochs
    sequence = Stage(
        name="sequence", max_epochs=given.head_epochs, train="head", features="stored", views=given.views, batches=WHOLE_SCANS
    )

    def ours(about: str, starts_with: str, rate: float) -> Trained:
        warm_up = Stage(
            name="warm-up",
            max_epochs=given.warm_up_epochs,
            train="encoder",
            batches=SINGLE_SLICES,
            changes={"optimizer": {"encoder_lr": rate}},
        )
        joint = Stage(
            name="joint",
            max_epochs=given.joint_epochs,
            batches=WHOLE_SCANS,
            changes={
                "optimizer": {"lr": given.head_rate / 10, "encoder_lr": rate / 10},
                "encoder": {"batch_norm": "frozen"},
                "ema": 0.99,
            },
        )
        return Trained(
            about=about, stages=(warm_up, sequence, joint), model={"test_time": "flip-reverse"}, starts_with=starts_with
        )

    plain_head = {"head": {"positions": "none", "reversal": 0.0}}
    known: dict[str, Arm] = {
        "position": Simple(about="null model: a smooth curve of the relative height, no image", fit=_fit_height),
        "position-in-bins": Simple(about=f"null model: a share for each of {BINS} bins of height, no image", fit=_fit_bins),
        "logistic": Simple(about="logistic rule on features of the frozen ImageNet encoder", fit=_fit_features, uses="encoder"),
        "2d": Trained(
            about="encoder alone, fine-tuned on shuffled single slices",
            stages=(Stage(name="encoder", max_epochs=passes, train="encoder", batches=SINGLE_SLICES),),
            output="encoder",
        ),
        "ten-slices": Trained(
            about="CNN-LSTM end to end on ten adjacent slices (Nguyen et al. 2020)",
            stages=(
                Stage(
                    name="joint",
                    max_epochs=passes * SAMPLES_OF_TEN,
                    batches={"slices": 50, "slices_per_sample": 10, "sample": "adjacent"},
                ),
            ),
            model={**plain_head, "encoder": {"classifier": False}},
        ),
        "frozen": Trained(
            about="the encoder of 2d, frozen, and a BiLSTM on whole scans", stages=(sequence,), model=plain_head, starts_with="2d"
        ),
        "staged-pca": Trained(
            about="the encoder of 2d, then PCA and its probabilities, then a BiLSTM (Burduja et al. 2020)",
            stages=(sequence,),
            model=merged_changes(
                plain_head,
                {
                    "reduction": {"kind": "pca", "features": 64},
                    "head": {"encoder_probabilities": True, "norm": False, "output_dropout": 0.5},
                },
            ),
            starts_with="2d",
        ),
        REFERENCE: ours("ours: 2D warm-up, head on stored features, then both end to end on whole scans", "", given.encoder_rate),
        "no-joint": Trained(
            about="ours without the joint stage: the encoder of 2d, frozen, and our head",
            stages=(sequence,),
            model={"test_time": "flip-reverse"},
            starts_with="2d",
        ),
        "residual": Trained(
            about="no-joint, with the encoder's logits as a gated residual in the head",
            stages=(sequence,),
            model={"test_time": "flip-reverse", "head": {"encoder_residual": True}},
            starts_with="2d",
        ),
        "from-scratch": ours("ours, from random weights", "random", given.scratch_rate),
    }
    if given.phantom_model is not None:
        known["from-phantom"] = ours("ours, from a model trained on synthetic heads", "phantom", given.encoder_rate)
    return known


def merged_changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Changes of settings, the second after the first."""
    both = {name: {**first.get(name, {}), **second.get(name, {})} for name in {**first, **second}}
    return both


def _fit_height(heights: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import SplineTransformer

    curve = make_pipeline(SplineTransformer(n_knots=9, degree=2), LogisticRegression(C=10.0, max_iter=1000))
    curve.fit(heights, labels)
    return lambda others: curve.predict_proba(others)[:, 1]


def _fit_bins(heights: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    model = PositionModel.fit(heights[:, 0], labels[:, None], bins=BINS)
    return lambda others: model.predict(others[:, 0])[:, 0]


def _fit_features(features: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rule = make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=1000))
    rule.fit(features, labels)
    return lambda others: rule.predict_proba(others)[:, 1]


# ------------------------------------------------------------------------------------------------ data
class Heads(NamedTuple):
    """The converted heads, their labels, and the key to the ids in all predictions."""

    dicom: Path
    labels: Path
    private: Path


def make_heads(given: argparse.Namespace) -> Heads:
    """Convert the set; what exists stays."""
    private = given.out / PRIVATE
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    dicom, labels = phe_sich.convert(given.data, private)
    return Heads(dicom, labels, private)


def make_data(given: argparse.Namespace, heads: Heads, fold: int, preprocessing: Preprocessing | None = None) -> ScanDataModule:
    """The data of a fold, prepared once as ``ich-prepare`` prepares them."""
    preprocessing = preprocessing or Preprocessing(size=given.size)
    prepared = heads.private / f"prepared-{preprocessing.size}-{preprocessing.crop}"
    data = ScanDataModule(
        prepared if PreparedFolder.is_one(prepared) else heads.dicom,
        heads.labels,
        preprocessing=preprocessing,
        batches=Batches(slices=64),
        split=Split(folds=FOLDS, fold=fold, file=heads.private / "split.json"),
        seed=SEED,
        num_workers=0,  # on few cores a loader process takes a core from the network
        cache_dir=prepared,
        project_key=heads.private / "project.key",
    )
    data.prepare_data()
    data.setup()
    return data


# ------------------------------------------------------------------------------------------------ models
def weights_file(given: argparse.Namespace) -> Path | None:
    """The file of ImageNet weights, converted if it is not given; None for random weights."""
    if given.weights == "random":
        return None
    if given.weights is not None:
        return Path(given.weights)
    path = given.out / f"{imagenet_weights.BACKBONE}.safetensors"
    if not path.is_file():
        try:
            imagenet_weights.convert(path)
        except ModuleNotFoundError as error:
            sys.exit(f"{error}. {imagenet_weights.INSTALL}; or give a file with --weights.")
    return path


def settings_for(given: argparse.Namespace, changes: Mapping[str, Any], *, is_random: bool) -> ClassifierSettings:
    """The common settings of all networks, with those of an arm."""
    file = None if is_random else weights_file(given)
    common = ClassifierSettings(
        encoder=Encoder(backbone=given.backbone, pretrained=False, pretrained_file=file),
        windows=WINDOWS,
        head=LSTM(hidden_size=128, num_layers=1, positions="mm", reversal=0.5, encoder_residual=False, output_dropout=0.3),
        loss=Loss(scan=0.0, instance=0.0),
        optimizer=Optimizer(lr=given.head_rate, encoder_lr=given.encoder_rate, weight_decay=0.05),
    )
    return merged(common, changes)


def start(given: argparse.Namespace, arm: Trained, fold: int) -> ScanClassifier:
    """The model of an arm before its training."""
    if arm.starts_with == "phantom":
        source = ScanClassifier.load(given.phantom_model)
        changes = {"loss": {"scan": 0.0, "instance": 0.0}, "optimizer": {"lr": given.head_rate}, **arm.model}
        model = ScanClassifier.from_settings(merged(source.settings, changes))
        model.load_weights_from(source)
        return model
    model = ScanClassifier.from_settings(settings_for(given, arm.model, is_random=arm.starts_with in ("random", "2d")))
    if arm.starts_with == "2d":
        source = ScanClassifier.load(folder_of(given, "2d", fold) / "model")
        for mine, theirs in zip(model.model.encoder_modules(), source.model.encoder_modules(), strict=True):
            mine.load_state_dict(theirs.state_dict())
        model.starting_weights = {"encoder": {"source": "file", "name": "2d", "file": "model.safetensors"}}
    return model


def train(given: argparse.Namespace, arm: Trained, fold: int, data: ScanDataModule, folder: Path) -> ScanClassifier:
    """Fit the stages of an arm; the weights are those of the best validation."""
    model = start(given, arm, fold)

    def trainer_of(now: Stage, is_last: bool) -> Trainer:
        best = PathlessCheckpoint(
            dirpath=folder / "stages" / now.name, filename="best", monitor="val/monitor", enable_version_counter=False
        )
        return Trainer(
            accelerator=given.accelerator,
            devices=1,
            precision=given.precision,
            max_epochs=now.max_epochs,
            num_sanity_val_steps=0,
            gradient_clip_val=1.0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[best],
        )

    stored = StoredFeatures(folder=folder / "features")
    best = fit_stages(model, data, arm.stages, trainer_of, best_of=best_of, stored=stored)
    model = ScanClassifier.load(best)
    model.save_pretrained(folder / "model")
    for name in ("stages", "features"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return model


def best_of(trainer: Trainer) -> str:
    """The checkpoint of the best validation."""
    return next(each.best_model_path for each in trainer.checkpoint_callbacks if isinstance(each, PathlessCheckpoint))


class Encoded:
    """Features of all slices by the encoder with ImageNet weights, which are the same in all folds.

    Args:
        given: The arguments of the command.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self._of_scan: dict[str, np.ndarray] = {}

    def of(self, data: ScanDataModule, scans: list[LabelledScan]) -> np.ndarray:
        """Features of the slices of scans, ``(n, d)``."""
        if not all(scan.scan_id in self._of_scan for scan in scans):
            network = ScanClassifier.from_settings(settings_for(self.given, {}, is_random=False)).eval()
            network.to("cuda" if self.given.accelerator == "gpu" else "cpu")
            with torch.inference_mode():
                for subset in data.scans:
                    for batch in data.evaluation_loader(subset):
                        batch = network.transfer_batch_to_device(batch, network.device, 0)
                        features = network.model.encode(batch.hu, batch.lengths).cpu()
                        parts = [part.numpy() for part in features.split(batch.lengths.tolist())]
                        self._of_scan.update(zip(batch.scan_ids, parts, strict=True))
        return np.concatenate([self._of_scan[scan.scan_id] for scan in scans])


def predict_simple(arm: Simple, data: ScanDataModule, encoded: Encoded, key: ProjectKey) -> LabelledPredictions:
    """Fit a simple model to the patients who are not held out, and predict the others.

    Only the judged label has a prediction; all other probabilities are 0.5.
    """

    def inputs(scans: list[LabelledScan]) -> np.ndarray:
        return encoded.of(data, scans) if arm.uses == "encoder" else _heights(scans)

    others, held_out = [*data.scans["train"], *data.scans["validation"]], data.scans["test"]
    labels = np.concatenate([scan.slice_labels[:, COLUMN] for scan in others])
    known = ~np.isnan(labels)
    probabilities = arm.fit(inputs(others)[known], labels[known])(inputs(held_out))
    slices, scans = [], []
    first = 0
    for scan in held_out:
        count = len(scan.slice_labels)
        mine = np.full((count, len(LABELS)), 0.5)
        mine[:, COLUMN] = probabilities[first : first + count]
        first += count
        ids = {"scan_id": scan.scan_id, "slice": np.arange(1, count + 1), "slice_id": scan.slice_ids, "position_mm": 0.0}
        rows = [pd.DataFrame(ids), _columns("", mine), _columns(LABEL_PREFIX, scan.slice_labels)]
        slices.append(pd.concat(rows, axis=1))
        of_scan = pd.DataFrame([{"scan_id": scan.scan_id, "patient_id": key.hash_id(scan.patient_id)}])
        known_labels = _columns(LABEL_PREFIX, np.asarray(scan.scan_labels)[None])
        scans.append(pd.concat([of_scan, _columns("", mine.max(axis=0)[None]), known_labels], axis=1))
    return LabelledPredictions(*(pd.concat(rows, ignore_index=True).assign(split="test") for rows in (slices, scans)))


def _heights(scans: list[LabelledScan]) -> np.ndarray:
    """Relative height of the middle of each slice, ``(n, 1)``: 0 is the inferior end of the scan, 1 the superior end."""
    counts = [len(scan.slice_labels) for scan in scans]
    return np.concatenate([(np.arange(count) + 0.5) / count for count in counts])[:, None]


def _columns(prefix: str, values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values, columns=[prefix + label for label in LABELS])


# ------------------------------------------------------------------------------------------------ runs
def folder_of(given: argparse.Namespace, name: str, fold: int) -> Path:
    return given.out / "runs" / name / f"fold-{fold}"


def settings_of(given: argparse.Namespace) -> dict[str, Any]:
    """What must be the same in all runs."""
    names = ("backbone", "size", "warm_up_epochs", "head_epochs", "joint_epochs", "views", "precision")
    return {name: getattr(given, name) for name in (*names, "encoder_rate", "scratch_rate", "head_rate")}


def run(given: argparse.Namespace, heads: Heads, encoded: Encoded, name: str, fold: int) -> None:
    """Train an arm on a fold, predict the held-out patients, and leave a folder; what is done already stays."""
    if is_done(folder_of(given, name, fold), settings_of(given)):
        return
    known = arms(given)
    arm, folder = known[name], folder_of(given, name, fold)
    if isinstance(arm, Trained) and arm.starts_with in known:
        run(given, heads, encoded, arm.starts_with, fold)
    seed_everything(SEED + fold, verbose=False)
    started = time.monotonic()
    if isinstance(arm, Simple):
        data = make_data(given, heads, fold)
        predictions = predict_simple(arm, data, encoded, ProjectKey.open(data.project_key))
    else:
        of_phantom = ScanClassifier.load(given.phantom_model).preprocessing if arm.starts_with == "phantom" else None
        data = make_data(given, heads, fold, of_phantom)
        model = train(given, arm, fold, data, folder)
        model.to("cuda" if given.accelerator == "gpu" else "cpu")
        predictions = predict_subset(model, data, "test", hash_patient=ProjectKey.open(data.project_key).hash_id)
    write_labelled(folder / PREDICTIONS, [predictions])
    about = {
        "arm": name,
        "fold": fold,
        "settings": settings_of(given),
        "patients": {subset: len({scan.patient_id for scan in scans}) for subset, scans in data.scans.items()},
        "seconds": round(time.monotonic() - started, 1),
        "threads": torch.get_num_threads(),
    }
    write_text(folder / RUN, json.dumps(about, indent=2) + "\n")  # complete or not at all: a run is done, or is done again
    print(f"{name}, fold {fold}: {about['seconds']:.0f} s", flush=True)


# ------------------------------------------------------------------------------------------------ table
class Judged(NamedTuple):
    """The slices of the held-out patients of some folds, by one arm.

    Args:
        labels: Labels ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities ``(n,)``.
        patients: Hashed id of each slice's patient, ``(n,)``.
        bins: Bin of relative height of each slice, ``(n,)``.
        folds: Fold of each slice, ``(n,)``.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    patients: np.ndarray
    bins: np.ndarray
    folds: np.ndarray


def judged(given: argparse.Namespace, name: str, folds: list[int]) -> Judged:
    """Read the predictions of an arm."""
    arm = arms(given)[name]
    output: Output = arm.output if isinstance(arm, Trained) else "sequence"
    parts = []
    for fold in folds:
        evidence: Evidence = read_run(folder_of(given, name, fold))
        cases = cases_at(evidence, "slice", aggregation="max" if output == "encoder" else "own", output=output)
        bins = np.minimum((places_in_scans(evidence) * BINS).astype(int), BINS - 1)
        labels = columns_of(evidence.slices, LABEL_PREFIX)[:, COLUMN]
        parts.append(Judged(labels, cases.probabilities[:, COLUMN], cases.patients, bins, np.full(len(bins), fold)))
    return Judged(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def tabulate(given: argparse.Namespace) -> list[dict[str, Any]]:
    """A row of figures for each arm of which there are runs."""
    done = {
        name: [fold for fold in range(FOLDS) if is_done(folder_of(given, name, fold), settings_of(given))] for name in arms(given)
    }
    return [_figures(given, name, folds, done[REFERENCE]) for name, folds in done.items() if folds]


def _figures(given: argparse.Namespace, name: str, folds: list[int], reference_folds: list[int]) -> dict[str, Any]:
    found = judged(given, name, folds)
    each = evaluate_labels(
        found.labels[:, None], found.probabilities[:, None], found.patients, **ONE_LABEL, replicates=REPLICATES
    )
    each = each.set_index("metric")
    within = stratified_auroc(found.labels, found.probabilities, found.bins, found.patients, replicates=REPLICATES)
    both = stratified_auroc(found.labels, found.probabilities, found.bins * FOLDS + found.folds)
    runs = [json.loads((folder_of(given, name, fold) / RUN).read_text()) for fold in folds]
    row: dict[str, Any] = {
        "arm": name,
        "about": arms(given)[name].about,
        "folds": folds,
        "patients": len(set(found.patients)),
        "slices": int((~np.isnan(found.labels)).sum()),
        "auroc": _limits(each.loc["auroc"]),
        "auroc_within_bins": [within.value, within.low, within.high],
        "auroc_within_bins_and_folds": both.value,
        "log_loss": _limits(each.loc["log_loss"]),
        "seconds": [about["seconds"] for about in runs],
        "differences": None,
    }
    shared = [fold for fold in folds if fold in reference_folds]
    if name != REFERENCE and shared:
        row["differences"] = {"folds": shared, **_differences(judged(given, name, shared), judged(given, REFERENCE, shared))}
    return row


def _limits(row: pd.Series) -> list[float]:
    return [float(row[name]) for name in ("value", "low", "high")]


def _differences(mine: Judged, reference: Judged) -> dict[str, list[float]]:
    """The arm's figures less the reference's, each with the limits of its interval over patients."""
    for name in ("labels", "patients", "bins"):
        if not pd.Series(getattr(mine, name)).equals(pd.Series(getattr(reference, name))):
            raise ValueError(f"the slices of the two arms differ in their {name}, expected the same held-out slices")
    labels, patients = mine.labels, mine.patients
    table = compare_labels(
        labels[:, None],
        mine.probabilities[:, None],
        reference.probabilities[:, None],
        patients,
        **ONE_LABEL,
        replicates=REPLICATES,
    )
    table = table.set_index("metric")
    within = compare_stratified_auroc(
        labels, mine.probabilities, reference.probabilities, mine.bins, patients, replicates=REPLICATES
    )
    rows = {"auroc": table.loc["auroc"], "auroc_within_bins": within, "log_loss": table.loc["log_loss"]}
    return {metric: [float(row[name]) for name in ("difference", "low", "high")] for metric, row in rows.items()}


def write_table(given: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    """The table in Markdown, written into ``--out`` beside ``results.json``."""
    caption = (
        f'"Intraparenchymal" on slices of held-out patients, the folds of {FOLDS}-fold cross-validation by patient pooled. '
        f"Within bins: AUC over pairs of slices of one of {BINS} bins of relative height; and folds: over pairs of one bin and "
        f"one fold. In parentheses: 95 % intervals by {REPLICATES:,} bootstrap samples of patients. Differences: the arm less "
        f"{REFERENCE} on the same folds, paired by patient. The intervals say what other patients would change for these trained "
        "weights, not what other seeds would change, and are not corrected for their number."
    )
    heads = ["arm", "folds", "AUC", "AUC within bins", "and folds", "log loss"]
    heads += [f"difference in {name}" for name in ("AUC", "AUC within bins", "log loss")] + ["s per fold"]
    cells = [heads, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    text = "\n".join([*lines, "", caption, "", *(f"- {row['arm']}: {row['about']}" for row in rows), ""])
    write_text(given.out / TABLE, text)
    results = {"settings": settings_of(given), "caption": caption, "arms": rows}
    write_text(given.out / RESULTS, json.dumps(results, indent=2) + "\n")
    return text


def _cells(row: dict[str, Any]) -> list[str]:
    metrics = ("auroc", "auroc_within_bins", "log_loss")
    auc, within, loss = (_with_limits(row[metric]) for metric in metrics)
    found = row["differences"]
    differences = ["" if found is None else _with_limits(found[metric], sign="+") for metric in metrics]
    both = row["auroc_within_bins_and_folds"]
    own = [row["arm"], " ".join(map(str, row["folds"])), auc, within, "" if both is None else f"{both:.3f}", loss]
    return [*own, *differences, f"{np.mean(row['seconds']):.0f}"]


def _with_limits(numbers: list[float | None], sign: str = "") -> str:
    value, low, high = (np.nan if number is None else number for number in numbers)
    return f"{value:{sign}.3f}" if np.isnan(low) else f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


QUICK = {"warm_up_epochs": 1, "head_epochs": 2, "joint_epochs": 1, "views": 0}


def make_parser() -> argparse.ArgumentParser:
    """The options of the command, some of which `adapt_real.py` uses too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the set")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", nargs="*", metavar="ARM", help="by default all")
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--weights", help="file of ImageNet weights, or random; by default from a package")
    parser.add_argument("--phantom-model", type=Path, help="model trained on synthetic heads, for the arm from-phantom")
    parser.add_argument("--backbone", default=imagenet_weights.BACKBONE)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--warm-up-epochs", type=int, default=5, help="of the encoder on single slices")
    parser.add_argument("--head-epochs", type=int, default=40, help="of the head on stored features")
    parser.add_argument("--joint-epochs", type=int, default=1, help="of encoder and head together")
    parser.add_argument("--views", type=int, default=3, help="augmented copies of each training scan among the stored features")
    parser.add_argument("--encoder-rate", type=float, default=3e-4, help="learning rate of the encoder from ImageNet weights")
    parser.add_argument("--scratch-rate", type=float, default=1e-3, help="learning rate of the encoder from random weights")
    parser.add_argument("--head-rate", type=float, default=1e-3)
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--precision", help="Lightning's name of it; by default as in ich-train")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help=f"fold 0 alone, with {QUICK}: to see that everything runs")
    parser.add_argument("--only-table", action="store_true", help="of what is there")
    return parser


def main() -> None:
    parser = make_parser()
    given = parser.parse_args()
    if given.quick:
        vars(given).update(QUICK, folds=[0])
    given.precision = given.precision or best_precision(given.accelerator)
    known = arms(given)
    chosen = list(known) if given.arms is None else given.arms
    if not set(chosen) <= set(known):
        parser.error(f"--arms: {', '.join(sorted(set(chosen) - set(known)))}; there are {', '.join(known)}")
    if not set(given.folds) <= set(range(FOLDS)):
        parser.error(f"--folds: expected numbers from 0 to {FOLDS - 1}")
    if not given.only_table:
        torch.set_num_threads(given.threads)
        logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        heads, encoded = make_heads(given), Encoded(given)
        # The null models stand in every table.
        for name in dict.fromkeys([*(name for name, arm in known.items() if name.startswith("position")), *chosen]):
            for fold in given.folds:
                run(given, heads, encoded, name, fold)
    rows = tabulate(given)
    if rows:
        print(write_table(given, rows))


if __name__ == "__main__":
    main()
