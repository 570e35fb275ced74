"""Settings: what the frozen dataclasses share, on small ones of the tests' own."""

import json
from abc import abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from ich_lstm.errors import ConfigError
from ich_lstm.settings import (
    ChosenByClass,
    Difference,
    differences,
    flattened,
    merged,
    refuse_differences,
    require,
    require_choice,
    setting,
    staged,
    to_stored,
)

Colour = Literal["grey", "red"]


class Engine(ChosenByClass):
    @abstractmethod
    def build(self) -> str:
        """What drives."""


@dataclass(frozen=True, kw_only=True)
class Burner(Engine):
    """What both engines below share."""

    power: float = 50.0

    @abstractmethod
    def build(self) -> str:
        """What drives."""


@dataclass(frozen=True, kw_only=True)
class Petrol(Burner):
    cylinders: int = 4
    oil: float = setting(0.5, stage=True)

    def __post_init__(self) -> None:
        require("engine_out_of_range", "at least 1", {} if self.cylinders >= 1 else {"cylinders": self.cylinders})

    def build(self) -> str:
        return "petrol"


@dataclass(frozen=True, kw_only=True)
class Steam(Burner):
    pressure: float = 16.0

    def build(self) -> str:
        return "steam"


@dataclass(frozen=True, kw_only=True)
class Pedals(Engine):
    def build(self) -> str:
        return "pedals"


@dataclass(frozen=True, kw_only=True)
class Tyres:
    width: float = 165.0
    pressure: float = setting(2.2, free=True)


@dataclass(frozen=True, kw_only=True)
class Car:
    engine: Engine = Petrol()
    tyres: Tyres = setting(Tyres(), free=True)
    seats: int | None = 4
    colour: Colour = setting("grey", stage=True)
    map: Path | None = setting(None, stored=False)
    wheels: tuple[float, ...] = (1.0, 2.0)
    towbar: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "wheels", tuple(self.wheels))  # YAML and JSON know lists only


class TestMerged:
    def test_what_is_not_given_stays_at_every_depth(self) -> None:
        car = Car(engine=Petrol(cylinders=6, power=90.0), seats=2)
        changed = merged(car, {"engine": {"power": 70.0}, "tyres": {"pressure": 2.5}})
        assert changed == Car(engine=Petrol(cylinders=6, power=70.0), tyres=Tyres(pressure=2.5), seats=2)
        assert car.tyres.pressure == 2.2
        assert merged(car, {}) == car

    @pytest.mark.parametrize(
        ("changes", "where", "todo"),
        [
            ({"seat": 2}, "car", "Did you mean seats?"),
            ({"engine": {"cylinder": 2}}, "car.engine", "Did you mean cylinders?"),
            ({"engine": {"class_path": "Steem"}}, "car.engine", "Did you mean Steam?"),
            ({"engine": {"class_path": "Steam", "init_args": {"presure": 2}}}, "car.engine", "Did you mean pressure?"),
            ({"xyz": 2}, "car", ""),
        ],
        ids=str,
    )
    def test_an_unknown_name_is_refused_with_the_nearest(self, changes: dict[str, Any], where: str, todo: str) -> None:
        with pytest.raises(ConfigError) as caught:
            merged(Car(), changes, where="car")
        assert (caught.value.code, caught.value.where, caught.value.todo) == ("unknown_setting", where, todo)

    def test_it_says_which_names_there_are(self) -> None:
        with pytest.raises(ConfigError) as caught:
            merged(Car(), {"tyres": {"xyz": 2}})
        assert caught.value.expected == "one of pressure, width"
        with pytest.raises(ConfigError) as caught:
            merged(Car(), {"engine": {"class_path": "Burner"}})
        assert caught.value.expected == "one of Petrol, Steam, Pedals"

    @pytest.mark.parametrize(
        "changes",
        [
            {"seats": "4"},
            {"seats": 4.0},
            {"seats": True},
            {"towbar": 1},
            {"towbar": "yes"},
            {"tyres": 3},
            {"tyres": None},
            {"tyres": {"width": "wide"}},
            {"engine": "Steam"},
            {"engine": Tyres()},
            {"wheels": 3},
            {"map": 3},
        ],
        ids=str,
    )
    def test_a_value_of_another_type_is_refused(self, changes: dict[str, Any]) -> None:
        with pytest.raises(ConfigError) as caught:
            merged(Car(), changes, where="car")
        assert caught.value.code == "wrong_type"
        assert caught.value.where.startswith(f"car.{next(iter(changes))}")

    @pytest.mark.parametrize(
        "changes",
        [
            {"seats": None},
            {"tyres": {"width": 155}},  # a whole number where a fraction may be
            {"tyres": Tyres(width=155.0)},
            {"engine": Steam()},
            {"wheels": [1, 2]},
            {"map": "map.pdf"},
            {"map": Path("map.pdf")},
        ],
        ids=str,
    )
    def test_what_yaml_and_python_say_is_taken(self, changes: dict[str, Any]) -> None:
        merged(Car(), changes)

    def test_the_dataclass_checks_what_comes_of_it(self) -> None:
        with pytest.raises(ConfigError) as caught:
            merged(Car(), {"engine": {"cylinders": 0}})
        assert caught.value.code == "engine_out_of_range"


