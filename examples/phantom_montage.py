"""Draw the montage of docs/phantom.md: every type of hemorrhage, blood of every age, and what looks like it.

Command:  python examples/phantom_montage.py docs/images/phantom.png
Time:     about a minute on one core.
"""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from ich_lstm.labels import HEMORRHAGE_TYPES
from ich_lstm.phantom import PhantomScan, PhantomSettings, Reconstruction, make_head, make_localizer
from ich_lstm.phantom.anatomy.shapes import Point
from ich_lstm.phantom.draws import stream
from ich_lstm.phantom.lesions.extraaxial import Crescent, FalxLayer, Lens, TentoriumLayer
from ich_lstm.phantom.lesions.findings import findings_of
from ich_lstm.phantom.lesions.intraaxial import Clot, SulcalBlood, VentricleBlood
from ich_lstm.phantom.lesions.lesion import Lesion
from ich_lstm.phantom.patient import Patient, draw_patient
from ich_lstm.phantom.scanner.acquisition import draw_acquisition
from ich_lstm.phantom.scanner.artefacts import Artefacts, draw_artefacts

BLEEDING = PhantomSettings(seed=4, size=288, slices=30, prevalence=1.0, difficulty=1.0, noise=0.75)
ACUTE = replace(BLEEDING, difficulty=0.0)
CLEAN = replace(BLEEDING, prevalence=0.0)

BRAIN, SUBDURAL, BONE, SCOUT = (40, 80), (60, 160), (700, 3000), (-350, 900)

OF_ANY_AGE = ("swirl", "subacute", "chronic", "level")
"""Words in the captions of what a set without difficulty does not hold."""

COLUMNS, CELL_PX, STEP = 8, 216, 5
"""Cells in a row, their side, and the step between the grey levels kept: noise compresses badly."""

WANTED = frozenset({"mass_effect", "midline_shift", "fracture", "scalp_swelling", "chronic", "fluid_level"})
"""Findings that go with a bleeding; a cell that shows a type shows nothing else."""


class Cell(NamedTuple):
    """One picture: its caption, HU ``(h, w)``, and grey-scale window."""

    caption: str
    hu: np.ndarray
    window: tuple[float, float] = BRAIN


def find(settings: PhantomSettings, fits: Callable[[Patient, frozenset[str]], bool]) -> int:
    """The number of the first patient of a set who fits, by what is on the table and by the findings."""
    for number in range(10000):
        if fits(*draw(settings, number)):
            return number
    raise LookupError(f"nobody fits in {settings}")


@cache
def draw(settings: PhantomSettings, number: int) -> tuple[Patient, frozenset[str]]:
    """A patient and the findings, without making the scan."""
    patient = draw_patient(settings, number)
    streams = (stream(settings.seed, number, name) for name in ("scanner", "aside"))
    return patient, findings_of(patient, draw_acquisition(*streams, settings, patient.head), spoilers(settings, number))


def spoilers(settings: PhantomSettings, number: int) -> Artefacts:
    """A patient's artefacts."""
    hardening, motion, metal = (stream(settings.seed, number, name) for name in ("hardening", "motion", "metal"))
    return draw_artefacts((hardening, motion, metal), 150.0, settings.difficulty)


def one(kind: type, holds: Callable[[Lesion], bool] = lambda lesion: True) -> Callable[[Patient, frozenset[str]], bool]:
    """Patients whose only hemorrhage is of one kind, for which something holds, and who have nothing else."""
    return lambda patient, words: (
        len(patient.lesions) == 1 and isinstance(patient.lesions[0], kind) and holds(patient.lesions[0]) and words <= WANTED
    )


def has(kind: type, holds: Callable[[Lesion], bool] = lambda lesion: True) -> Callable[[Patient, frozenset[str]], bool]:
    """Patients with a hemorrhage of one kind for which something holds, and perhaps others."""
    return lambda patient, words: words <= WANTED and any(isinstance(part, kind) and holds(part) for part in patient.lesions)


def blood(age: str, pattern: str = "even") -> Callable[[Lesion], bool]:
    """Whether a lesion's blood has an age and a pattern."""
    return lambda lesion: lesion.blood.age == age and lesion.blood.pattern == pattern


def at(scan: PhantomScan, *point: float) -> np.ndarray:
    """The slice through a point of the head, in the coordinates of `ich_lstm.phantom.anatomy.head`, for a head of mean size."""
    acquisition = scan.acquisition
    place = acquisition.head_center + np.array(point) @ acquisition.head_axes - acquisition.origin
    index = round(float(place @ acquisition.normal) / acquisition.spacing_mm)
    return trim(scan, int(np.clip(index, 0, len(scan.hu) - 1)))


