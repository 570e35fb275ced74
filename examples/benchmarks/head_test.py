"""How often the test for a head errs: on synthetic heads, on drawings of other parts of the body, and on real heads.

    python examples/benchmarks/head_test.py [--heads 200] [--arrays FOLDER] [--exams FOLDER_OR_ZIP ...]

Synthetic heads are easy and hard ones (`difficulty` 0 and 1: surgery, metal, motion, tilt), whole and halved. The other parts
are those of `tests/body_parts.py`: rough shapes with the densities of muscle, fat, marrow, cortex and air.
`--arrays` names a folder of `.npz` with `gray` `(n, 256, 256)`, 8 bits of a window of level 40 and width 120, as PHE-SICH-CT-IDS
is published; 255 is taken for bone and 0 for air. That data set tells no spacing: 0.9 mm and 5 mm are assumed (2.5 mm, where
there are more than 40 slices). `--exams` are DICOM. It takes 5 minutes, and prints counts and extremes, nothing of a person.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from body_parts import HEADS, OTHERS, Shape, noisy

from ich_lstm.phantom import PhantomSettings, make_head
from ich_lstm.reading import read_scan
from ich_lstm.reading.body.head import (
    brain_share,
    count_neck_slices,
    find_skull,
    is_defaced,
    judge,
    measure_section,
    missing_parts,
)

Volume = tuple[np.ndarray, float, np.ndarray]
"""HU ``(n, h, w)``, side of a pixel in mm, positions in mm."""


def phantoms(count: int, difficulty: float) -> Iterator[Volume]:
    """Synthetic heads."""
    for patient in range(count):
        head = make_head(PhantomSettings(size=128, seed=62, difficulty=difficulty), patient)
        yield head.hu, head.spacing_mm[1], np.asarray(head.positions_mm)


def halves(count: int, *, upper: bool) -> Iterator[Volume]:
    """Upper or lower halves of synthetic heads."""
    for hu, pixel_mm, positions in phantoms(count, 1.0):
        part = slice(len(hu) // 2, None) if upper else slice(0, len(hu) // 2)
        yield hu[part], pixel_mm, positions[part]


def drawn(shapes: dict[str, tuple[Shape, dict[str, float]]]) -> Iterator[Volume]:
    """Drawings, with noise."""
    for shape, options in shapes.values():
        pixel_mm, step = options.get("pixel_mm", 4.0), options.get("step", 5.0)
        positions = options.get("start_mm", 0.0) + step * np.arange(int(options["count"]))
        grid = (np.arange(128) - 64) * pixel_mm
        x, y = np.meshgrid(grid, grid)
        images = [np.rint(noisy(shape)(x, y, np.full_like(x, z))).clip(-1024, 3071).astype(np.int16) for z in positions]
        yield np.stack(images), pixel_mm, positions


def arrays(folder: Path) -> Iterator[Volume]:
    """Real heads of 8 bits."""
    for path in sorted(folder.glob("*.npz")):
        gray = np.load(path)["gray"]
        hu = np.rint(-20 + gray * (120 / 255)).astype(np.int16)
        hu[gray == 255], hu[gray == 0] = 1000, -1000
        yield hu, 0.9, np.arange(len(hu)) * (2.5 if len(hu) > 40 else 5.0)


def exams(sources: list[Path]) -> Iterator[Volume]:
    """Real examinations."""
    for source in sources:
        scan = read_scan(source)
        yield scan.hu, scan.spacing_mm[1], scan.positions_mm


def add_row(table: Table, name: str, volumes: Iterator[Volume]) -> None:
    """Judge volumes, and add a row of counts."""
    verdicts = {"head": 0, "unclear": 0, "other": 0}
    cropped = incomplete = defaced = no_brain = 0
    volumes_ml, largest_cm2 = [], []
    for hu, pixel_mm, positions in volumes:
        step = float(np.median(np.diff(positions)))
        sections = [measure_section(image, pixel_mm) for image in hu]
        verdicts[judge(sections, step)] += 1
        below = count_neck_slices(sections, positions)
        cropped += below > 0
        incomplete += bool(missing_parts(sections[below:], positions[below:]))
        defaced += is_defaced(sections)
        no_brain += brain_share(sections) < 0.2
        if skull := find_skull(sections, step):
            volumes_ml.append(skull.volume_ml)
            largest_cm2.append(skull.largest_cm2)
    counts = [*verdicts.values(), cropped, incomplete, defaced, no_brain]
    extremes = [f"{min(values):.0f} to {max(values):.0f}" if values else "" for values in (volumes_ml, largest_cm2)]
    table.add_row(name, *map(str, counts), *extremes)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=200, help="synthetic heads of each kind")
    parser.add_argument("--arrays", type=Path, help="folder of real heads as .npz")
    parser.add_argument("--exams", type=Path, nargs="*", default=[], help="real examinations as DICOM")
    options = parser.parse_args()
    table = Table(
        "", "head", "unclear", "other", "cropped", "incomplete", "defaced", "no brain", "skull, ml", "largest section, cm²"
    )
    add_row(table, "synthetic heads, easy", phantoms(options.heads, 0.0))
    add_row(table, "synthetic heads, hard", phantoms(options.heads, 1.0))
    add_row(table, "upper halves", halves(options.heads // 2, upper=True))
    add_row(table, "lower halves", halves(options.heads // 2, upper=False))
    add_row(table, "drawn heads, infants too", drawn(HEADS))
    add_row(table, "drawn other parts", drawn(OTHERS))
    if options.arrays:
        add_row(table, "real heads, 8 bits", arrays(options.arrays))
    if options.exams:
        add_row(table, "real examinations", exams(options.exams))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
