"""On what a benchmark was run: for the head of its tables."""

import importlib.metadata
import os
import platform
from pathlib import Path

import torch


def hardware(device: str) -> str:
    """Processor, cores or GPU, and the versions that matter."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "timm"))
    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name()}, {versions}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {versions}"