def trim(scan: PhantomScan, index: int) -> np.ndarray:
    """A slice, cut to the head."""
    rows, columns = (np.flatnonzero(scan.brain.any(axis=(0, side))) for side in (2, 1))
    middle, half = (rows.mean(), columns.mean()), min(int(0.62 * np.ptp(rows)), scan.hu.shape[1] // 2)
    top, left = (int(np.clip(center - half, 0, scan.hu.shape[1] - 2 * half)) for center in middle)
    return scan.hu[index, top : top + 2 * half, left : left + 2 * half]


def most(scan: PhantomScan, kind: str) -> np.ndarray:
    """The slice, below the vertex, in which a type fills the largest area."""
    area = scan.masks[HEMORRHAGE_TYPES.index(kind)].sum(axis=(1, 2)).astype(float)
    area[scan.brain.sum(axis=(1, 2)) < 0.62 * scan.brain.sum(axis=(1, 2)).max()] *= 0.01
    return trim(scan, int(area.argmax()))


def bleedings() -> Iterator[Cell]:
    """The five types, each where it occurs."""

    def deep(lesion: Lesion) -> bool:
        return 20 < abs(lesion.center[0]) < 30 and abs(lesion.center[1]) < 8 and lesion.center[2] > -5

    def large(lesion: Lesion) -> bool:
        return float(np.linalg.norm(lesion.push.shift)) > 7.5

    def contused(patient: Patient, words: frozenset[str]) -> bool:
        return words <= WANTED and len(patient.lesions) > 2 and all(isinstance(lesion, Clot) for lesion in patient.lesions)

    kinds = (
        (
            "epidural, temporal",
            "epidural",
            one(Lens, lambda lesion: large(lesion) and lesion.bone[0] == "parietal" and blood("acute")(lesion)),
        ),
        (
            "epidural, frontal: ends at\ncoronal suture",
            "epidural",
            one(Lens, lambda lesion: large(lesion) and lesion.bone[0] == "frontal" and blood("acute")(lesion)),
        ),
        (
            "epidural, swirl:\nstill bleeding",
            "epidural",
            one(Lens, lambda lesion: large(lesion) and blood("acute", "mixed")(lesion)),
        ),
        ("subdural, acute", "subdural", one(Crescent, blood("acute"))),
        (
            "subdural, subacute:\nisodense",
            "subdural",
            one(Crescent, lambda lesion: blood("subacute")(lesion) and lesion.thickness > 14),
        ),
        ("subdural, chronic", "subdural", one(Crescent, blood("chronic"))),
        ("subdural, fluid level", "subdural", one(Crescent, blood("subacute", "level"))),
        ("subdural, acute on chronic", "subdural", one(Crescent, blood("acute", "level"))),
        ("subdural, acute in chronic,\nmixed", "subdural", one(Crescent, blood("acute", "mixed"))),
        ("subdural along the falx", "subdural", has(FalxLayer)),
        ("subdural on the tentorium", "subdural", has(TentoriumLayer)),
        ("subarachnoid, cisterns", "subarachnoid", one(SulcalBlood, lambda lesion: lesion.center[2] == -12)),
        ("subarachnoid, sulci", "subarachnoid", one(SulcalBlood, lambda lesion: lesion.center[2] > 5)),
        ("intraventricular, layered", "intraventricular", has(VentricleBlood, lambda lesion: lesion.level > 30)),
        ("intraventricular, cast", "intraventricular", has(VentricleBlood, lambda lesion: lesion.level < 0 and lesion.side == 0)),
        ("intraparenchymal, putamen", "intraparenchymal", one(Clot, lambda lesion: deep(lesion) and blood("acute")(lesion))),
        (
            "intraparenchymal, lobar",
            "intraparenchymal",
            one(Clot, lambda lesion: lesion.center[2] > 22 and blood("acute")(lesion)),
        ),
        (
            "intraparenchymal, cerebellum",
            "intraparenchymal",
            one(Clot, lambda lesion: lesion.center[1] > 36 and lesion.center[2] < -30),
        ),
        (
            "intraparenchymal, pons",
            "intraparenchymal",
            one(Clot, lambda lesion: abs(lesion.center[0]) < 5 and lesion.center[2] < -20),
        ),
        ("intraparenchymal,\nfluid level", "intraparenchymal", one(Clot, blood("acute", "level"))),
        ("contusions", "intraparenchymal", contused),
    )
    for caption, kind, fits in kinds:
        settings = BLEEDING if set(OF_ANY_AGE) & set(re.findall(r"\w+", caption)) else ACUTE
        number = find(settings, fits)
        scan = make_head(settings, number)
        thin = kind == "epidural" or (kind == "subdural" and ", acute" in caption)
        picture = at(scan, 0, 40, 1) if "tentorium" in caption else most(scan, kind)
        yield Cell(caption, picture, SUBDURAL if thin else BRAIN)
        if caption == "epidural, temporal":
            bone = make_head(settings, number, reconstruction=Reconstruction(kernel="bone"))
            yield Cell("its fracture: bone kernel", most(bone, kind), BONE)


def mimics() -> Iterator[Cell]:
    """Heads without hemorrhage that are hard to read."""

    def only(word: str, more: Callable[[Patient], bool] = lambda patient: True) -> Callable[[Patient, frozenset[str]], bool]:
        return lambda patient, words: words == {word} and more(patient)

    def two_spots(patient: Patient) -> bool:
        return len(patient.mimics) == 1 and len(patient.mimics[0].spots) == 2 and patient.mimics[0].hu > 150

    heads: tuple[tuple[str, Point | None, Callable[[Patient, frozenset[str]], bool]], ...] = (
        ("young", (0, 0, 12), lambda patient, words: not words and patient.head.atrophy < 0.15),
        ("atrophy", (0, 0, 12), only("atrophy", lambda patient: patient.head.atrophy > 0.85)),
        ("old infarct", (0, 0, 20), only("infarct", lambda patient: max(patient.mimics[0].radii) > 20)),
        ("calcified basal ganglia", (0, -2, 2), only("calcification", two_spots)),
        ("bone flap taken out", None, only("craniotomy", lambda patient: patient.injuries[0].missing)),
        ("sinuses and tentorium", (0, 50, 0), lambda patient, words: not words and patient.head.sinus_hu > 64),
        ("orbital roof, partial volume", (0, -60, -9), lambda patient, words: not words and patient.head.atrophy < 0.4),
    )
    for caption, point, fits in heads:
        number = find(CLEAN, fits)
        where = point or draw(CLEAN, number)[0].injuries[0].point
        yield Cell(caption, at(make_head(CLEAN, number), *where))
    hard = (number for number in range(1000) if spoilers(CLEAN, number).hardening_hu > 28 and not draw(CLEAN, number)[1])
    yield Cell("dark band between\npetrous bones", at(make_head(CLEAN, next(hard)), 0, 0, -36))
    for word in ("motion", "metal"):
        number = find(CLEAN, only(word))
        scan, spoiled = make_head(CLEAN, number), spoilers(CLEAN, number)
        height = spoiled.metal.height if spoiled.metal else (spoiled.motion.first + spoiled.motion.last) / 2
        yield Cell(word, trim(scan, min(int(height / scan.spacing_mm[0]), len(scan.hu) - 1)))
    scan = make_head(CLEAN, find(CLEAN, only("off_centre")))
    yield Cell("off the centre", scan.hu[len(scan.hu) // 2])


def reconstructions() -> Iterator[Cell]:
    """One acquisition, four ways, and its localizer."""
    number = find(CLEAN, lambda patient, words: not words and patient.head.atrophy < 0.4)
    loud = replace(CLEAN, noise=1.0)
    for caption, kind, point, window in (
        ("soft kernel, 5 mm", Reconstruction(thickness_mm=5.0), (0, 0, 8), BRAIN),
        ("soft kernel, 1.25 mm", Reconstruction(thickness_mm=1.25), (0, 0, 8), BRAIN),
        ("contrast agent", Reconstruction(contrast=True), (0, -15, -13), SUBDURAL),
        ("bone kernel, 1.25 mm", Reconstruction(thickness_mm=1.25, kernel="bone"), (0, 0, -28), BONE),
    ):
        yield Cell(caption, at(make_head(loud, number, reconstruction=kind), *point), window)
    yield Cell("localizer", make_localizer(CLEAN, number), SCOUT)


def main(path: Path) -> None:
    """Write the montage."""
    cells = [*bleedings(), *mimics(), *reconstructions()]
    rows = -(-len(cells) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(COLUMNS * CELL_PX / 100, rows * (CELL_PX + 26) / 100), dpi=100)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (caption, hu, (level, width)) in zip(axes.flat, cells, strict=False):
        axis.imshow(hu, cmap="gray", vmin=level - width / 2, vmax=level + width / 2, interpolation="antialiased")
        axis.set_title(caption, fontsize=6.5, pad=2)
    figure.subplots_adjust(0.002, 0.002, 0.998, 0.975, wspace=0.02, hspace=0.15)
    figure.savefig(path)
    with Image.open(path) as picture:
        grey = picture.convert("L").point(lambda value: min(round(value / STEP) * STEP, 255))
    grey.save(path, optimize=True)
    print(f"{path}: {len(cells)} pictures, {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
