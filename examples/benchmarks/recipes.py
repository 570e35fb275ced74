"""Ways to train with one encoder and one number of passes through it, on hard synthetic heads; and what each part of ours adds.

    python examples/benchmarks/recipes.py --out runs/recipes
    python examples/benchmarks/recipes.py --out runs/recipes --only-table

A folder of synthetic heads and its prepared scans are made in ``--out`` once. Every run leaves a folder there, and what exists
is not done again; so two commands with other ``--arms`` or ``--seeds`` may run side by side, once the heads and the encoders are
there (``--arms`` without a name makes them alone). All runs train on the same patients, choose their best weights on the same
validation patients, and are judged on the same held-out patients, whole scans.

What is equal is the cost: slices that pass forward and backward through the encoder in training. A slice that only passes
forward, through a frozen encoder, counts a third; what is read from stored features counts nothing, so that every head is
trained until its validation is best. Arms that begin with the encoder alone share that encoder, seed by seed, where the number
of its slices and its schedule are equal. Equal are also the encoder and its pooling, the size of the recurrent head, the
augmentation but where it is what is removed, the optimizer but for its rates, and the weights of the labels in the loss. So a
published recipe is here only the order in which it trains and what its head sees: not its backbone, windows, rates, size or
augmentation.

What it can show: whether the order of training matters on these heads, at so few slices. What it cannot: anything of real
hemorrhage, or of trainings a hundred times as long. A part that does not help here may help there.
"""

import argparse
import json
import logging
import math
import os
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from finished import RUN, is_done
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything

from ich_lstm import (
    HEMORRHAGE_TYPES,
    LABELS,
    LSTM,
    Batches,
    Encoder,
    Optimizer,
    Preprocessing,
    ScanClassifier,
    ScanDataModule,
    Split,
)
from ich_lstm.data.loading.batch import FeatureBatch, ScanBatch
from ich_lstm.data.prepared.folder import PreparedFolder
from ich_lstm.evaluation.aggregate import LevelCases, cases_at
from ich_lstm.evaluation.comparisons.compare import check_same_cases
from ich_lstm.evaluation.evaluate import predict_subset, write_labelled
from ich_lstm.evaluation.evidence import PREDICTIONS, read_run
from ich_lstm.files.atomic_write import write_text
from ich_lstm.labels import ANY
from ich_lstm.phantom import PhantomSettings, RsnaLayout, write_phantom
from ich_lstm.phantom.identifiers import patient_identifier
from ich_lstm.privacy import PRIVATE, ProjectKey
from ich_lstm.settings import merged
from ich_lstm.statistics import auroc, compare_labels, weighted_log_loss
from ich_lstm.training.checkpoints.callbacks import PathlessCheckpoint
from ich_lstm.training.classifier import ClassifierSettings
from ich_lstm.training.features.stored_features import StoredFeatures
from ich_lstm.training.stages import Progress, Stage, fit_stages

REPLICATES = 2000
HIDDEN = 64
HELD_OUT, VALIDATION = 300, 40
"""Patients with the first numbers: they stay the same when others are added to train on."""

SLICES, SIZE = 24, 128
PHANTOM_SEED = 2020
BATCH = 48
"""Slices: two whole scans."""

CHECKS = 8
"""Number of validations of a training that spends the whole budget. The best one gives the weights.

A head on stored features is validated after each epoch."""

FORWARD_ALONE = 1 / 3
"""Cost of a slice that passes only forward through the encoder, as a share of one that also passes backward."""

REFERENCE = "whole-scan"
PLAIN_HEAD: dict[str, Any] = {
    "head": {"encoder_residual": False, "positions": "none"},
    "pooling": {"kind": "max"},
    "loss": {"scan": 0.0, "encoder": 0.0},
}
"""What the published recurrent heads have in common: they see features, and are trained by the slices' labels."""

