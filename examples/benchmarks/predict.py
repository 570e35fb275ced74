"""What a prediction costs beside the network itself: from a folder of DICOM files to probabilities, the model being loaded.

    python examples/benchmarks/predict.py
    python examples/benchmarks/predict.py --series FOLDER --backbone resnet50 --size 384

One round is the way from the folder (headers, choice of the series, pixels, checks, crop and resize, the network, ids) and then
the network alone, by the same engine, on the same array; the ratios are of rounds, and their median is told. Goal: at most 1.3.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from ich_lstm import Encoder, ScanClassifier
from ich_lstm.inference.forward import evaluating, infer
from ich_lstm.phantom import PhantomSettings, write_phantom
from ich_lstm.preprocessing.crop_and_resize import Preprocessing, preprocess_scan
from ich_lstm.privacy import ProjectKey
from ich_lstm.reading import choose_series, index_source, load_scan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=Path, help="a folder with one study; left out: a synthetic head of 512 x 512")
    parser.add_argument("--slices", type=int, default=35, help="of the synthetic head")
    parser.add_argument("--backbone", default="resnext50_32x4d", help="with random weights")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    classifier = ScanClassifier(Encoder(backbone=given.backbone, pretrained=False)).to(given.device).eval()
    classifier.preprocessing = Preprocessing(size=given.size)
    predictor = classifier.predictor
    key = ProjectKey(bytes(32))
    with tempfile.TemporaryDirectory() as made:
        folder = given.series or write_phantom(PhantomSettings(patients=1, slices=given.slices, size=512), Path(made), workers=1)
        whole, network, count = [], [], 0
        for number in range(given.rounds + 1):
            began = time.perf_counter()
            (prediction,) = predictor.predict(folder, project_key=key)
            taken = time.perf_counter() - began
            scan = load_scan(choose_series(index_source(folder).studies()[0]).series, slab_mm=classifier.slab_mm)
            hu = torch.from_numpy(preprocess_scan(scan, classifier.preprocessing)).to(given.device)
            positions = torch.tensor(scan.positions_mm, dtype=torch.float32, device=given.device)
            assert predictor.engines.chosen is not None
            engine = predictor.engines.chosen.engine
            with evaluating(classifier):
                began = time.perf_counter()
                infer(classifier.model, hu, torch.tensor([len(scan)]), positions, by=engine.run).slice_logits.cpu()
            if number:  # the first round warms caches and libraries
                whole.append(taken)
                network.append(time.perf_counter() - began)
            count = len(prediction)
    ratios = [a / b for a, b in zip(whole, network, strict=True)]
    print(
        f"{count} slices, {given.backbone} at {given.size}, {given.device}, {engine.name} in {engine.precision}, "
        f"{given.threads} threads, {given.rounds} rounds: "
        f"folder to probabilities {statistics.median(whole):.2f} s, network alone {statistics.median(network):.2f} s, "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
