"""The common style of pages and pictures: colours, line styles, and templates."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ich_lstm.formatting import RESEARCH_USE, millimetres, percent
from ich_lstm.labels import LABEL_NAMES, LABEL_SET
from ich_lstm.printable import printable

if TYPE_CHECKING:
    from jinja2 import Environment

LABEL_COLORS = {label.name: label.color for label in LABEL_SET}
HEAT_COLORS = {label.name: label.heat_color for label in LABEL_SET}
HEAT_DASHES = {label.name: label.heat_dashes for label in LABEL_SET}

LABEL_DASHES: dict[str, Any] = {label.name: (0, label.dashes) if label.dashes else "-" for label in LABEL_SET}
"""Line styles for matplotlib."""

TEMPLATES = Path(__file__).parent / "templates"


def library_version() -> str:
    """Return the installed version, or "not installed" if the package runs from its source folder."""
    try:
        return version("ich_lstm")
    except PackageNotFoundError:
        return "not installed"


def render(template: str, **values: Any) -> str:
    """Render a template of this room; HTML and control characters are escaped in every value."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "millimetres": millimetres}
    environment.globals |= {"label_names": LABEL_NAMES, "research_use": RESEARCH_USE, "library_version": library_version()}
    return environment


def _printable(value: Any) -> Any:
    """Escape control characters in a value of a template; markup is not a plain str."""
    return printable(value, keep="\n\t") if type(value) is str else value
