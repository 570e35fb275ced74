"""ich-phantom: synthetic head CT with known truth, as DICOM in RSNA's layout."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ich_lstm.cli.console import DONE, OptionParser, console, progress_bar, run_command

HELP = """
ich-phantom --out DIR [--patients 100] [--slices 30] [--size 256] [--seed 1]

Make synthetic head CT with known bleeding, written as the RSNA 2019 data set is: stage_2_train/ID_....dcm and
stage_2_train.csv. The same arguments give the same bytes on every machine.

  --out DIR          new or empty folder
  --patients 100     one scan each
  --slices N         slices per scan; left out: 20 to 45
  --size 256         rows and columns of a slice
  --seed 1           another seed, other heads
  --prevalence 0.41  share of scans with bleeding
  --noise 1.0        factor on the noise; 0 is none
  --workers N        processes; left out: one per processor
  --debug            show the traceback of an error
  --version

Exit codes: 0 done, 1 failed, 2 wrong usage.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command("ich-phantom", HELP, _phantom, argv)


def _phantom(arguments: list[str]) -> int:
    parser = OptionParser("ich-phantom")
    parser.add_argument("--out", type=Path, required=True)
    for name, kind in {"patients": int, "slices": int, "size": int, "seed": int, "prevalence": float, "noise": float}.items():
        # The defaults are those of PhantomSettings: what is not given is not passed on.
        parser.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int)
    given = vars(parser.parse(arguments))
    from ich_lstm.phantom import PhantomSettings, write_phantom

    folder, workers = given.pop("out"), given.pop("workers")
    settings = PhantomSettings(**given)
    out = console()
    with progress_bar(out) as tell:
        tell("making heads", 0, settings.patients)
        write_phantom(settings, folder, workers=workers, progress=lambda done: tell("making heads", done, settings.patients))
    out.print(f"{settings.patients} synthetic patients in {folder}")
    out.print(f"Next: ich-train --config demo --phantom null --data.root {folder}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
