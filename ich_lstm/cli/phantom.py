"""ich-phantom: synthetic head CT with known truth, in the layout of a known data set."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ich_lstm.cli.console import DONE, OptionParser, console, progress_bar, run_command
from ich_lstm.errors import ConfigError

HELP = """
ich-phantom --out DIR [--layout rsna|cq500|ct-ich|hospital] [--patients 100] [--slices 30] [--size 256] [--seed 1]

Make synthetic head CT with known hemorrhages in the layout of the RSNA 2019 data set (stage_2_train/ID_....dcm and
stage_2_train.csv), of CQ500, of CT-ICH or of a hospital's export. The same arguments give the same bytes on every machine.

  --out DIR          new or empty folder
  --layout rsna      cq500: several series per study, three readers; ct-ich: NIfTI; hospital: export and report table
  --patients 100     number of patients with one scan each (hospital: one or more)
  --slices N         slices per scan; left out: 20 to 45
  --size 256         rows and columns of a slice
  --seed 1           another seed gives other heads
  --prevalence 0.41  share of scans with a hemorrhage
  --noise 1.0        factor on the noise; 0 for no noise
  --difficulty 0     frequency of confounders, 0 to 1
  --masks            write the mask of every type: masks/<series>.npy
  --workers N        number of processes; left out: one per processor
  --debug            show the traceback of an error
  --version

  rsna:      --image-folder stage_2_train_images   the folder's other name in use; the test images' folder follows
             --test-patients 0                     size of a test set without labels, with stage_2_sample_submission.csv
             --repeated-rows --truncated-file --other-matrix          irregularities of the original
  cq500:     --archives   zip files      --nested   studies below qct01/ ...      --boxes   the tables of BHX
             --thin-every 10   one study in this many also has thin slices   --thin-mm 0.625   their thickness
  hospital:  --most-studies 3   studies per patient, at most      --slice-rows   a row per slice for some studies

Exit codes: 0 done, 1 failed, 2 wrong usage.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ich-phantom.

    Args:
        argv: Arguments of the command; None for those of the process.

    Returns:
        The exit code.
    """
    return run_command("ich-phantom", HELP, _phantom, argv)


def options_of(kind: Any) -> dict[str, Callable[[str], Any] | None]:
    """The command-line options of a settings dataclass.

    A field that is False by default is a switch; a field with a number, a text or None as its default takes a value. All
    other fields can be set in Python only.

    Args:
        kind: `PhantomSettings` or a layout.

    Returns:
        For each option, without its dashes, the type of its value; None for a switch. A default of None stands for a number.
    """
    options: dict[str, Callable[[str], Any] | None] = {}
    for field in fields(kind):
        name, default = field.name.replace("_", "-"), field.default
        if default is False:
            options[name] = None
        elif default is None:
            options[name] = int
        elif isinstance(default, (int, float, str)) and default is not True:
            options[name] = type(default)
    return options


def _phantom(arguments: list[str]) -> int:
    from ich_lstm.phantom import LAYOUTS, PhantomSettings, write_phantom

    parser = OptionParser("ich-phantom")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layout", choices=LAYOUTS, default="rsna")
    parser.add_argument("--workers", type=int)
    for kind in (PhantomSettings, *LAYOUTS.values()):
        for option, value_type in options_of(kind).items():
            # Options that are not given are not passed on, so that the defaults stand in the dataclasses alone.
            if value_type is None:
                parser.add_argument(f"--{option}", action="store_true", default=argparse.SUPPRESS)
            else:
                parser.add_argument(f"--{option}", type=value_type, default=argparse.SUPPRESS)
    given = vars(parser.parse(arguments))
    folder, name, workers = given.pop("out"), given.pop("layout"), given.pop("workers")
    for other, kind in LAYOUTS.items():
        if other != name and (foreign := _take(kind, given)):
            raise ConfigError(
                "wrong_usage",
                where="command line",
                got=f"--{next(iter(foreign)).replace('_', '-')} with --layout {name}",
                expected=f"--layout {other}",
                todo="Leave the option out, or choose that layout.",
            )
    layout = LAYOUTS[name](**_take(LAYOUTS[name], given))
    settings = PhantomSettings(**given)
    patients = layout.patients(settings)
    out = console()
    with progress_bar(out) as progress:
        progress("making heads", 0, patients)
        write_phantom(
            settings, folder, layout=layout, workers=workers, progress=lambda done: progress("making heads", done, patients)
        )
    out.print(f"{patients} synthetic patients in {folder}")
    labels = "" if layout.name == "rsna" else f" --data.labels {folder / layout.labels}"
    out.print(f"Next: ich-train --config demo --phantom null --data.root {folder}{labels}")
    return DONE


def _take(kind: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Take the options of a layout out of those that were given."""
    names = [option.replace("-", "_") for option in options_of(kind)]
    return {name: given.pop(name) for name in names if name in given}


if __name__ == "__main__":
    sys.exit(main())
