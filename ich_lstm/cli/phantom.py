"""ich-phantom: synthetic head CT with known truth, in the layout of a known data set."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ich_lstm.cli.console import DONE, OptionParser, console, progress_bar, run_command
from ich_lstm.errors import ConfigError

if TYPE_CHECKING:
    from ich_lstm.phantom import Layout

HELP = """
ich-phantom --out DIR [--layout rsna|cq500|ct-ich|hospital] [--patients 100] [--slices 30] [--size 256] [--seed 1]

Make synthetic head CT with known bleeding, written as the RSNA 2019 data set is: stage_2_train/ID_....dcm and
stage_2_train.csv; or as CQ500, CT-ICH or a hospital's export. The same arguments give the same bytes on every machine.

  --out DIR          new or empty folder
  --layout rsna      cq500: several series per study, three readers; ct-ich: NIfTI; hospital: export and report table
  --patients 100     one scan each (hospital: one or more)
  --slices N         slices per scan; left out: 20 to 45
  --size 256         rows and columns of a slice
  --seed 1           another seed, other heads
  --prevalence 0.41  share of scans with bleeding
  --noise 1.0        factor on the noise; 0 is none
  --difficulty 0     how often what is hard to read occurs, 0 to 1
  --masks            keep the mask of every type: masks/<series>.npy
  --workers N        processes; left out: one per processor
  --debug            show the traceback of an error
  --version

  rsna:      --image-folder stage_2_train_images   the other name in use; the test images' follows it
             --test-patients 0                     a test set without labels, and stage_2_sample_submission.csv
             --repeated-rows --truncated-file --other-matrix          the oddities of the original
  cq500:     --archives   zip files      --nested   below qct01/ ...      --boxes   the tables of BHX
             --thin-every 10   every so many studies have thin slices too   --thin-mm 0.625   their thickness
  hospital:  --most-studies 3   per patient      --slice-rows   some studies have a row per slice

Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

LAYOUT_OPTIONS: dict[str, dict[str, Callable[[str], Any] | None]] = {
    "rsna": {"image-folder": str, "test-patients": int, "repeated-rows": None, "truncated-file": None, "other-matrix": None},
    "cq500": {"archives": None, "nested": None, "thin-every": int, "thin-mm": float, "boxes": None},
    "ct-ich": {},
    "hospital": {"most-studies": int, "slice-rows": None},
}
"""Options of one layout, and what reads their value; None: a switch."""

SETTINGS_OPTIONS: dict[str, Callable[[str], Any] | None] = {
    "patients": int, "slices": int, "size": int, "seed": int, "prevalence": float, "noise": float, "difficulty": float,
    "masks": None,
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command("ich-phantom", HELP, _phantom, argv)


def _phantom(arguments: list[str]) -> int:
    parser = OptionParser("ich-phantom")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layout", choices=LAYOUT_OPTIONS, default="rsna")
    parser.add_argument("--workers", type=int)
    for options in (SETTINGS_OPTIONS, *LAYOUT_OPTIONS.values()):
        for name, kind in options.items():
            # The defaults are those of the constructors: what is not given is not passed on.
            if kind is None:
                parser.add_argument(f"--{name}", action="store_true", default=argparse.SUPPRESS)
            else:
                parser.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS)
    given = vars(parser.parse(arguments))
    from ich_lstm.phantom import PhantomSettings, write_phantom

    folder, workers = given.pop("out"), given.pop("workers")
    layout = _layout(given.pop("layout"), given)
    settings = PhantomSettings(**{name: value for name, value in given.items() if name in SETTINGS_OPTIONS})
    patients = layout.patients(settings)
    out = console()
    with progress_bar(out) as tell:
        tell("making heads", 0, patients)
        write_phantom(
            settings, folder, layout=layout, workers=workers, progress=lambda done: tell("making heads", done, patients)
        )
    out.print(f"{patients} synthetic patients in {folder}")
    labels = "" if layout.name == "rsna" else f" --data.labels {folder / layout.labels}"
    out.print(f"Next: ich-train --config demo --phantom null --data.root {folder}{labels}")
    return DONE


def _layout(name: str, given: dict[str, Any]) -> "Layout[Any]":
    """The layout with its options, which are taken out of what was given."""
    from ich_lstm.phantom import LAYOUTS

    own: dict[str, Any] = {}
    for layout, options in LAYOUT_OPTIONS.items():
        for option in options:
            key = option.replace("-", "_")
            if key not in given:
                continue
            if layout != name:
                raise ConfigError(
                    "wrong_usage",
                    where="command line",
                    got=f"--{option} with --layout {name}",
                    expected=f"--layout {layout}",
                    todo="Leave the option out, or choose that layout.",
                )
            own[key] = given.pop(key)
    return LAYOUTS[name](**own)


if __name__ == "__main__":
    sys.exit(main())
