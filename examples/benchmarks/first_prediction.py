"""How long the first prediction takes in a fresh process, and ich-predict on many studies; beside another commit, if wanted.

    python examples/benchmarks/first_prediction.py --model MODEL
    git worktree add ../before COMMIT && python examples/benchmarks/first_prediction.py --model MODEL --against ../before

MODEL is a model's folder, which the other commit must be able to load. Every round starts a process for each way and each
checkout, one after the other, in turn; medians of the seconds are printed, and the median of the rounds' ratios.
Goals: the first prediction takes at most half of what it took before Part 9, and ich-predict on 60 studies no longer.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ich_lstm.phantom import PhantomSettings, write_phantom

HERE = Path(__file__).resolve().parents[2]

FIRST = "import sys, ich_lstm; next(iter(ich_lstm.ScanClassifier.load(sys.argv[1]).predict(sys.argv[2])))"
PREDICTOR = FIRST.replace("ich_lstm;", "ich_lstm.inference.predictor;").replace("ScanClassifier", "inference.predictor.Predictor")


def seconds(checkout: Path, home: Path, arguments: list[str]) -> float:
    """Wall seconds of a fresh process of a checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "HOME": str(home), "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL, cwd=home)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--against", type=Path, help="checkout of another commit")
    parser.add_argument("--studies", type=int, default=60, help="of ich-predict; 0: leave it out")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    model = given.model.resolve()
    checkouts = {"this": HERE} | ({"before": given.against.resolve()} if given.against else {})
    with tempfile.TemporaryDirectory() as made:
        home = Path(made)
        one = write_phantom(PhantomSettings(patients=1, slices=8, size=256), home / "one", workers=1)
        ways = {"first prediction": ["-c", FIRST, str(model), str(one)], "Predictor": ["-c", PREDICTOR, str(model), str(one)]}
        if given.studies:
            many = write_phantom(PhantomSettings(patients=given.studies, slices=8, size=256), home / "many", workers=1)
            options = [str(many), "--checkpoint", str(model), "--heat-maps", "none", "--device", "cpu"]
            ways["ich-predict"] = ["-m", "ich_lstm.cli.predict", *options]
        for way, arguments in ways.items():
            taken: dict[str, list[float]] = {name: [] for name in checkouts}
            for number in range(given.rounds + 1):
                for name, checkout in checkouts.items():
                    if way == "Predictor" and name == "before":
                        continue
                    out = ["--out", str(home / f"out-{name}-{number}")] if way == "ich-predict" else []
                    spent = seconds(checkout, home, [*arguments, *out])
                    if number:  # the first round fills the page cache and compiles
                        taken[name].append(spent)
            text = ", ".join(f"{name} {statistics.median(spent):.2f} s" for name, spent in taken.items() if spent)
            both = all(taken.values()) and len(taken) > 1
            ratio = statistics.median(a / b for a, b in zip(taken["this"], taken["before"], strict=True)) if both else None
            print(f"{way}: {text}" + ("" if ratio is None else f"; ratio {ratio:.2f}"))


if __name__ == "__main__":
    main()