class TestChosenByClass:
    def test_the_choices_are_the_classes_that_can_be_built(self) -> None:
        assert Engine.choices() == {"Petrol": Petrol, "Steam": Steam, "Pedals": Pedals}
        assert Burner.choices() == {"Petrol": Petrol, "Steam": Steam}

    def test_another_class_keeps_what_both_have(self) -> None:
        car = Car(engine=Petrol(power=90.0, cylinders=6))
        assert merged(car, {"engine": {"class_path": "Steam"}}).engine == Steam(power=90.0)
        given = {"class_path": "some.module.Steam", "init_args": {"pressure": 12.0, "power": 20.0}}
        assert merged(car, {"engine": given}).engine == Steam(power=20.0, pressure=12.0)
        assert merged(car, {"engine": {"class_path": "Pedals", "init_args": None}}).engine == Pedals()

    def test_the_same_class_keeps_everything(self) -> None:
        car = Car(engine=Petrol(power=90.0, cylinders=6))
        assert merged(car, {"engine": {"class_path": "Petrol", "init_args": {"power": 80.0}}}).engine == Petrol(
            power=80.0, cylinders=6
        )

    def test_a_field_of_another_class_is_refused(self) -> None:
        with pytest.raises(ConfigError) as caught:
            merged(Car(engine=Steam()), {"engine": {"cylinders": 6}})
        assert caught.value.code == "unknown_setting"


class TestDifferences:
    def test_names_values_and_marks(self) -> None:
        before = Car()
        after = Car(engine=Petrol(cylinders=6, oil=0.7), tyres=Tyres(width=155.0, pressure=2.0), colour="red", towbar=True)
        assert list(differences(before, after)) == [
            Difference("engine.cylinders", 4, 6, stage=False, free=False),
            Difference("engine.oil", 0.5, 0.7, stage=True, free=True),  # what may differ between stages goes with any weights
            Difference("tyres.width", 165.0, 155.0, stage=False, free=True),  # for the whole part is free
            Difference("tyres.pressure", 2.2, 2.0, stage=False, free=True),
            Difference("colour", "grey", "red", stage=True, free=True),
            Difference("towbar", False, True, stage=False, free=False),
        ]
        assert list(differences(before, Car())) == []

    def test_another_class_is_one_difference(self) -> None:
        assert list(differences(Car(), Car(engine=Pedals()))) == [
            Difference("engine", Petrol(), Pedals(), stage=False, free=False)
        ]

    def test_differences_are_refused_all_at_once(self) -> None:
        found = differences(Car(), Car(seats=5, colour="red"))
        with pytest.raises(ConfigError) as caught:
            refuse_differences("other_car", found, where="car.", whose="as it was built", todo="Build another.")
        error = caught.value
        assert (error.code, error.where, error.got) == ("other_car", "car.seats, car.colour", "5, red")
        assert error.expected == "4, grey, as it was built"
        refuse_differences("other_car", differences(Car(), Car()), where="car.", whose="", todo="")


class TestStored:
    def test_comes_back_from_json(self) -> None:
        for car in (Car(), Car(engine=Steam(pressure=12.0), tyres=Tyres(width=155.0), seats=None, wheels=(3.0,), towbar=True)):
            assert merged(Car(), json.loads(json.dumps(to_stored(car)))) == car

    def test_holds_every_default_but_not_what_is_not_stored(self) -> None:
        stored = to_stored(Car(map=Path("a folder of mine")))
        assert stored == {
            "engine": {"class_path": "Petrol", "init_args": {"power": 50.0, "cylinders": 4, "oil": 0.5}},
            "tyres": {"width": 165.0, "pressure": 2.2},
            "seats": 4,
            "colour": "grey",
            "wheels": [1.0, 2.0],
            "towbar": False,
        }
        assert set(asdict(Car())) - set(stored) == {"map"}

    def test_staged_are_those_that_may_differ_between_stages(self) -> None:
        assert staged(Car(colour="red")) == {"engine": {"oil": 0.5}, "colour": "red"}
        assert staged(Car(engine=Pedals())) == {"colour": "grey"}

    def test_flattened_for_people(self) -> None:
        assert flattened(to_stored(Car(engine=Steam()))) == {
            "engine": "Steam",
            "engine power": 50.0,
            "engine pressure": 16.0,
            "tyres width": 165.0,
            "tyres pressure": 2.2,
            "seats": 4,
            "colour": "grey",
            "wheels": [1.0, 2.0],
            "towbar": False,
        }
        assert flattened({"engine": {"class_path": "Pedals", "init_args": None}}) == {"engine": "Pedals"}


class TestRequire:
    def test_nothing_wrong_is_right(self) -> None:
        require("code", "anything", {})
        require_choice("code", "colour", "red", Colour)

    def test_names_and_values_of_all_that_is_wrong(self) -> None:
        with pytest.raises(ConfigError) as caught:
            require("wrong_numbers", "at least 1", {"a": 0, "b": -1})
        error = caught.value
        assert (error.code, error.where, error.got, error.expected) == ("wrong_numbers", "a, b", "0, -1", "at least 1")

    def test_a_word_that_is_none_of_them(self) -> None:
        with pytest.raises(ConfigError) as caught:
            require_choice("unknown_colour", "colour", "blue", Colour)
        error = caught.value
        assert (error.code, error.where, error.got) == ("unknown_colour", "colour", "'blue'")
        assert error.expected == "one of grey, red"
