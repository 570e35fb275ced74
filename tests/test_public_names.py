"""What a newcomer sees of the library: its names, and every keyword of what they can call."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ich_lstm
from ich_lstm.data.loading.batching import BATCHING
from ich_lstm.errors import ConfigError
from ich_lstm.evaluation.comparisons import compare
from ich_lstm.keywords import ARGS, keywords_of, takes_keywords
from ich_lstm.training.classifier import STAGED


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


class TestScanClassifier:
    def test_its_signature_holds_all_of_the_network_s_keywords_with_their_defaults(self) -> None:
        shown = inspect.signature(ich_lstm.ScanClassifier).parameters
        network = inspect.signature(ich_lstm.ScanModel).parameters
        assert set(network) < set(shown)
        assert all(shown[name] == parameter for name, parameter in network.items())
        assert {"learning_rate", "test_time", "hidden_size", "backbone"} <= set(shown)

    def test_its_docstring_describes_every_keyword(self) -> None:
        doc = inspect.getdoc(ich_lstm.ScanClassifier)
        section = ARGS.search(doc)[2]
        for name in inspect.signature(ich_lstm.ScanClassifier).parameters:
            assert section.count(f"\n    {name}: ") + section.startswith(f"    {name}: ") == 1, name
        assert doc.index("max_slices:") < doc.index("Raises:") < doc.index("Example:")

    def test_settings_are_what_was_given(self) -> None:
        model = ich_lstm.ScanClassifier(backbone="test_resnet", pretrained=False, hidden_size=8, learning_rate=0.5)
        assert (model.settings["hidden_size"], model.settings["learning_rate"]) == (8, 0.5)


@pytest.mark.parametrize(
    ("call", "near"),
    [
        (lambda: ich_lstm.ScanClassifier(hiden_size=3), "hidden_size"),
        (lambda: ich_lstm.ScanClassifier(learning_rte=3), "learning_rate"),
        (lambda: ich_lstm.ScanDataModule().set_batching(slices_per_bach=3), "slices_per_batch"),
        (lambda: compare.compare_position(None, replicats=3), "replicates"),
    ],
)
def test_an_unknown_keyword_is_refused_with_the_nearest(call: Callable[[], Any], near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        call()
    assert caught.value.todo == f"Did you mean {near}?"


def test_changes_show_what_can_be_changed_and_that_the_rest_stays() -> None:
    shown = inspect.signature(ich_lstm.ScanClassifier.change_training).parameters
    assert set(shown) == {"self", *STAGED}
    assert repr(shown["warmup"].default) == "unchanged"
    assert set(inspect.signature(ich_lstm.ScanDataModule.set_batching).parameters) == {"self", *BATCHING}
    model = ich_lstm.ScanClassifier(backbone="test_resnet", pretrained=False, hidden_size=8)
    with pytest.raises(ConfigError) as caught:
        model.change_training(hidden_size=9)
    assert "learning_rate" in caught.value.expected
    before = model.staged_settings
    model.change_training(warmup=0.25)
    assert model.staged_settings == before | {"warmup": 0.25}


def test_a_name_that_both_have_is_shown_once_and_as_the_function_s_own() -> None:
    def inner(*, a: int = 1, b: int = 2) -> None: ...

    @takes_keywords(keywords_of(inner))
    def outer(*, a: str = "own", **rest: int) -> tuple[str, dict[str, int]]:
        return a, rest

    assert str(inspect.signature(outer)).startswith("(*, a: str = 'own', b: int = 2)")
    assert outer(b=5) == ("own", {"b": 5})
    with pytest.raises(ConfigError, match="c, expected one of a, b"):
        outer(c=1)


def test_only_public_names_are_offered() -> None:
    assert dir(ich_lstm) == sorted(ich_lstm.__all__)
    reading = importlib.import_module("ich_lstm.reading")  # submodules can still be imported, and had
    assert ich_lstm.reading is reading
