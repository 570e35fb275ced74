"""Compressed pixels: as they should be, and not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import compress
import numpy as np
from dicom_files import make_series, slice_hu
from pydicom.uid import HTJ2K, JPEGLosslessSV1

from catalogue.case import Make, Variant, bad_slice, one, sound_hu, used, whole

STREAMS = {name: uid for name, uid in compress.LOSSLESS.items() if name != "jpeg-lossless"}


def encoded(name: str, change: Callable[[bytes], bytes] = bytes, *, only: int | None = None, **elements: Any) -> Make:
    """A compressed series; the streams, or that of one slice, changed."""
    bits = elements.get("BitsStored", 16)

    def make(folder: Path) -> None:
        def stream(i: int) -> dict[str, Any]:
            data = compress.encode((sound_hu(i) + 1024).astype(np.uint16), STREAMS[name], bits)
            return {"stored": data if only not in (None, i) else change(data)}

        make_series(folder, syntax=STREAMS[name], change=stream, **elements)

    return make


def _jpeg_lossless(**elements: Any) -> Make:
    return lambda folder: [compress.jpeg_lossless(path) for path in make_series(folder, **elements)]


def _half(data: bytes) -> bytes:
    return data[: len(data) // 4 * 2]


def _corrupt(data: bytes) -> bytes:
    """Nothing but ones in the middle of the stream."""
    middle = len(data) // 2
    return data[: middle - 100] + b"\xff" * 200 + data[middle + 100 :]


TRUNCATED = {"rle": "decode_failed"}  # its segments have no mark of their end
TWELVE: dict[str, Any] = {"BitsStored": 12, "HighBit": 11}
HTJ2K_STREAM: dict[str, Any] = {"stored": compress.HTJ2K_HEAD, "hu": slice_hu((-96, -96, 0))}

VARIANTS: list[Variant] = [
    *(v for name, uid in compress.LOSSLESS.items() for v in bad_slice("14", name, one(syntax=uid), "decode_failed", syntax=uid)),
    *(
        v
        for name, uid in STREAMS.items()
        for v in bad_slice("15", name, encoded(name, _corrupt, only=3), "decode_failed", syntax=uid)
        if name != "rle"
    ),
    *(
        v
        for name, uid in STREAMS.items()
        for v in bad_slice("16", name, encoded(name, _half, only=3), TRUNCATED.get(name, "truncated_pixels"), syntax=uid)
    ),
    *(Variant(row="19", name=name, make=encoded(name), expect=used(), syntax=uid) for name, uid in STREAMS.items()),
    *(
        Variant(row="19", name=f"{name}-12-bit", make=encoded(name, **TWELVE), expect=used(), syntax=uid)
        for name, uid in STREAMS.items()
    ),
    # GDCM writes a Rescale Type of US where there was none.
    *(
        Variant(row="19", name=name, make=_jpeg_lossless(**own), expect=used(flags=("unspecified_unit",)), syntax=JPEGLosslessSV1)
        for name, own in (("jpeg-lossless", {}), ("jpeg-lossless-12-bit", TWELVE))
    ),
    Variant(
        row="20",
        name="htj2k",
        make=whole(syntax=HTJ2K, **HTJ2K_STREAM),
        expect=used(flags=("lossy",), same_hu=False),
        syntax=HTJ2K,
    ),
]
