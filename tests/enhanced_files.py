"""Enhanced multi-frame CT, made up."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from dicom_files import AXIAL, SPACING_MM, make_slice, slice_hu
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import EnhancedCTImageStorage

COUNT = 8
IN_GROUPS = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "RescaleSlope",
    "RescaleIntercept",
)


def item(**elements: Any) -> Dataset:
    data_set = Dataset()
    for keyword, value in elements.items():
        setattr(data_set, keyword, value)
    return data_set


def head_hu(i: int) -> np.ndarray:
    return np.rint(slice_hu((-96, -96, -20 + 5 * i)))


def make_enhanced(
    path: Path,
    order: Sequence[int] = range(COUNT),
    *,
    intercepts: Sequence[int] | None = None,
    groups: int | None = None,
    encoder: str = "",
    **elements: Any,
) -> Path:
    """Write one enhanced CT file.

    Args:
        path: The file.
        order: Which slice of the made head each frame is.
        intercepts: Rescale Intercept per frame; else one in the shared groups.
        groups: How many per-frame functional groups to write, if not one per frame.
        encoder: Syntax to compress the frames in.
        **elements: Of the data set, or arguments of :func:`make_slice`.
    """
    per_frame = []
    for frame, i in enumerate(order):
        group = item(
            PlanePositionSequence=[item(ImagePositionPatient=[-96, -96, -20 + 5 * i])],
            FrameContentSequence=[item(FrameAcquisitionNumber=1, InStackPositionNumber=frame + 1)],
            CTImageFrameTypeSequence=[item(FrameType=["ORIGINAL", "PRIMARY", "AXIAL", "NONE"])],
        )
        if intercepts is not None:
            group.PixelValueTransformationSequence = [item(RescaleSlope=1, RescaleIntercept=intercepts[frame])]
        per_frame.append(group)
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=list(AXIAL))],
        PixelMeasuresSequence=[item(PixelSpacing=[SPACING_MM, SPACING_MM], SliceThickness=5)],
        CTXRayDetailsSequence=[item(KVP=120)],
        CTReconstructionSequence=[item(ConvolutionKernel="H31s")],
    )
    if intercepts is None:
        shared.PixelValueTransformationSequence = [item(RescaleSlope=1, RescaleIntercept=-1024)]
    offsets = intercepts if intercepts is not None else [-1024] * len(order)
    frames = [(head_hu(i) - offset).astype(np.uint16) for i, offset in zip(order, offsets, strict=True)]
    pixels: dict[str, Any] = {"stored": b"".join(frame.tobytes() for frame in frames)}
    if encoder:
        import compress

        streams = [compress.encode(frame, encoder) for frame in frames]
        pixels |= {"PixelData": encapsulate(streams, has_bot=False), "syntax": encoder}
    values: dict[str, Any] = dict.fromkeys(IN_GROUPS)
    values |= {
        "SOPClassUID": EnhancedCTImageStorage,
        "SOPInstanceUID": "1.2.3.100.1.1",
        "NumberOfFrames": len(order),
        "SharedFunctionalGroupsSequence": [shared],
        "PerFrameFunctionalGroupsSequence": per_frame[:groups],
    }
    return make_slice(path, np.zeros((32, 32)), **(values | pixels | elements))
