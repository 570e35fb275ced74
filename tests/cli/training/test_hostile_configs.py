"""YAML files by which a stranger could run code, open files, connect, or exhaust memory or time."""

import os
from pathlib import Path

import pytest
import yaml
from hostile import MEGABYTES, SECONDS, Outcome, outcomes

from ich_lstm.cli import train
from ich_lstm.cli.training.configuration import TRUST, make_parser, parse
from ich_lstm.errors import ConfigError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="each case is read in a fork")

EVIL = "evil_module.Evil"
LAUGHS = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'ha'}]" for i in range(12))
CODE = {
    "a function": "trainer: {callbacks: [{class_path: os.system, init_args: {command: 'true'}}]}",
    "a module beside it": f"trainer: {{callbacks: {EVIL}}}",
    "a text of YAML": "trainer: {callbacks: '[{class_path: evil_module.Evil}]'}",
    "a key with dots": f"trainer.callbacks: [{EVIL}]",
    "an added callback": f"trainer.callbacks+: {{class_path: {EVIL}}}",
    "by way of Lightning's imports": "trainer: {plugins: [{class_path: pytorch_lightning.trainer.trainer.os.system}]}",
    "Lightning's command line": "trainer: {callbacks: pytorch_lightning.cli.LightningCLI}",
    "a callable of a callback": "trainer: {callbacks: {class_path: LambdaCallback, init_args: {on_fit_start: os.system}}}",
    "a callable of a strategy": "trainer: {strategy: {class_path: DDPStrategy, init_args: {ddp_comm_hook: os.abort}}}",
    "a nested class": f"trainer: {{strategy: {{class_path: DDPStrategy, init_args: {{accelerator: {{class_path: {EVIL}}}}}}}}}",
    "a logger of a service": "trainer: {logger: {class_path: MLFlowLogger, init_args: {tracking_uri: 'http://127.0.0.1:9'}}}",
    "a profiler": "trainer: {profiler: {class_path: cProfile.Profile}}",
    "a head": f"model: {{head: {{class_path: {EVIL}}}}}",
    "a stage": f"stages: {{a: {{max_epochs: 1, trainer: {{callbacks: {{class_path: {EVIL}}}}}}}}}",
    "another file": "trainer: other.yaml",
    "another file as config": "config: other.yaml",
}
OTHERS = {
    "a tag of Python": "a: !!python/object/apply:os.system ['true']",
    "billions of laughs": LAUGHS,
    "lists 100,000 deep": "[" * 100_000,
    "two megabytes": "a: " + "b" * (2 * 2**20),
    "not YAML": "a: [b",
    "not UTF-8": "a: \udcff",
    "a pipe": "",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What happened to each of the files."""
    cases = {}
    for number, (name, text) in enumerate({**CODE, **OTHERS}.items()):
        folder = tmp_path_factory.mktemp(f"config{number}")
        (folder / "evil_module.py").write_text(f"import os\nos.mkdir({str(folder / 'executed')!r})\n")
        if name == "a pipe":
            os.mkfifo(folder / "a.yaml")
        else:
            (folder / "a.yaml").write_bytes(text.encode(errors="surrogateescape"))
        cases[name] = ("read_config", folder / "a.yaml")
    return outcomes(cases)


def test_there_are_twenty() -> None:
    assert len(CODE) + len(OTHERS) >= 20


@pytest.mark.parametrize("name", [*CODE, *OTHERS])
def test_a_hostile_file_is_refused(name: str, found: dict[str, Outcome]) -> None:
    outcome = found[name]
    expected = "untrusted_config" if name in CODE else "no_recipe" if name == "a pipe" else "unreadable_config"
    assert outcome.code == expected, outcome.message
    assert (TRUST in outcome.message) == (name in CODE)
    assert outcome.message.isprintable()
    assert outcome.seen == []
    assert outcome.seconds < SECONDS
    assert outcome.megabytes < MEGABYTES


@pytest.mark.parametrize(
    "text",
    [
        "trainer: {callbacks: {class_path: pytorch_lightning.callbacks.EarlyStopping, init_args: {monitor: val_loss}}}",
        "trainer: {callbacks: [{class_path: LearningRateMonitor}], strategy: ddp, profiler: simple, accelerator: cpu}",
        "trainer: {logger: {class_path: pytorch_lightning.loggers.CSVLogger, init_args: {save_dir: logs}}}",
        "model: {head: {class_path: ich_lstm.GRU, init_args: {hidden_size: 8}}}",
        "model: {head: GRU, encoder: {backbone: os.path}}",
        "data: {root: os.zip, labels: test.csv}",
    ],
)
def test_what_runs_no_code_of_others_is_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    parse(make_parser({}), ["--config", str(tmp_path / "a.yaml")])


@pytest.mark.parametrize("recipe", sorted(path.stem for path in train.CONFIGS.glob("*.yaml")))
def test_recipes_of_the_library_need_no_trust(recipe: str) -> None:
    parse(make_parser({}), ["--config", str(train.CONFIGS / f"{recipe}.yaml")])


def test_with_trust_the_class_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("from pytorch_lightning import Callback", "class Mine(Callback):", "    pass")
    (tmp_path / "trusted_module.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({"trainer": {"callbacks": [{"class_path": "trusted_module.Mine"}]}}))
    with pytest.raises(ConfigError) as caught:
        parse(make_parser({}), ["--config", str(path)])
    assert caught.value.code == "untrusted_config"
    for arguments in (["--config", str(path), TRUST], [TRUST, f"--config={path}"]):
        config = parse(make_parser({}), arguments)
        assert config.trainer.callbacks[0].class_path == "trusted_module.Mine"


def test_a_class_on_the_command_line_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("from pytorch_lightning import Callback", "class Typed(Callback):", "    pass")
    (tmp_path / "typed_module.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    config = parse(make_parser({}), ["--trainer.callbacks", "typed_module.Typed"])
    assert config.trainer.callbacks.class_path == "typed_module.Typed"
