"""Settings: frozen dataclasses whose fields say when they may change, and functions to merge, compare and store them."""

import difflib
import inspect
from abc import ABC
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from ich_lstm.errors import ConfigError

S = TypeVar("S")


def setting(
    default: Any = MISSING, *, stage: bool = False, free: bool = False, stored: bool = True, loaded: Any = MISSING
) -> Any:
    """Declare a field of a settings dataclass. An unmarked field belongs to the weights and must never change for them.

    Args:
        default: Default value of the field.
        stage: Whether the field may differ between stages of a training, and when a model is loaded.
        free: Whether the field may differ when a model is loaded, because it fits any weights.
        stored: Whether the field is stored with the weights. Fields that only say how a network is run are not stored, because a
            stranger's model must not choose a compiler or a file.
        loaded: Value of a field that is not stored, in the settings of a loaded model; left out for the default.

    Returns:
        A field of `dataclasses`. If its value is a dataclass, the marks hold for all fields of that dataclass.
    """
    value = default if loaded is MISSING else loaded
    return field(default=default, metadata={"stage": stage, "free": stage or free, "stored": stored, "loaded": value})


class ChosenByClass(ABC):  # noqa: B024  (subclasses declare the abstract methods)
    """Base of settings for which the user chooses one of several classes, in YAML by ``class_path`` and ``init_args``."""

    @classmethod
    def choices(cls) -> dict[str, type[Self]]:
        """All subclasses that are not abstract, by name."""
        found: dict[str, type[Self]] = {} if inspect.isabstract(cls) else {cls.__name__: cls}
        for subclass in cls.__subclasses__():
            found |= subclass.choices()
        return found


def require(code: str, expected: str, wrong: Mapping[str, Any]) -> None:
    """Refuse settings that are out of range.

    Args:
        code: Code of the error.
        expected: The range, in words.
        wrong: The settings that are out of range, by name; empty if there are none.

    Raises:
        ConfigError: If ``wrong`` is not empty.
    """
    if wrong:
        raise ConfigError(code, where=", ".join(wrong), got=", ".join(map(str, wrong.values())), expected=expected)


def require_choice(code: str, name: str, value: Any, choices: Any) -> None:
    """Refuse a value that is not among the choices of a setting.

    Args:
        code: Code of the error.
        name: Name of the setting.
        value: Value of the setting.
        choices: The `Literal` type that lists the choices.

    Raises:
        ConfigError: If the value is not one of the choices.
    """
    words = get_args(choices)
    if value not in words:
        raise ConfigError(code, where=name, got=repr(value), expected=f"one of {', '.join(map(str, words))}")


class Difference(NamedTuple):
    """A setting that has different values in two settings dataclasses.

    Args:
        name: Name of the setting, with dots: ``encoder.backbone``.
        before: Value in the first dataclass.
        after: Value in the second dataclass.
        stage: Whether the setting may differ between stages of a training.
        free: Whether the setting may differ for the same weights.
    """

    name: str
    before: Any
    after: Any
    stage: bool
    free: bool


def merged(settings: S, changes: Mapping[str, Any], *, where: str = "settings", stored_only: bool = False) -> S:
    """Replace some settings, and keep all others, also inside nested dataclasses.

    Args:
        settings: A settings dataclass.
        changes: New values by name. For a nested dataclass, the value is a mapping of the fields to change. For a
            `ChosenByClass`, it may also be a mapping with ``class_path`` and ``init_args``; a new class keeps the values of the
            fields that both classes have.
        where: Name of the settings in errors.
        stored_only: Ignore changes of fields that are not stored with weights.

    Returns:
        New settings, validated by their dataclasses.

    Raises:
        ConfigError: ``unknown_setting``, ``wrong_type``, or an error of a dataclass.

    Example:
        >>> from ich_lstm.models.scan_model import ModelSettings
        >>> changed = merged(ModelSettings(), {"encoder": {"adjacent_slices": 1}, "head": {"class_path": "GRU"}})
        >>> changed.encoder.adjacent_slices, changed.head.hidden_size, type(changed.head).__name__
        (1, 512, 'GRU')
    """
    known = {each.name: each for each in _fields(settings)}
    hints = get_type_hints(type(settings))
    values = {}
    for name, value in changes.items():
        if name not in known:
            raise unknown_setting(where, name, sorted(known))
        if not stored_only or known[name].metadata.get("stored", True):
            values[name] = _merged(getattr(settings, name), value, f"{where}.{name}", hints[name], stored_only)
    return replace(settings, **values)  # type: ignore[type-var]


def from_stored(usual: S, stored: Mapping[str, Any], *, where: str = "settings") -> S:
    """Read the settings of a stored model.

    Only fields that are stored with weights are read. All others, which say how a network is run, get their values for loaded
    models, whatever the file says.

    Args:
        usual: Settings with the defaults for fields that the file lacks.
        stored: Values by name, as `to_stored` gives them.
        where: Name of the settings in errors.

    Raises:
        ConfigError: The errors of `merged`.
    """
    return merged(_as_loaded(usual), stored, where=where, stored_only=True)


