"""Where heat maps point on heads whose bleedings are known, and what an explanation costs.

    python examples/benchmarks/explain.py --train --out runs/explain               # trains runs/explain/model-run first
    python examples/benchmarks/explain.py --checkpoint runs/rsna --out runs/explain
    python examples/benchmarks/explain.py --speed [--backbone resnext50_32x4d] [--size 256] [--rounds 3]
    python examples/benchmarks/explain.py --memory [--backbone resnext50_32x4d] [--size 256]

Localization: on synthetic heads that the model has not seen, how often the peak of a type's heat map lies within 15 mm of the
mask of that type in the plane of the slice, and how often inside the skull. Once for the slice of each scan in which the model is
surest of the type, among those whose mask holds it, and once for all of these. Beside it the middle of the intracranial area, and
the peak of the map of the same network with random weights. A map that is 0 everywhere misses. Writes localization.csv and .md.

Speed: an explanation beside a prediction, as medians of the ratios of interleaved rounds; memory: the growth of the resident
memory's peak over explaining, in a process each (Linux). Goal: at most 4 times a prediction; bounded for 300 slices.
"""

import argparse
import gc
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from machine import hardware
from rich.console import Console
from rich.progress import track
from scipy.ndimage import distance_transform_edt

from ich_lstm import LABELS, Encoder, Explanation, Scan, ScanClassifier, explain
from ich_lstm.labels import HEMORRHAGE_TYPES
from ich_lstm.phantom import PhantomScan, PhantomSettings, make_head
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.privacy import ProjectKey
from ich_lstm.scan import HU_MAX, HU_MIN
from ich_lstm.settings import merged
from ich_lstm.statistics import wilson
from ich_lstm.statistics.bootstrap import PatientBootstrap, bootstrap_interval
from ich_lstm.statistics.proportions import ratio

NEAR_MM = 15.0
STRIDES = (32, 16)
MODEL, RANDOM, MIDDLE = "the model", "random weights", "middle of the brain"

TRAINING = {
    "phantom.size": 192,
    "phantom.slices": 20,
    "phantom.patients": 90,
    "phantom.prevalence": 0.8,
    "data.preprocessing.size": 192,
    "model.head.encoder_residual": True,
    "stages": "null",  # end to end from the start
    "trainer.max_epochs": 18,
}
"""Beside the demo's settings: maps of 128 pixels have cells of 50 mm at stride 32."""

KEY = ProjectKey(bytes(32))
"""Ids play no part here."""


class Peak(NamedTuple):
    """Where one map points in one slice that holds a type."""

    patient: int
    type: str
    source: str
    stride: int
    slice: int
    chosen: bool
    near: bool
    inside: bool


# ------------------------------------------------------------------------------------------------ localization
def train(out: Path) -> Path:
    """Train the demo's network on larger images; returns the run."""
    run = out / "model-run"
    options = [word for name, value in TRAINING.items() for word in (f"--{name}", str(value))]
    subprocess.run([sys.executable, "-m", "ich_lstm.cli.train", "--config", "demo", "--out", str(run), *options], check=True)
    return run


def scan_of(head: PhantomScan) -> Scan:
    """The head as a reader would give it."""
    return Scan(
        hu=head.hu.clip(HU_MIN, HU_MAX),
        positions_mm=head.positions_mm,
        spacing_mm=head.spacing_mm,
        sop_uids=head.sop_uids,
        series_uid=head.series_uid,
        study_uid=head.study_uid,
        patient_id=head.patient_id,
    )


