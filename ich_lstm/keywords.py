"""Function signatures that list every keyword, including those that a function passes on to another."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from ich_lstm.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)


class Unchanged:
    """The default that the signature of a change shows: what is not given stays as it is."""

    def __repr__(self) -> str:
        return "unchanged"


UNCHANGED = Unchanged()

ARGS = re.compile(r"^( *)Args:\n((?:\1 +.*\n|\n(?=\1 ))*)", re.MULTILINE)
"""The section of arguments in a docstring of Google's style, with its indent."""


def keywords_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The keyword-only parameters of a function or a class, with their defaults."""
    return [each for each in inspect.signature(function).parameters.values() if each.kind is each.KEYWORD_ONLY]


def changes_of(keywords: Iterable[inspect.Parameter]) -> list[inspect.Parameter]:
    """Replace the default of each keyword by `UNCHANGED`, which keeps the present value."""
    return [each.replace(default=UNCHANGED) for each in keywords]


def takes_keywords(
    keywords: Iterable[inspect.Parameter], *, code: str = "unknown_keyword"
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Show these keywords in the signature of a function in place of its ``**``, and refuse all others by name.

    So ``help``, ``?`` and tab completion show what can be given, from the one place where it stands.

    Args:
        keywords: What the function's ``**`` stands for; what it names itself is not shown twice.
        code: Of the error for any other name.

    Returns:
        A decorator. What it makes raises a ConfigError, with the nearest name, for a keyword that is not taken.
    """
    offered = list(keywords)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        names = {each.name for each in own}
        signature = signature.replace(parameters=[*own, *(each for each in offered if each.name not in names)])
        known = [each.name for each in signature.parameters.values() if each.kind is each.KEYWORD_ONLY]

        @wraps(function)
        def checked(*args: P.args, **given: P.kwargs) -> R:
            for name in given:
                if name not in signature.parameters:
                    near = difflib.get_close_matches(name, known, n=1)
                    raise ConfigError(
                        code,
                        where=function.__qualname__.removesuffix(".__init__"),
                        got=name,
                        expected=f"one of {', '.join(known)}",
                        todo=f"Did you mean {near[0]}?" if near else "",
                    )
            return function(*args, **given)

        checked.__signature__ = signature  # type: ignore[attr-defined]
        return checked

    return decorate


def documents_keywords_of(other: Callable[..., Any]) -> Callable[[C], C]:
    """Let the docstring of a class list another's arguments behind its own, each with what it says there.

    Args:
        other: The function or class whose docstring describes them.
    """

    def decorate(kind: C) -> C:
        theirs = ARGS.search(inspect.cleandoc(other.__doc__ or "") + "\n")
        doc = inspect.cleandoc(kind.__doc__ or "") + "\n"
        ours = ARGS.search(doc)
        if theirs and ours:
            kind.__doc__ = (
                doc[: ours.end()].rstrip("\n") + "\n" + theirs[2].rstrip("\n") + "\n\n" + doc[ours.end() :].lstrip("\n")
            )
        return kind

    return decorate