def _as_loaded(settings: S) -> S:
    values = {}
    for each in _fields(settings):
        value = getattr(settings, each.name)
        if not each.metadata.get("stored", True):
            values[each.name] = each.metadata["loaded"]
        elif is_dataclass(value):
            values[each.name] = _as_loaded(value)
    return replace(settings, **values)  # type: ignore[type-var]


def built(kind: type[S], values: Mapping[str, Any], *, where: str) -> S:
    """Build a dataclass from plain values, and check their types.

    Args:
        kind: The dataclass.
        values: A value for every field without a default.
        where: Name of the values in errors.

    Raises:
        ConfigError: ``unknown_setting``, ``missing_setting`` or ``wrong_type``.
    """
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    for name in values:
        if name not in known:
            raise unknown_setting(where, name, sorted(known))
        _merged(None, values[name], f"{where}.{name}", hints[name], stored_only=False)
    missing = [name for name, each in known.items() if name not in values and each.default is MISSING]
    if missing:
        raise ConfigError("missing_setting", where=where, got=f"no {', '.join(missing)}", expected="a value for every field")
    return kind(**values)


def _merged(current: Any, change: Any, where: str, hint: Any, stored_only: bool) -> Any:
    """The new value of one setting."""
    if not isinstance(change, Mapping) or not is_dataclass(current):
        if not _fits(change, hint):
            expected = getattr(hint, "__name__", str(hint))
            raise ConfigError("wrong_type", where=where, got=repr(change), expected=f"a value of the type {expected}")
        return change
    if "class_path" not in change:
        return merged(current, change, where=where, stored_only=stored_only)
    # The base is the ancestor that derives from ChosenByClass directly, for example Head for an LSTM.
    base: type[Any] = next(kind for kind in inspect.getmro(type(current)) if ChosenByClass in kind.__bases__)
    choices, name = base.choices(), str(change["class_path"]).rpartition(".")[2]
    if name not in choices:
        raise unknown_setting(where, name, list(choices))
    start = current if type(current) is choices[name] else _as_other_class(current, choices[name])
    return merged(start, change.get("init_args") or {}, where=where, stored_only=stored_only)


def _as_other_class(current: Any, kind: type[Any]) -> Any:
    """Build settings of another class, and keep the values of the fields that both classes have."""
    shared = {each.name for each in _fields(current)} & {each.name for each in fields(kind)}
    return kind(**{name: getattr(current, name) for name in shared})


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value, possibly from YAML or JSON, has the type of a hint. The dataclass checks the items of a list."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, choice) for choice in get_args(hint))
    if origin is Literal or hint is Any:
        return True  # the dataclass checks the choices
    if isinstance(value, bool):
        return hint is bool
    kind: type[Any] = origin or hint
    accepted: tuple[type, ...] = {float: (int,), tuple: (list,), Path: (str,)}.get(kind, (Mapping,) if is_dataclass(kind) else ())
    return isinstance(value, (kind, *accepted))


def unknown_setting(where: str, name: str, known: list[str]) -> ConfigError:
    """The error for a setting that does not exist; it suggests the most similar name."""
    near = difflib.get_close_matches(name, known, n=1)
    todo = f"Did you mean {near[0]}?" if near else ""
    return ConfigError("unknown_setting", where=where, got=name, expected=f"one of {', '.join(known)}", todo=todo)


def differences(before: Any, after: Any) -> Iterator[Difference]:
    """Find the settings that differ between two settings dataclasses, also inside nested ones.

    Args:
        before: The first settings.
        after: The second settings, of the same class.

    Yields:
        One difference for each setting.
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


def refuse_differences(code: str, found: Iterable[Difference], *, where: str, whose: str, todo: str) -> None:
    """Refuse settings that differ from those that are stored.

    Args:
        code: Code of the error.
        found: Differences from the stored to the requested settings.
        where: Prefix of the names of settings in the error.
        whose: Completes the stored values in the error, for example ``as in model.ckpt``.
        todo: What to do next.

    Raises:
        ConfigError: If there are any.
    """
    wrong = list(found)
    if wrong:
        raise ConfigError(
            code,
            where=", ".join(f"{where}{each.name}" for each in wrong),
            got=", ".join(str(each.after) for each in wrong),
            expected=f"{', '.join(str(each.before) for each in wrong)}, {whose}",
            todo=todo,
        )


def to_stored(settings: Any) -> dict[str, Any]:
    """Convert settings to plain values for JSON. Defaults are included, so that a later change of one affects no old model.

    Args:
        settings: A settings dataclass.

    Returns:
        Values by name, without the fields that are not stored with weights.
    """
    values = {each.name: _plain(getattr(settings, each.name)) for each in _fields(settings) if each.metadata.get("stored", True)}
    return {"class_path": type(settings).__name__, "init_args": values} if isinstance(settings, ChosenByClass) else values


def staged(settings: Any) -> dict[str, Any]:
    """Collect the settings that may differ between stages, as plain values.

    Args:
        settings: A settings dataclass.

    Returns:
        Values by name, with a mapping for each nested dataclass that has such settings.
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
    """Flatten nested settings for tables that people read; names become words with spaces.

    Args:
        values: Plain values by name, as `to_stored` gives them.
        before: Words that are put before every name.

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
