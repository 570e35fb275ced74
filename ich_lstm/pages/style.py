"""What every page and picture shares: names, colours, how a probability is written, and the templates."""

import math
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ich_lstm.labels import LABELS
from ich_lstm.scan import Note

if TYPE_CHECKING:
    from jinja2 import Environment

LABEL_NAMES = {label: label.capitalize() for label in LABELS} | {"any": "Any hemorrhage"}
"""Labels as people read them."""

LABEL_COLORS = dict(zip(LABELS, ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#1c1f23"), strict=True))
"""The palette of Okabe and Ito (2008), which stays distinct to colour-blind eyes; "any" is ink."""

LABEL_DASHES: dict[str, Any] = dict(
    zip(LABELS, ("-", (0, (6, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1.5)), "-"), strict=True)
)
"""A second cue beside the colour."""

LABEL_SHORT = dict(zip(LABELS, ("EDH", "IPH", "IVH", "SAH", "SDH", "Any"), strict=True))
"""As radiologists abbreviate them."""

HEAT_COLORS = LABEL_COLORS | {"epidural": "#f0e442", "any": "#ffffff"}
"""On a dark picture: the palette's yellow in place of its blue, which is too dark there, and white in place of ink."""

HEAT_DASHES: dict[str, tuple[int, ...]] = dict(zip(LABELS, ((), (8, 4), (2, 3), (10, 3, 2, 3), (5, 2), ()), strict=True))
"""`LABEL_DASHES` for contours, as lengths of line and gap in pixels."""

RESEARCH_USE = "Research use only, not for diagnosis."

TEMPLATES = Path(__file__).parent / "templates"


def percent(probability: float) -> str:
    """A probability in whole percent, with a no-break space; never 0 or 100 %, which no model can promise.

    Example:
        >>> print(percent(0.0004))
        <1\xa0%
    """
    value = 100 * probability
    if value < 1:
        return "<1\u00a0%"
    if value > 99:
        return ">99\u00a0%"
    return f"{math.floor(value + 0.5)}\u00a0%"


def millimetres(position: float) -> str:
    """A position with one decimal, a true minus sign and a no-break space.

    Example:
        >>> print(millimetres(-33.67))
        −33.7\xa0mm
    """
    return f"{position:.1f}\u00a0mm".replace("-", "\u2212")


def side_marks(flags: Iterable[Note]) -> tuple[str, str]:
    """What stands at the left and the right of a picture, with a question mark where the header did not say."""
    return ("R?", "L?") if any(note.code == "no_orientation" for note in flags) else ("R", "L")


def library_version() -> str:
    """The installed version, or "not installed" when the package runs from its source folder."""
    try:
        return version("ich_lstm")
    except PackageNotFoundError:
        return "not installed"


def render(template: str, **values: Any) -> str:
    """Fill a template of this room; every value is escaped."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "millimetres": millimetres}
    environment.globals |= {"label_names": LABEL_NAMES, "research_use": RESEARCH_USE, "library_version": library_version()}
    return environment