def with_random_weights(classifier: ScanClassifier, seed: int = 0) -> ScanClassifier:
    """The same network, as it begins."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        other = ScanClassifier.from_settings(merged(classifier.settings, {"encoder": {"pretrained": False}}))
    other.preprocessing = classifier.preprocessing
    return other.eval()


def peaks_of_head(patient: int, head: PhantomScan, models: dict[str, ScanClassifier]) -> Iterator[Peak]:
    """Every map of one head."""
    scan = scan_of(head)
    present = [k for k, mask in enumerate(head.masks) if (mask.any(axis=(1, 2)) & (head.slice_labels[:, k] > 0)).any()]
    if not present:
        return
    (prediction,) = models[MODEL].predict(scan, project_key=KEY)
    names = [HEMORRHAGE_TYPES[k] for k in present]
    maps = {(who, s): explain(model, scan, labels=names, stride=s) for who, model in models.items() for s in STRIDES}
    for k, name in zip(present, names, strict=True):
        holding = np.flatnonzero(head.masks[k].any(axis=(1, 2)) & (head.slice_labels[:, k] > 0))
        surest = holding[prediction.slice_probabilities[holding, LABELS.index(name)].argmax()]
        for i in holding:
            to_mask = distance_transform_edt(~head.masks[k, i]) * head.spacing_mm[1]
            middle = tuple(np.argwhere(head.brain[i]).mean(axis=0).round().astype(int))
            places = {(MIDDLE, stride): middle for stride in STRIDES}
            places |= {which: peak_of(explanation, i, name, scan) for which, explanation in maps.items()}
            for (who, stride), place in places.items():
                near, inside = (False, False) if place is None else (to_mask[place] <= NEAR_MM, head.brain[i][place])
                yield Peak(patient, name, who, stride, int(i), bool(i == surest), bool(near), bool(inside))


def peak_of(explanation: Explanation, number: int, label: str, scan: Scan) -> tuple[int, int] | None:
    """Row and column of the pixel where a map is largest; None where it is 0 everywhere."""
    heat = explanation.on_slice(number, label, scan.hu.shape[1:])
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    return (int(row), int(column)) if heat.max() > 0 else None


def summarize(peaks: pd.DataFrame) -> pd.DataFrame:
    """Shares with 95 % intervals: of one slice per scan by Wilson, of all slices by the bootstrap of patients."""
    rows = []
    every = peaks.assign(type="all types")
    for (name, source, stride), group in pd.concat([peaks, every]).groupby(["type", "source", "stride"], sort=False):
        chosen = group[group["chosen"]]
        row = {"type": name, "stride": stride, "peak": source, "scans": len(chosen), "slices": len(group)}
        for column in ("near", "inside"):
            if chosen["patient"].is_unique:
                low, high = wilson(chosen[column].sum(), len(chosen))
            else:  # several types of a patient
                low, high = by_patients(chosen, column)
            row |= {column: chosen[column].mean(), f"{column}_low": low, f"{column}_high": high}
            low, high = by_patients(group, column)
            row |= {f"{column}_slices": group[column].mean(), f"{column}_slices_low": low, f"{column}_slices_high": high}
        rows.append(row)
    table = pd.DataFrame(rows)
    order = [*HEMORRHAGE_TYPES, "all types"]
    keys = table.assign(
        a=table["type"].map(order.index), b=-table["stride"], c=table["peak"].map([MODEL, RANDOM, MIDDLE].index)
    ).sort_values(["a", "b", "c"])
    return table.loc[keys.index].reset_index(drop=True)


def by_patients(group: pd.DataFrame, column: str) -> tuple[float, float]:
    """Limits of a share of slices, which are not independent."""
    sums = group.groupby("patient")[column].agg(["sum", "count"])
    part, whole = sums["sum"].to_numpy(float), sums["count"].to_numpy(float)
    bootstrap = PatientBootstrap(len(sums))
    replicates = bootstrap.replicate(lambda counts: ratio(part @ counts, whole @ counts)[None], cases=len(group))[0]
    value = float(part.sum() / whole.sum())
    estimate = bootstrap_interval(value, replicates, scale="proportion", patients=len(sums), binomial=True)
    return (np.nan, np.nan) if estimate.low is None or estimate.high is None else (estimate.low, estimate.high)


def as_markdown(table: pd.DataFrame) -> str:
    """The table for a page."""

    def share(row: pd.Series, name: str) -> str:
        value, low, high = (100 * row[key] for key in (name, f"{name}_low", f"{name}_high"))
        return f"{value:.0f}" if np.isnan(low) else f"{value:.0f} ({low:.0f} to {high:.0f})"

    columns = [
        "type",
        "stride",
        "peak of",
        *(f"{of}, {share}" for of in ("scans", "slices") for share in ("n", "near", "inside")),
    ]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for _, row in table.iterrows():
        figures = [share(row, name) for name in ("near", "inside", "near_slices", "inside_slices")]
        cells = [row["type"], row["stride"], row["peak"], row["scans"], *figures[:2], row["slices"], *figures[2:]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def measure_localization(given: argparse.Namespace, out: Console) -> None:
    """All heads, the tables, and whether the maps beat both baselines."""
    given.out.mkdir(parents=True, exist_ok=True)
    run = train(given.out) if given.train else given.checkpoint
    classifier = ScanClassifier.load(run)
    models = {MODEL: classifier, RANDOM: with_random_weights(classifier)}
    settings = PhantomSettings(size=given.phantom_size, slices=20, seed=given.seed, noise=0.7, prevalence=1.0)
    peaks: list[Peak] = []
    for patient in track(range(given.patients), "heads"):
        peaks += peaks_of_head(patient, make_head(settings, patient), models)
    frame = pd.DataFrame(peaks, columns=list(Peak._fields))
    frame.to_csv(given.out / "peaks.csv", index=False)
    table = summarize(frame)
    table.to_csv(given.out / "localization.csv", index=False)
    (given.out / "localization.md").write_text(as_markdown(table))
    out.print(as_markdown(table))
    whole = table[table["type"] == "all types"].set_index(["stride", "peak"])
    for stride in STRIDES:
        low = whole.loc[(stride, MODEL), "near_low"]
        best = max(whole.loc[(stride, baseline), "near_high"] for baseline in (RANDOM, MIDDLE))
        verdict = "beats both baselines clearly" if low > best else "does not beat both baselines clearly"
        out.print(f"stride {stride}: {verdict} (its interval begins at {low:.0%}, theirs end at {best:.0%})")


# ------------------------------------------------------------------------------------------------ speed and memory
def make_case(given: argparse.Namespace, slices: int) -> tuple[ScanClassifier, Scan]:
    """A network with random weights and a scan of noise."""
    torch.manual_seed(0)
    classifier = ScanClassifier(Encoder(backbone=given.backbone, pretrained=False)).to(given.device).eval()
    classifier.preprocessing = Preprocessing(size=given.size)
    hu = np.random.default_rng(0).normal(40, 60, (slices, given.size, given.size)).clip(-1000, 3000).astype(np.int16)
    uids = tuple(f"1.2.{i}" for i in range(slices))
    positions = np.arange(slices) * 5.0
    return classifier, Scan(hu=hu, positions_mm=positions, spacing_mm=(5.0, 0.8, 0.8), sop_uids=uids, series_uid="1")


def measure_speed(given: argparse.Namespace, out: Console) -> None:
    """Ratios of explanations to predictions."""
    classifier, scan = make_case(given, given.slices)
    two = ("subdural", "any")
    ways: dict[str, Callable[[], object]] = {
        "prediction": lambda: list(classifier.predict(scan, project_key=KEY)),
        "all six labels": lambda: explain(classifier, scan),
        "two labels": lambda: explain(classifier, scan, labels=two),
        "all six labels, last map": lambda: explain(classifier, scan, stride=32),
        "two labels, last map": lambda: explain(classifier, scan, labels=two, stride=32),
    }
    ways["prediction"]()  # the first is slower
    rounds = []
    for _ in track(range(given.rounds), "rounds"):
        rounds.append({name: seconds_of(way, given.device) for name, way in ways.items()})
    out.print("| explanation of | times a prediction | seconds | processor time, times | seconds |\n|---|---|---|---|---|")
    for name in ways:
        cells = []
        for clock in range(2):
            times = statistics.median(row[name][clock] / row["prediction"][clock] for row in rounds)
            cells += [f"{times:.2f}", f"{statistics.median(row[name][clock] for row in rounds):.1f}"]
        out.print(f"| {name} | {' | '.join(cells)} |")


def seconds_of(function: Callable[[], object], device: str) -> tuple[float, float]:
    """Time of a call, all work of the device included; and the processor's, which other work on the machine hardly touches."""
    begin, begin_processor = time.perf_counter(), time.process_time()
    function()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin, time.process_time() - begin_processor


