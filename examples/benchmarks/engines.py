"""How fast the engines predict a scan on a CPU, beside plain eager float32, and how far their probabilities are apart.

    python examples/benchmarks/engines.py
    python examples/benchmarks/engines.py --backbones efficientnet_b0 --size 384 --rounds 3

Plain: the network in float32, channels first, all slices at once. `default` is what `ich-predict` takes without options. All are
timed in turn in each round, from HU to probabilities; the ratios are of rounds, and their median is told. Weights are random.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from ich_lstm import LSTM, Encoder, Preprocessing, ScanClassifier
from ich_lstm.inference.engines.engine import Engine, torch_engine
from ich_lstm.inference.engines.openvino import has_openvino, openvino_engine
from ich_lstm.inference.forward import encode_scan, evaluation_mode, infer, predicted, prepare_scan
from ich_lstm.models.scan_model import ScanModel
from ich_lstm.phantom import PhantomSettings, make_head
from ich_lstm.scan import Scan

BACKBONES = ("resnext50_32x4d", "efficientnet_b0")


def make_scan(slices: int, size: int) -> Scan:
    """A synthetic head."""
    head = make_head(PhantomSettings(patients=1, slices=slices, size=size, prevalence=1.0), 0)
    hu = np.asarray(head.hu, np.int16)
    return Scan(
        hu=hu,
        positions_mm=np.arange(len(hu)) * 5.0,
        spacing_mm=(5.0, 240 / size, 240 / size),
        sop_uids=tuple(f"1.2.3.{i}" for i in range(len(hu))),
        series_uid="1.2.3",
        study_uid="1.2",
        patient_id="P1",
    )


def plain_runs(model: ScanModel, hu: torch.Tensor) -> Callable[[], torch.Tensor]:
    """The network as a user of torch would run it: float32, channels first, all slices at once."""
    network = model.encoder.network.to(memory_format=torch.contiguous_format)

    def run() -> torch.Tensor:
        lengths = torch.tensor([len(hu)])
        features = network(model.windows(hu))
        return torch.cat(predicted(model.logits_of(features, lengths, torch.arange(len(hu)) * 5.0), lengths, coherent=False))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--slices", type=int, default=35)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    scan = make_scan(given.slices, given.size)
    print(
        "| backbone | engine | s per scan | beside plain | largest difference in probability |\n|---|---|---|---|---|", flush=True
    )
    for backbone in given.backbones:
        _compare(given, backbone, scan)


def _compare(given: argparse.Namespace, backbone: str, scan: Scan) -> None:
    torch.manual_seed(1)
    classifier = ScanClassifier(encoder=Encoder(backbone=backbone, pretrained=False), head=LSTM(hidden_size=512, num_layers=2))
    classifier.preprocessing = Preprocessing(size=given.size)
    predictor = classifier.eval().predictor
    model = classifier.model
    prepared = prepare_scan(scan, classifier.preprocessing, torch.device("cpu"))
    engines: dict[str, Engine] = {"torch, float32": torch_engine(model.encoder, "float32")}
    engines["torch, bfloat16"] = torch_engine(model.encoder, "bfloat16")
    if has_openvino():
        for precision in ("float32", "bfloat16"):
            engines[f"openvino, {precision}"] = openvino_engine(model.encoder, precision)
    predictor.encode(scan)
    assert predictor.engines.chosen is not None
    chosen = predictor.engines.chosen.engine

    def run_by(engine: Engine) -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            encoded = encode_scan(model, prepared, engine.run)
            lengths = encoded.lengths
            logits = infer(model, encoded.hu, lengths, encoded.positions_mm, features=encoded.features, by=engine.run)
            return torch.cat(predicted(logits, lengths, coherent=False))

        return run

    runs = {name: run_by(engine) for name, engine in engines.items()}
    times: dict[str, list[float]] = {name: [] for name in ("plain", *runs)}
    found = {}
    with evaluation_mode(model), torch.no_grad():
        for number in range(given.rounds + 1):
            for name in times:
                layout = torch.contiguous_format if name == "plain" else torch.channels_last
                model.encoder.network.to(memory_format=layout)
                run = plain_runs(model, prepared.hu) if name == "plain" else runs[name]
                began = time.perf_counter()
                found[name] = run()
                if number:  # the first round compiles and warms
                    times[name].append(time.perf_counter() - began)
    for name, seconds in times.items():
        ratio = statistics.median(mine / plain for mine, plain in zip(seconds, times["plain"], strict=True))
        difference = float((found[name] - found["plain"]).abs().max())
        label = f"{name} (default)" if name == f"{chosen.name}, {chosen.precision}" else name
        print(f"| {backbone} | {label} | {statistics.median(seconds):.2f} | {ratio:.2f} | {difference:.5f} |", flush=True)


if __name__ == "__main__":
    main()
