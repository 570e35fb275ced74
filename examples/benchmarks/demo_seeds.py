"""The demo with several seeds: does the sequence model beat its own encoder, and how long does it take?

    python examples/benchmarks/demo_seeds.py --out runs/demo-seeds --seeds 1 2 3

Each run has its own synthetic heads, split and initial weights. Prints a table in Markdown; about 4 minutes a seed on 2 cores.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    given = parser.parse_args()
    print("| seed | AUC any | log loss, sequence | log loss, encoder alone | seconds |\n|---|---|---|---|---|", flush=True)
    worse = []
    for seed in given.seeds:
        out = given.out / f"seed-{seed}"
        if not (out / "results.json").is_file():
            options = ["--config", "demo", "--out", str(out), "--seed_everything", str(seed), "--phantom.seed", str(seed)]
            subprocess.run([sys.executable, "-m", "ich_lstm.cli.train", *options], check=True, stdout=subprocess.DEVNULL)
        results = json.loads((out / "results.json").read_text())
        sequence, encoder = results["slices"]["sequence"], results["slices"]["encoder"]
        losses = sequence["weighted_log_loss"], encoder["weighted_log_loss"]
        print(
            f"| {seed} | {sequence['auroc']['any']:.3f} | {losses[0]:.4f} | {losses[1]:.4f} | {results['seconds']:.0f} |",
            flush=True,
        )
        if losses[0] >= losses[1] or sequence["auroc"]["any"] < 0.95:
            worse.append(seed)
    if worse:
        sys.exit(f"seeds {worse}: the sequence model does not beat its encoder, or its AUC of any is below 0.95")


if __name__ == "__main__":
    main()