def measure_memory(given: argparse.Namespace, out: Console) -> None:
    """The peak's growth for scans of two lengths."""
    out.print("| slices | prediction, MiB | explanation of six labels, MiB |\n|---|---|---|")
    for slices in (35, 300):
        cells = [f"{in_fresh_process(given, slices, explains):.0f}" for explains in (False, True)]
        out.print(f"| {slices} | {' | '.join(cells)} |")


def in_fresh_process(given: argparse.Namespace, slices: int, explains: bool) -> float:
    """Growth in MiB; memory that one measurement has freed would hide the next one's."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs, given, slices, explains))
    process.start()
    theirs.close()
    growth = ours.recv()
    process.join()
    return growth


def _child(connection: Connection, given: argparse.Namespace, slices: int, explains: bool) -> None:
    torch.set_num_threads(given.threads)
    _, first = make_case(given, 2)
    classifier, scan = make_case(given, slices)
    explain(classifier, first)  # code and tables of the first use
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (proc(5))
    before = _memory("VmRSS")
    _ = explain(classifier, scan) if explains else list(classifier.predict(scan, project_key=KEY))
    connection.send(_memory("VmHWM") - before)


def _memory(field: str) -> float:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields[field].split()[0]) / 1024


# ------------------------------------------------------------------------------------------------ command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--checkpoint", type=Path, help="a trained model, whose maps are looked at")
    what.add_argument("--train", action="store_true", help="train one first")
    what.add_argument("--speed", action="store_true", help="measure time alone")
    what.add_argument("--memory", action="store_true", help="measure memory alone")
    parser.add_argument("--out", type=Path, default=Path("runs/explain"))
    parser.add_argument("--patients", type=int, default=60, help="synthetic heads, every one with a bleeding")
    parser.add_argument("--seed", type=int, default=1001, help="of these heads")
    parser.add_argument("--phantom-size", type=int, default=192, help="their pixels")
    parser.add_argument("--backbone", default="resnext50_32x4d", help="with --speed or --memory")
    parser.add_argument("--size", type=int, default=256, help="with --speed or --memory")
    parser.add_argument("--slices", type=int, default=35, help="with --speed")
    parser.add_argument("--rounds", type=int, default=3, help="with --speed")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu", help="with --speed")
    given = parser.parse_args(arguments)
    out = Console(soft_wrap=True)
    torch.set_num_threads(given.threads)
    out.print(hardware(given.device))
    if given.speed:
        measure_speed(given, out)
    elif given.memory:
        measure_memory(given, out)
    else:
        measure_localization(given, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
