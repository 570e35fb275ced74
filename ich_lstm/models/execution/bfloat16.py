"""Whether a device computes in bfloat16 by itself, which halves the time; elsewhere it is emulated, and slower than float32."""

import torch


def has_bfloat16(device_type: str) -> bool:
    """Whether bfloat16 is native on a kind of device.

    Args:
        device_type: torch's name of it: ``cpu`` or ``cuda``.
    """
    if device_type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return device_type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
