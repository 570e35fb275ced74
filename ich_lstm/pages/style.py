"""What every page and picture shares: names, colours, how a probability is written, and the templates."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ich_lstm.formatting import RESEARCH_USE, millimetres, percent
from ich_lstm.labels import LABEL_NAMES, LABELS

if TYPE_CHECKING:
    from jinja2 import Environment

LABEL_COLORS = dict(zip(LABELS, ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#1c1f23"), strict=True))
"""The palette of Okabe and Ito (2008), which stays distinct to colour-blind eyes; "any" is ink."""

LABEL_DASHES: dict[str, Any] = dict(
    zip(LABELS, ("-", (0, (6, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1.5)), "-"), strict=True)
)
"""A second cue beside the colour."""

HEAT_COLORS = LABEL_COLORS | {"epidural": "#f0e442", "any": "#ffffff"}
"""On a dark picture: the palette's yellow in place of its blue, which is too dark there, and white in place of ink."""

HEAT_DASHES: dict[str, tuple[int, ...]] = dict(zip(LABELS, ((), (8, 4), (2, 3), (10, 3, 2, 3), (5, 2), ()), strict=True))
"""`LABEL_DASHES` for contours, as lengths of line and gap in pixels."""

TEMPLATES = Path(__file__).parent / "templates"


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
