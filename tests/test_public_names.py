"""What a newcomer sees of the library: its names, and every keyword of what they can call."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import pytest

import ich_lstm
from ich_lstm.errors import ConfigError
from ich_lstm.evaluation.comparisons import compare
from ich_lstm.models.heads import Head
from ich_lstm.settings import staged
from ich_lstm.training.classifier import ClassifierSettings


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Public functions and classes, and what classes define themselves: constructors and methods without an underscore."""
    for name in ich_lstm.__all__:
        value = getattr(ich_lstm, name)
        if inspect.isclass(value):
            yield name, value
            for method, function in vars(value).items():
                function = getattr(function, "__func__", function)
                if not method.startswith("_") and inspect.isfunction(function):
                    yield f"{name}.{method}", function
        elif callable(value):
            yield name, value
    for name in ("compare_models", "compare_encoder", "compare_position", "compare_cases"):
        yield name, getattr(compare, name)


CALLABLES = dict(public_callables())


@pytest.mark.parametrize("name", CALLABLES)
def test_nothing_hides_behind_stars(name: str) -> None:
    kinds = {each.kind for each in inspect.signature(CALLABLES[name]).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    assert inspect.Parameter.VAR_POSITIONAL not in kinds


PARTS = [type(each.default) for each in fields(ClassifierSettings) if is_dataclass(each.default)]
"""The classes of which a `ScanClassifier` is made."""

HEADS = [kind for kind in Head.choices().values() if kind.__module__.startswith("ich_lstm.")]


def small() -> ich_lstm.ScanClassifier:
    encoder = ich_lstm.Encoder(backbone="test_resnet", pretrained=False)
    return ich_lstm.ScanClassifier(encoder, head=ich_lstm.LSTM(hidden_size=8))


class TestScanClassifier:
    def test_its_arguments_are_its_settings_with_their_defaults(self) -> None:
        shown = {name: each.default for name, each in inspect.signature(ich_lstm.ScanClassifier).parameters.items()}
        assert shown == {each.name: each.default for each in fields(ClassifierSettings)}
        assert {"encoder", "head", "optimizer", "test_time"} <= set(shown)

    def test_its_docstring_describes_every_keyword(self) -> None:
        doc = inspect.getdoc(ich_lstm.ScanClassifier)
        for name in inspect.signature(ich_lstm.ScanClassifier).parameters:
            assert doc.count(f"\n    {name}: ") == 1, name
        assert doc.index("max_slices:") < doc.index("Raises:") < doc.index("Example:")

    def test_settings_are_what_was_given(self) -> None:
        encoder, optimizer = ich_lstm.Encoder(backbone="test_resnet", pretrained=False), ich_lstm.Optimizer(lr=0.5)
        model = ich_lstm.ScanClassifier(encoder, head=ich_lstm.LSTM(hidden_size=8), optimizer=optimizer)
        assert model.settings == ClassifierSettings(encoder=encoder, head=ich_lstm.LSTM(hidden_size=8), optimizer=optimizer)

    def test_a_name_is_short_for_an_encoder(self) -> None:
        assert ClassifierSettings(encoder="resnet18").encoder == ich_lstm.Encoder(backbone="resnet18")


class TestSettings:
    @pytest.mark.parametrize("kind", PARTS)
    def test_are_public(self, kind: type) -> None:
        assert getattr(ich_lstm, kind.__name__) is kind

    @pytest.mark.parametrize("kind", sorted({*PARTS, *HEADS}, key=lambda kind: kind.__name__))
    def test_every_field_has_a_default_and_is_described(self, kind: type) -> None:
        described = "\n".join(inspect.getdoc(each) or "" for each in kind.__mro__ if is_dataclass(each))
        for each in fields(kind):
            assert each.default is not MISSING, each.name
            assert f"\n    {each.name}: " in described, each.name


@pytest.mark.parametrize(
    ("call", "near"),
    [
        (lambda: small().change_training({"optimiser": {"lr": 3.0}}), "optimizer"),
        (lambda: small().change_training({"optimizer": {"weight_decy": 3.0}}), "weight_decay"),
    ],
)
def test_an_unknown_keyword_is_refused_with_the_nearest(call: Callable[[], Any], near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        call()
    assert caught.value.todo == f"Did you mean {near}?"


def test_changes_are_of_what_can_be_changed_and_the_rest_stays() -> None:
    model = small()
    before = model.settings
    with pytest.raises(ConfigError) as caught:
        model.change_training({"head": {"hidden_size": 9}})
    assert (caught.value.code, caught.value.where) == ("other_network", "head.hidden_size")
    assert model.settings == model.model.settings == before
    model.change_training({"optimizer": {"warmup": 0.25}})
    expected = staged(before)
    expected["optimizer"] = {**expected["optimizer"], "warmup": 0.25}
    assert staged(model.settings) == expected


def test_only_public_names_are_offered() -> None:
    assert dir(ich_lstm) == sorted(ich_lstm.__all__)
    reading = importlib.import_module("ich_lstm.reading")  # submodules can still be imported, and had
    assert ich_lstm.reading is reading