ENCODER_ALONE: dict[str, Any] = {
    "head": {"class_path": "NoHead"},
    "pooling": {"kind": "max"},
    "loss": {"scan": 0.0, "encoder": 0.0},
}
SINGLE_SLICES = {"slices": BATCH, "slices_per_sample": 1, "sample": "every"}
STORED_SCANS, WHOLE_SCANS = {"slices": 8 * SLICES}, {"slices": 4 * SLICES}
"""Eight whole scans in a batch of stored features, four in the joint stage. With two, as many slices as `BATCH`, heads are worse,
and a joint stage spoils the encoder."""

WARM_UP_SHARE, SHORT_WARM_UP_SHARE = 0.85, 0.6
JOINT_RATE = 1 / 6
"""Of encoder and head in the joint stage, as a share of their rates before."""

HEAD_EPOCHS = 40
VIEWS = 1
"""Augmented copies of each training scan among the stored features, in all arms that store them."""

REDUCER_SLICES = 2400
"""To which PCA is fitted: a hundred scans."""

SYNTHETIC = (
    "These figures are of synthetic heads. They say nothing of RSNA's private set, nor of any other real scan: "
    "no held-out loss here stands for one there."
)


# ------------------------------------------------------------------------------------------------ arms
class Phase(NamedTuple):
    """A stage, and its share of the passes that the arm can afford; 0 on stored features, whose end is a number of epochs."""

    stage: Stage
    share: float


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to train.

    Args:
        about: In words, for the table.
        warm_up: Share of the passes in which the encoder is trained alone first; 0 for none.
        schedule: Of the encoder's rate in this warm-up.
        phases: All that follows, in order.
        model: Changes of the common settings of `ScanClassifier`, one after the other.
        data: Settings of `ScanDataModule` beside the common ones, but for the encoder alone.
        weights_of: The arm whose trained weights are evaluated otherwise, in place of a training.
    """

    about: str
    warm_up: float = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    phases: tuple[Phase, ...] = ()
    model: tuple[Mapping[str, Any], ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    weights_of: str | None = None

    def passes(self, given: argparse.Namespace) -> int:
        """Number of slices that can pass forward and backward, when all stored features are paid."""
        encoded = sum(slices_to_encode(given, phase.stage) for phase in self.phases)
        return round(given.budget - FORWARD_ALONE * encoded)


def slices_to_encode(given: argparse.Namespace, stage: Stage) -> int:
    """Number of slices that pass only forward through the encoder, for the stored features of a stage."""
    return SLICES * ((1 + stage.views) * given.patients + VALIDATION) if stage.features == "stored" else 0


def on_steps(name: str, **settings: Any) -> Stage:
    """A stage whose end is a number of steps, not of epochs."""
    return Stage(name=name, max_epochs=10**6, **settings)


def on_stored(name: str = "head", views: int = VIEWS) -> Phase:
    """A head that is trained out on stored features."""
    return Phase(
        Stage(name=name, max_epochs=HEAD_EPOCHS, train="head", features="stored", views=views, batches=STORED_SCANS), 0.0
    )


OURS: dict[str, Any] = {
    "head": {"encoder_residual": False, "positions": "mm", "reversal": 0.5},
    "pooling": {"kind": "attention"},
    "loss": {"encoder": 0.5, "scan": 0.25},
    "test_time": "flip-reverse",
}


def arms(budget: int, learning_rate: float) -> dict[str, Arm]:
    """All of them, by name.

    Args:
        budget: By which the moving average remembers the last tenth of the joint stage, however short that is.
        learning_rate: Of the encoder alone, and of heads.
    """

    def ours(
        about: str,
        *,
        warm_up: float = WARM_UP_SHARE,
        schedule: Literal["cosine", "constant"] = "cosine",
        has_head_stage: bool = True,
        has_last_head: bool = False,
        joint_rate: float = JOINT_RATE,
        has_ema: bool = True,
        batch_norm: str = "frozen",
        views: int = VIEWS,
        data: Mapping[str, Any] | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> Arm:
        """Our recipe with one part changed."""
        decay = {"ema": max(0.5, 1 - 10 * WHOLE_SCANS["slices"] / ((1 - warm_up) * budget))} if has_ema else {}
        rates = {
            "lr": (joint_rate if has_head_stage else 1) * learning_rate,  # a random head has all to learn
            "encoder_lr": joint_rate * learning_rate,
        }
        joint = on_steps(
            "joint", batches=WHOLE_SCANS, changes={"optimizer": rates, "encoder": {"batch_norm": batch_norm}, **decay}
        )
        return Arm(
            about=about,
            warm_up=warm_up,
            schedule=schedule,
            phases=(
                *([on_stored(views=views)] if has_head_stage else []),
                Phase(joint, 1 - warm_up),
                *([on_stored("last-head", views)] if has_last_head else []),
            ),
            model=(OURS, changes or {}),
            data=data or {},
        )

    return {
        "2d": Arm(about="encoder alone on shuffled single slices", warm_up=1.0, model=(ENCODER_ALONE,)),
        "ten-slices": Arm(
            about="CNN-LSTM end to end on ten adjacent slices (Nguyen et al. 2020)",
            phases=(Phase(on_steps("joint", batches={"slices": 50, "slices_per_sample": 10, "sample": "adjacent"}), 1.0),),
            model=({**PLAIN_HEAD, "encoder": {"classifier": False}}, {"head": {"norm": False}}),
        ),
        "frozen": Arm(
            about="encoder on single slices, then frozen, and a BiLSTM on whole scans",
            warm_up=1.0,
            phases=(on_stored(),),
            model=(PLAIN_HEAD,),
        ),
        "staged-pca": Arm(
            about="encoder, then PCA and the encoder's probabilities, then a BiLSTM (Burduja et al. 2020)",
            warm_up=1.0,
            phases=(on_stored(),),
            model=(
                PLAIN_HEAD,
                {
                    "reduction": {"kind": "pca", "features": 64, "slices": REDUCER_SLICES},
                    "head": {"encoder_probabilities": True, "norm": False, "layer_dropout": 0.3, "output_dropout": 0.5},
                },
            ),
        ),
        REFERENCE: ours(
            f"ours: {WARM_UP_SHARE:.0%} of the passes for the encoder alone; the head on its stored features; both together on "
            "whole scans at a sixth of the rates"
        ),
        "no-joint": Arm(
            about="ours without the joint stage: all passes for the encoder alone, then the head",
            warm_up=1.0,
            phases=(on_stored(),),
            model=(OURS,),
        ),
        "less-warm-up": Arm(
            about=f"ours before the joint stage, whose passes are not spent: {WARM_UP_SHARE:.0%} of the passes for the encoder "
            "alone, then the head",
            warm_up=WARM_UP_SHARE,
            phases=(on_stored(),),
            model=(OURS,),
        ),
        "no-head-stage": ours("ours without the head stage: the joint stage starts with a random head", has_head_stage=False),
        "plus-last-head": ours("ours with a second head stage at the end", has_last_head=True),
        "long-joint": ours(
            f"ours with {1 - SHORT_WARM_UP_SHARE:.0%} of the passes for the joint stage, at full rates that fall there and not "
            "in the warm-up",
            warm_up=SHORT_WARM_UP_SHARE,
            schedule="constant",
            joint_rate=1.0,
        ),
        "batch-statistics": ours("ours with batch-norm statistics of each batch in the joint stage", batch_norm="batch"),
        "plus-residual": ours("ours with the encoder's logits as a gated residual", changes={"head": {"encoder_residual": True}}),
        "no-positions": ours("ours without the slices' positions", changes={"head": {"positions": "none"}}),
        "no-reversal": ours("ours without reading half of the scans downwards in training", changes={"head": {"reversal": 0.0}}),
        "no-encoder-loss": ours("ours without the encoder's own loss in the joint stage", changes={"loss": {"encoder": 0.0}}),
        "no-scan-loss": ours("ours without the loss of scans", changes={"loss": {"scan": 0.0}}),
        "no-ema": ours("ours without the moving average of the weights", has_ema=False),
        "no-test-time": Arm(
            about="ours without flips and reversed reading at test time: the same weights",
            model=({"test_time": "none"},),
            weights_of=REFERENCE,
        ),
        "no-augmentation": ours("ours without augmentation after the warm-up", data={"augment": None}, views=0),
        "plus-probabilities": ours(
            "ours with the encoder's probabilities in the head", changes={"head": {"encoder_probabilities": True}}
        ),
    }


# ------------------------------------------------------------------------------------------------ data
class Heads(NamedTuple):
    """Where the prepared heads lie, their labels, who is in which part, and the key to the ids in all predictions."""

    prepared: Path
    labels: Path
    split: Path
    key: Path


def make_heads(given: argparse.Namespace) -> Heads:
    """Write the heads, prepare them, and say who is held out; what exists stays."""
    settings = PhantomSettings(
        patients=HELD_OUT + VALIDATION + given.patients,
        slices=SLICES,
        size=SIZE,
        seed=PHANTOM_SEED,
        prevalence=given.prevalence,
        noise=given.noise,
        difficulty=given.difficulty,
    )
    print(f"{settings.patients} heads", flush=True)
    written = write_phantom(settings, given.out / "heads", workers=given.threads)
    private = given.out / PRIVATE
    heads = Heads(given.out / "prepared", written / RsnaLayout.labels, private / "split.csv", private / "project.key")
    private.mkdir(mode=0o700, exist_ok=True)
    if not heads.split.is_file():
        subsets = ["test"] * HELD_OUT + ["validation"] * VALIDATION + ["train"] * given.patients
        patients = [patient_identifier(PHANTOM_SEED, number) for number in range(len(subsets))]
        pd.DataFrame({"patient_id": patients, "subset": subsets}).to_csv(heads.split, index=False)
    if not PreparedFolder.is_one(heads.prepared):
        data = ScanDataModule(
            written, heads.labels, preprocessing=Preprocessing(size=SIZE), cache_dir=heads.prepared, project_key=heads.key
        )
        data.prepare_data()
    return heads


def make_data(heads: Heads, seed: int, **settings: Any) -> ScanDataModule:
    """The data of a run; the same patients in all of them."""
    return ScanDataModule(
        str(heads.prepared),
        str(heads.labels),
        split=Split(file=heads.split),
        project_key=heads.key,
        seed=seed,
        num_workers=0,  # on few cores a loader process takes a core from the network
        **({"batches": Batches(slices=BATCH)} | settings),
    )


def steps_for(data: ScanDataModule, slices: int) -> int:
    """In how many steps the training loader deals so many slices, the last batch being the one that reaches the number."""
    loader = data.train_dataloader()
    sampling = data.batches.sampling
    lengths = [len(scan.slice_labels) for scan in data.scans["train"]]
    sizes, groups = sampling.sizes_of(lengths), sampling.samples_of(lengths)
    first = np.cumsum(groups) - groups
    seen, steps, epoch = 0, 0, 0
    while True:
        loader.sampler.set_epoch(epoch)
        for batch in loader.sampler:
            seen += sum(int(sizes[first[request.scan] + request.draw % groups[request.scan]]) for request in batch)
            steps += 1
            if seen >= slices:
                return steps
        epoch += 1


# ------------------------------------------------------------------------------------------------ training
class _Passes(Callback):
    """Counts the slices that pass through the encoder in training, and has the last step validated as well."""

    def __init__(self) -> None:
        self.slices = 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: ScanBatch | FeatureBatch, batch_idx: int
    ) -> None:
        """Count."""
        self.slices += len(batch.slice_labels) if isinstance(batch, ScanBatch) else 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ScanBatch | FeatureBatch, batch_idx: int
    ) -> None:
        """At max_steps inside an epoch Lightning would end without a validation; where it is asked to stop, it validates."""
        trainer.should_stop = trainer.max_steps >= 0 and trainer.global_step >= trainer.max_steps


class Fitted(NamedTuple):
    """A trained model, and what each of its stages did."""

    classifier: ScanClassifier
    stages: list[dict[str, Any]]


def make_classifier(given: argparse.Namespace, *changes: Mapping[str, Any]) -> ScanClassifier:
    """A network from scratch, whose common settings are changed one after the other."""
    settings = ClassifierSettings(
        # The maximum finds a small bleeding that the mean dilutes.
        encoder=Encoder(backbone=given.backbone, pretrained=False, global_pool="catavgmax"),
        head=LSTM(hidden_size=HIDDEN, num_layers=2),
        # The encoder has the head's rate, because it starts from scratch too.
        optimizer=Optimizer(lr=given.learning_rate, encoder_lr=given.learning_rate),
    )
    for each in changes:
        settings = merged(settings, each)
    return ScanClassifier.from_settings(settings)


def fit(
    given: argparse.Namespace,
    classifier: ScanClassifier,
    phases: Sequence[Phase],
    available: int,
    heads: Heads,
    seed: int,
    folder: Path,
    **data: Any,
) -> Fitted:
    """Fit stages, each within its share of the passes; the weights are those of the best validation of the last one.

    Args:
        given: The command line.
        classifier: The model; if it has been fitted before, the stages go on with its weights.
        phases: The stages.
        available: The number of passes of which each phase gets its share.
        heads: The heads.
        seed: Seed of the order of the scans, the augmentation and the draws of torch.
        folder: Where the trained model is written.
        data: Settings of `ScanDataModule` beside the common ones.
    """
    seed_everything(seed, verbose=False)
    module = make_data(heads, seed, **data)
    module.setup()
    shares = {phase.stage.name: phase.share for phase in phases}
    stages: list[dict[str, Any]] = []
    passes: list[_Passes] = []

    def trainer_of(now: Stage, is_last: bool) -> Trainer:
        by_epochs: dict[str, Any] = {"max_epochs": now.max_epochs}
        steps = 0
        if shares[now.name]:
            steps = steps_for(module, round(shares[now.name] * available))
            by_epochs |= {
                "max_steps": steps,
                "check_val_every_n_epoch": None,  # by steps: an epoch of samples of scans is shorter than one of whole scans
                "val_check_interval": math.ceil(steps / max(1, round(CHECKS * shares[now.name]))),
            }
        stages.append({"name": now.name, "steps": steps, "frozen": slices_to_encode(given, now)})
        passes.append(_Passes())
        best = PathlessCheckpoint(
            dirpath=folder / "stages" / now.name, filename="best", monitor="val/monitor", enable_version_counter=False
        )
        return Trainer(
            accelerator=given.accelerator,
            devices=1,
            num_sanity_val_steps=0,
            gradient_clip_val=1.0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[passes[-1], best],
            **by_epochs,
        )

    start = folder / "start"
    classifier.save_pretrained(start)
    best = fit_stages(
        classifier,
        module,
        [Stage(name="before", max_epochs=1), *(phase.stage for phase in phases)],
        trainer_of,
        best_of=best_of,
        progress=Progress(1, start),
        stored=StoredFeatures(folder=folder / "features"),
    )
    for each, counted in zip(stages, passes, strict=True):
        each["slices"] = counted.slices
        each["cost"] = counted.slices + FORWARD_ALONE * each["frozen"]
    classifier = ScanClassifier.load(best)
    classifier.save_pretrained(folder / "model")
    for each in ("stages", "features", "start"):
        shutil.rmtree(folder / each, ignore_errors=True)
    return Fitted(classifier, stages)


def encoder_alone(given: argparse.Namespace, heads: Heads, arm: Arm, seed: int) -> Fitted:
    """The encoder of an arm, trained alone on shuffled single slices; what is done already stays, and other arms share it."""
    slices = round(arm.warm_up * arm.passes(given))
    folder = given.out / "encoders" / f"{arm.schedule}-{slices}" / f"seed-{seed}"
    if not (folder / RUN).is_file():
        started = time.monotonic()
        seed_everything(seed, verbose=False)
        stage = on_steps("encoder", batches=SINGLE_SLICES, changes={"optimizer": {"schedule": arm.schedule}})
        _, stages = fit(given, make_classifier(given, ENCODER_ALONE), [Phase(stage, 1.0)], slices, heads, seed, folder)
        about = {"settings": settings_of(given), "stages": stages, "seconds": round(time.monotonic() - started, 1)}
        write_text(folder / RUN, json.dumps(about, indent=2) + "\n")
    return Fitted(ScanClassifier.load(folder / "model"), json.loads((folder / RUN).read_text())["stages"])


def train(given: argparse.Namespace, arm: Arm, heads: Heads, seed: int, folder: Path) -> Fitted:
    """Train an arm: the encoder alone first, where it has that, and then its stages."""
    seed_everything(seed, verbose=False)
    classifier, before = make_classifier(given, *arm.model), []
    if arm.warm_up:
        encoder, before = encoder_alone(given, heads, arm, seed)
        if not arm.phases:
            encoder.save_pretrained(folder / "model")
            return Fitted(encoder, before)
        # The encoder's own classifier goes with it; all that belongs to the head stays random.
        known = encoder.model.state_dict()
        classifier.model.load_state_dict(
            {name: known[name] if _is_of_encoder(name) else value for name, value in classifier.model.state_dict().items()}
        )
        classifier.fits = encoder.fits
    done = fit(given, classifier, arm.phases, arm.passes(given), heads, seed, folder, **arm.data)
    return Fitted(done.classifier, before + done.stages)


def _is_of_encoder(name: str) -> bool:
    return name.partition(".")[0] in ("windows", "encoder", "encoder_classifier")


def best_of(trainer: Trainer) -> str:
    """The checkpoint of the best validation."""
    return next(each.best_model_path for each in trainer.checkpoint_callbacks if isinstance(each, PathlessCheckpoint))


# ------------------------------------------------------------------------------------------------ runs
def folder_of(given: argparse.Namespace, name: str, seed: int) -> Path:
    return given.out / "runs" / name / f"seed-{seed}"


def settings_of(given: argparse.Namespace) -> dict[str, Any]:
    """What must be the same in all runs."""
    names = ("patients", "prevalence", "noise", "difficulty", "budget", "backbone", "learning_rate")
    constants = {"views": VIEWS, "head_epochs": HEAD_EPOCHS, "stored": STORED_SCANS, "joint": WHOLE_SCANS}
    return {name: getattr(given, name) for name in names} | constants


def run(given: argparse.Namespace, heads: Heads, name: str, seed: int) -> None:
    """Train an arm with a seed, predict the held-out patients, and leave a folder; what is done already stays."""
    if is_done(folder_of(given, name, seed), settings_of(given)):
        return
    arm, folder = arms(given.budget, given.learning_rate)[name], folder_of(given, name, seed)
    started = time.monotonic()
    if arm.weights_of is None:
        classifier, stages = train(given, arm, heads, seed, folder)
    else:
        run(given, heads, arm.weights_of, seed)
        (changes,) = arm.model
        model = folder_of(given, arm.weights_of, seed) / "model"
        classifier, stages = ScanClassifier.load_from_checkpoint(model, changes=changes), []
    trained = time.monotonic()
    classifier.to("cuda" if given.accelerator == "gpu" else "cpu")
    key, data = ProjectKey.open(heads.key), make_data(heads, seed)
    data.setup()
    folder.mkdir(parents=True, exist_ok=True)
    write_labelled(folder / PREDICTIONS, [predict_subset(classifier, data, "test", hash_patient=key.hash_id)])
    ended = time.monotonic()
    about = {
        "arm": name,
        "seed": seed,
        "settings": settings_of(given),
        "cost": round(sum(each["cost"] for each in stages)),
        "stages": stages,
        "training_seconds": round(trained - started, 1),
        "prediction_seconds": round(ended - trained, 1),
        "threads": torch.get_num_threads(),
    }
    write_text(folder / RUN, json.dumps(about, indent=2) + "\n")  # complete or not at all: a run is done, or is done again
    cases = cases_at(read_run(folder), "slice")
    loss, area = weighted_log_loss(cases.labels, cases.probabilities), _areas(cases)[ANY]
    print(
        f"{name}, seed {seed}: weighted log loss {loss.value:.4f}, AUC any {area:.3f}; cost {about['cost']:,} slices, "
        f"{about['training_seconds']:.0f} s of training, {about['prediction_seconds']:.0f} s of prediction",
        flush=True,
    )


# ------------------------------------------------------------------------------------------------ table
def tabulate(given: argparse.Namespace) -> list[dict[str, Any]]:
    """A row of figures for each arm of which there are runs."""
    done: dict[str, list[int]] = {}
    for name in arms(given.budget, given.learning_rate):
        folders = (given.out / "runs" / name).glob(f"seed-*/{RUN}")
        done[name] = sorted(int(path.parent.name.removeprefix("seed-")) for path in folders)
    return [_figures(given, name, seeds, done[REFERENCE]) for name, seeds in done.items() if seeds]


def _figures(given: argparse.Namespace, name: str, seeds: list[int], reference_seeds: list[int]) -> dict[str, Any]:
    for seed in seeds:
        is_done(folder_of(given, name, seed), settings_of(given))  # runs of other settings do not belong into one table
    runs = [json.loads((folder_of(given, name, seed) / RUN).read_text()) for seed in seeds]
    slices = [cases_at(read_run(folder_of(given, name, seed)), "slice") for seed in seeds]
    scans = [cases_at(read_run(folder_of(given, name, seed)), "scan") for seed in seeds]
    losses = [float(weighted_log_loss(cases.labels, cases.probabilities)[0] or math.nan) for cases in slices]
    areas = [_areas(cases) for cases in slices]
    row: dict[str, Any] = {
        "arm": name,
        "about": arms(given.budget, given.learning_rate)[name].about,
        "seeds": seeds,
        "weighted_log_loss": float(np.mean(losses)),
        "weighted_log_loss_of_seeds": losses,
        "slice_auroc": {label: float(np.mean([area[label] for area in areas])) for label in LABELS},
        "scan_auroc_any": float(np.mean([_areas(cases)[ANY] for cases in scans])),
        "cost": [each["cost"] for each in runs],
        "training_seconds": [each["training_seconds"] for each in runs],
        "difference": None,
    }
    both = [seed for seed in seeds if seed in reference_seeds]
    if name != REFERENCE and both:
        row["difference"] = {"seeds": both, **_difference(given, name, both)}
    return row


def _difference(given: argparse.Namespace, name: str, seeds: list[int]) -> dict[str, float]:
    """The arm's weighted log loss less the reference's: the mean over seeds, with an interval over patients.

    The seeds' slices stand in one table, in which a patient has a slice once for each seed, in both arms. So the table's loss is
    the mean of the seeds' losses, and the bootstrap, which draws patients, keeps all that is one patient's together.
    """
    evidence = {arm: [read_run(folder_of(given, arm, seed)) for seed in seeds] for arm in (name, REFERENCE)}
    for mine, reference in zip(evidence[name], evidence[REFERENCE], strict=True):
        check_same_cases(mine, reference, "slice")
    cases = {arm: [cases_at(each, "slice") for each in found] for arm, found in evidence.items()}
    labels, patients = (np.concatenate([getattr(each, what) for each in cases[name]]) for what in ("labels", "patients"))
    first, second = (np.concatenate([each.probabilities for each in cases[arm]]) for arm in (name, REFERENCE))
    table = compare_labels(labels, first, second, patients, replicates=REPLICATES)
    found = table[table["metric"] == "weighted_log_loss"].iloc[0]
    return {key: float(found[key]) for key in ("difference", "low", "high", "p_value")}


def _areas(cases: LevelCases) -> dict[str, float]:
    """AUROC of each label; NaN where it is undefined."""
    values = [auroc(cases.labels[:, k], cases.probabilities[:, k]).value for k in range(len(LABELS))]
    return {label: math.nan if value is None else value for label, value in zip(LABELS, values, strict=True)}


def write_table(given: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    """The table in Markdown, written into ``--out`` beside ``results.json``."""
    caption = (
        f"Weighted log loss of the slices of {HELD_OUT} held-out synthetic patients ({SLICES} slices each): mean over the seeds "
        f"(and the best and the worst seed); {given.patients} patients to train on; every training costs {given.budget:,} slices "
        f"through the encoder {given.backbone}, from scratch at {SIZE} pixels (a pass forward alone counts a third). Difference: "
        f"the arm's loss less that of {REFERENCE} with the same seeds, mean over the seeds, and its 95 % interval by "
        f"{REPLICATES:,} bootstrap samples of the patients, "
        "in which all that is one patient's stays together, of all seeds. So the interval says what other patients would change "
        "for these trained weights; what other seeds would change is seen in the range over the seeds alone, and of arms with "
        "one seed it is not known. The intervals are not corrected for their number. AUC: area under the ROC curve, mean over "
        "the seeds."
    )
    names = ("arm", "seeds", "weighted log loss", f"difference to {REFERENCE}", "AUC any", "scans' AUC any", *HEMORRHAGE_TYPES)
    cells = [[*names, "cost, slices", "training, s"], *([_cells(row) for row in rows])]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    about = [f"- {row['arm']}: {row['about']}" for row in rows]
    text = "\n".join([*lines, "", caption, "", *about, "", SYNTHETIC, ""])
    (given.out / "table.md").write_text(text)
    results = {"settings": settings_of(given), "caption": caption, "note": SYNTHETIC, "arms": rows}
    (given.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return text


def _cells(row: dict[str, Any]) -> list[str]:
    losses, found = row["weighted_log_loss_of_seeds"], row["difference"]
    spread = f" ({min(losses):.4f} to {max(losses):.4f})" if len(losses) > 1 else ""
    areas = row["slice_auroc"]
    return [
        row["arm"],
        " ".join(map(str, row["seeds"])),
        f"{row['weighted_log_loss']:.4f}{spread}",
        "" if found is None else f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})",
        f"{areas[ANY]:.3f}",
        f"{row['scan_auroc_any']:.3f}",
        *(f"{areas[label]:.3f}" for label in HEMORRHAGE_TYPES),
        f"{np.mean(row['cost']):,.0f}",
        f"{np.mean(row['training_seconds']):.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", nargs="*", metavar="ARM", help=f"by default all: {', '.join(arms(1, 1.0))}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--budget", type=int, default=48_000, help="slices that pass forward and backward through the encoder")
    parser.add_argument("--patients", type=int, default=200, help="to train on")
    parser.add_argument("--prevalence", type=float, default=0.5)
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--difficulty", type=float, default=0.3)
    parser.add_argument("--backbone", default="test_byobnet", help="any of timm's with batch-norm and catavgmax pooling")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only-table", action="store_true", help="of what is there")
    given = parser.parse_args()
    known = arms(given.budget, given.learning_rate)
    chosen = list(known) if given.arms is None else given.arms
    if not set(chosen) <= set(known):
        parser.error(f"--arms: {', '.join(sorted(set(chosen) - set(known)))}; there are {', '.join(known)}")
    costly = [name for name in chosen or known if known[name].passes(given) <= 0]
    if costly:
        parser.error(f"--budget {given.budget}: less than the stored features of {', '.join(costly)} cost")
    if not given.only_table:
        torch.set_num_threads(given.threads)
        logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        heads = make_heads(given)
        for name in chosen or known:
            for seed in given.seeds:
                if known[name].warm_up:
                    encoder_alone(given, heads, known[name], seed)
        for name in chosen:
            for seed in given.seeds:
                run(given, heads, name, seed)
    rows = tabulate(given)
    if rows:
        print(write_table(given, rows))


if __name__ == "__main__":
    main()
