"""Settings: frozen dataclasses whose fields say what may change, and how such settings are merged, compared and stored."""

import difflib
import inspect
from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from ich_lstm.errors import ConfigError

S = TypeVar("S")


def setting(default: Any = MISSING, *, stage: bool = False, free: bool = False, stored: bool = True) -> Any:
    """A field of a settings dataclass. Without a mark, a field says what the weights mean, and never changes with them.

    Args:
        default: Value of the field where none is given.
        stage: Whether it may differ from stage to stage of a training, and when a model is loaded.
        free: Whether it may be changed when a model is loaded, because any weights go with it.
        stored: Whether it is stored with the weights. What only says how a network is run is not: a model from somebody else must
            not choose a compiler or a file.

    Returns:
        A field of `dataclasses`; a mark on a field whose value is a dataclass holds for all of its fields.
    """
    return field(default=default, metadata={"stage": stage, "free": stage or free, "stored": stored})


class ChosenByClass(ABC):  # noqa: B024  (what is abstract, the subclasses say)
    """Base of settings of which one class among several is chosen: in YAML by ``class_path`` and ``init_args``."""

    @classmethod
    def choices(cls) -> dict[str, type[Self]]:
        """The classes to choose from, by name: all subclasses that are not abstract."""
        found: dict[str, type[Self]] = {} if inspect.isabstract(cls) else {cls.__name__: cls}
        for below in cls.__subclasses__():
            found |= below.choices()
        return found


def require(code: str, expected: str, wrong: Mapping[str, Any]) -> None:
    """Refuse settings that are out of range.

    Args:
        code: Of the error.
        expected: What would be right.
        wrong: The settings that are out of range, by name; empty if all are right.

    Raises:
        ConfigError: If there are any.
    """
    if wrong:
        raise ConfigError(code, where=", ".join(wrong), got=", ".join(map(str, wrong.values())), expected=expected)


def require_choice(code: str, name: str, value: Any, choices: Any) -> None:
    """Refuse a word that is not one of a `Literal`.

    Args:
        code: Of the error.
        name: Of the setting.
        value: Its value.
        choices: A `Literal`.

    Raises:
        ConfigError: If the value is another.
    """
    words = get_args(choices)
    if value not in words:
        raise ConfigError(code, where=name, got=repr(value), expected=f"one of {', '.join(map(str, words))}")


class Difference(NamedTuple):
    """A setting with two values.

    Args:
        name: The setting, with dots: ``encoder.backbone``.
        before: Its value in the first settings.
        after: Its value in the second settings.
        stage: Whether it may differ from stage to stage.
        free: Whether it may differ with the same weights.
    """

    name: str
    before: Any
    after: Any
    stage: bool
    free: bool


def merged(settings: S, changes: Mapping[str, Any], *, where: str = "settings") -> S:
    """Replace some settings; the others stay, at every depth.

    Args:
        settings: A settings dataclass.
        changes: New values by name. Of a part that is a dataclass itself, a mapping of its own fields; of one that is chosen by
            class, ``class_path`` and ``init_args``, or fields of the present class. Another class keeps the fields that both
            classes have.
        where: What an error calls the settings.

    Returns:
        New settings, which their dataclasses have checked.

    Raises:
        ConfigError: ``unknown_setting``, ``wrong_type``, or what the dataclasses raise.

    Example:
        >>> from ich_lstm.models.scan_model import ModelSettings
        >>> changed = merged(ModelSettings(), {"encoder": {"adjacent_slices": 1}, "head": {"class_path": "GRU"}})
        >>> changed.encoder.adjacent_slices, changed.head.hidden_size, type(changed.head).__name__
        (1, 512, 'GRU')
    """
    known = {each.name for each in _fields(settings)}
    hints = get_type_hints(type(settings))
    values = {}
    for name, value in changes.items():
        if name not in known:
            raise unknown_setting(where, name, sorted(known))
        values[name] = _merged(getattr(settings, name), value, f"{where}.{name}", hints[name])
    return replace(settings, **values)  # type: ignore[type-var]


