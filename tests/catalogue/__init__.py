"""The catalogue of bad inputs: one list of variants, from which both the tests and the table for readers are made."""

from catalogue import archives, bodies, choice, compressed, files, geometry, identity, pixels
from catalogue.case import Variant
from catalogue.rows import ROWS as ROWS

VARIANTS: tuple[Variant, ...] = tuple(
    sorted(
        (
            *files.VARIANTS,
            *pixels.VARIANTS,
            *compressed.VARIANTS,
            *geometry.VARIANTS,
            *choice.VARIANTS,
            *bodies.VARIANTS,
            *archives.VARIANTS,
            *identity.VARIANTS,
        ),
        key=lambda variant: list(ROWS).index(variant.row),
    )
)