def _merged(current: Any, change: Any, where: str, hint: Any) -> Any:
    if not isinstance(change, Mapping) or not is_dataclass(current):
        if not _fits(change, hint):
            expected = getattr(hint, "__name__", str(hint))
            raise ConfigError("wrong_type", where=where, got=repr(change), expected=f"a value of the type {expected}")
        return change
    if "class_path" not in change:
        return merged(current, change, where=where)
    # Of the present class's ancestors, the one that derives from `ChosenByClass` itself: `Head` of an `LSTM`.
    base: type[Any] = next(kind for kind in inspect.getmro(type(current)) if ChosenByClass in kind.__bases__)
    choices, name = base.choices(), str(change["class_path"]).rpartition(".")[2]
    if name not in choices:
        raise unknown_setting(where, name, list(choices))
    start = current if type(current) is choices[name] else _as_other_class(current, choices[name])
    return merged(start, change.get("init_args") or {}, where=where)


def _as_other_class(current: Any, kind: type[Any]) -> Any:
    """Settings of another class; those that both classes have stay as they are."""
    shared = {each.name for each in _fields(current)} & {each.name for each in fields(kind)}
    return kind(**{name: getattr(current, name) for name in shared})


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value, which may come from YAML or JSON, is of a type; what a list holds is left to the dataclass."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, choice) for choice in get_args(hint))
    if origin is Literal or hint is Any:
        return True  # the dataclass says which words there are
    if isinstance(value, bool):
        return hint is bool
    kind: type[Any] = origin or hint
    also: tuple[type, ...] = {float: (int,), tuple: (list,), Path: (str,)}.get(kind, (Mapping,) if is_dataclass(kind) else ())
    return isinstance(value, (kind, *also))


def unknown_setting(where: str, name: str, known: list[str]) -> ConfigError:
    """The error for a setting that does not exist, with the nearest that does."""
    near = difflib.get_close_matches(name, known, n=1)
    todo = f"Did you mean {near[0]}?" if near else ""
    return ConfigError("unknown_setting", where=where, got=name, expected=f"one of {', '.join(known)}", todo=todo)


def differences(before: Any, after: Any) -> Iterator[Difference]:
    """The settings in which two dataclasses of one kind differ, at every depth.

    Args:
        before: Settings.
        after: Settings of the same class.
    """
    for each in _fields(before):
        old, new = getattr(before, each.name), getattr(after, each.name)
        marks = {name: bool(each.metadata.get(name)) for name in ("stage", "free")}
        if old == new:
            continue
        if is_dataclass(old) and type(old) is type(new):
            for inside in differences(old, new):
                yield inside._replace(
                    name=f"{each.name}.{inside.name}", **{name: mark or getattr(inside, name) for name, mark in marks.items()}
                )
        else:
            yield Difference(each.name, old, new, **marks)


def to_stored(settings: Any) -> dict[str, Any]:
    """Settings as plain values for JSON, to the last default, so that a later default changes no old model.

    Args:
        settings: A settings dataclass.

    Returns:
        Values by name, without those that are not stored with weights.
    """
    values = {each.name: _plain(getattr(settings, each.name)) for each in _fields(settings) if each.metadata.get("stored", True)}
    return {"class_path": type(settings).__name__, "init_args": values} if isinstance(settings, ChosenByClass) else values


def staged(settings: Any) -> dict[str, Any]:
    """The settings that may differ from stage to stage, as plain values.

    Args:
        settings: A settings dataclass.
    """
    values: dict[str, Any] = {}
    for each in _fields(settings):
        value = getattr(settings, each.name)
        if each.metadata.get("stage"):
            values[each.name] = _plain(value)
        elif is_dataclass(value) and (inside := staged(value)):
            values[each.name] = inside
    return values


def flattened(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested values by their names with spaces between, for tables that people read.

    Example:
        >>> flattened({"optimizer": {"lr": 0.001}, "head": {"class_path": "LSTM", "init_args": {"num_layers": 2}}})
        {'optimizer lr': 0.001, 'head': 'LSTM', 'head num layers': 2}
    """
    rows: dict[str, Any] = {}
    for name, value in values.items():
        words = f"{before} {name.replace('_', ' ')}".strip()
        if isinstance(value, Mapping) and "class_path" in value:
            rows[words] = value["class_path"]
            rows |= flattened(value.get("init_args") or {}, words)
        elif isinstance(value, Mapping):
            rows |= flattened(value, words)
        else:
            rows[words] = value
    return rows


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return to_stored(value)
    if isinstance(value, Path):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _fields(settings: Any) -> tuple[Field[Any], ...]:
    return fields(settings)
