"""ich-train: trains a model on whole scans and evaluates it on held-out patients."""

import difflib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from ich_lstm.cli.console import HANDED_OVER, RESTARTS, run_command
from ich_lstm.errors import ConfigError, as_data_key
from ich_lstm.files.untrusted import read_yaml
from ich_lstm.parallel import end_with_parent

CONFIGS = Path(__file__).parent.parent / "configs"

WHOLE = "All other files are complete, checkpoints too; a run that has begun goes on with ich-train --resume RUN."

HELP = """
ich-train --config NAME [--data.root PATH] [--data.labels CSV] [--out DIR] [--KEY VALUE ...]
ich-train --resume RUN [--stages.NAME.max_epochs N]

Train a CNN-LSTM end to end on whole scans of head CT, and report on held-out patients.

  ich-train --config demo                                     makes synthetic heads and trains on them
  ich-train --config rsna --data.root rsna/                   the library's own recipe; rsna-fast is quicker
  ich-train --config nguyen2020 --data.root rsna/             or burduja2020, ko2020: published systems
  ich-train --config finetune --checkpoint MODEL --data.root dicom/ --data.labels labels.csv
  ich-train --config PATH.yaml --data.root dicom/ --data.labels labels.csv

  --config NAME             a recipe of the library, or the path of a YAML file; if repeated, later ones override earlier ones
  --checkpoint PATH         start from this model: a run's folder, a model's folder, a .ckpt, or released weights
  --out DIR                 folder of the run, new or empty; left out: runs/<recipe>-<time>
  --resume RUN              go on with an unfinished run where it was stopped or killed; or train a finished one longer
  --checkpoint_minutes 15   longest time between two checkpoints
  --data.root PATH          folder or zip of DICOM files, or a folder made by ich-prepare
  --data.labels CSV         RSNA's stage_2_train.csv, or a table with one row per slice or per scan
  --data.preprocessing.size 256  side length of the network's input in pixels; left out: that of a prepared folder, or 256
  --data.batches.slices 256      most slices in a batch of whole scans; auto: as many as fit into memory
  --data.split.fractions [0.7,0.15,0.15]   shares of patients: training, validation, held out
  --data.split.file FILE    file that keeps the split, so that no patient changes subset; or a CSV with patient_id and subset
  --model.encoder.backbone NAME     any timm model, for example resnext50_32x4d
  --model.encoder.pretrained true   start from timm's weights (downloaded on first use); --model.encoder.pretrained_file FILE
                            without internet
  --model.head LSTM         or GRU, or NoHead for the 2D baseline; --model.head.hidden_size 512
  --model.optimizer.lr 0.001     learning rate of the head; --model.optimizer.encoder_lr 0.0001
  --trainer.max_epochs 8    --trainer.devices 2   --trainer.precision bf16-mixed
  --model.encoder.slices_per_chunk 32    train whole scans with the memory for this many slices; auto: as many as fit
  --plan                    only find by trial how many slices fit into the memory of this device; time limit:
                            --plan_minutes 10
  --wandb offline           or online: log to Weights & Biases too; its files lie in private/
  --tensorboard true        log for TensorBoard too (pip install tensorboard); its files lie in private/
  --stages.NAME.KEY VALUE   change one key of one stage of the recipe: --stages.joint.max_epochs 1
  --seed_everything 1       seed of the weights, the order and the augmentation; --data.split.seed 0 is the seed of the split
  --phantom.patients 100    (with --phantom.seed, .slices, .size ...) make synthetic heads and train on them

  --help=full               every key with its default     --print_config   the configuration that would run
  --trust-config            let a YAML file name any class, whose code then runs; without it, only heads of this library and
                            classes of Lightning (SECURITY.md)
  --debug                   show the traceback of an error --version

Any key of the model, the data and Lightning's Trainer is accepted. A run that is stopped saves first.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (Ctrl-C), 143 terminated,
138 stopped by SLURM's SIGUSR1 and requeued.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ich-train.

    Args:
        argv: Arguments of the command; None for those of the process.

    Returns:
        The exit code.
    """
    return run_command("ich-train", HELP, _train, argv, whole=WHOLE, spell=as_data_key)


def _train(arguments: list[str]) -> int:
    if HANDED_OVER in os.environ:  # one of the further processes that Lightning starts
        end_with_parent()
    run, arguments = resolve_resume(arguments)
    recipe, arguments = resolve_recipes(arguments)
    arguments = resolve_stages(arguments)
    from ich_lstm.cli.training.fit import run_training  # this imports torch and Lightning, which takes seconds

    arguments = ["--help" if argument == "--help=full" else argument for argument in arguments]
    return run_training(recipe, arguments, find_checkpoint(arguments), run)


def resolve_resume(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Replace ``--resume RUN`` by the configuration of that run.

    A command that torchrun or SLURM has restarted goes on with its own run, if that has begun.

    Args:
        arguments: Command line.

    Returns:
        Folder of the run that is resumed, None for a new run; and the arguments.

    Raises:
        ConfigError: If the folder is not that of a run, or the command line also gives another configuration or folder.
    """
    given = dict(_options(arguments, ("--resume", "--out", "--config", "--checkpoint")))
    rest = [word for option, value in _options(arguments, ("--resume",)) for word in (option, value) if option != "--resume"]
    run, words = given.get("--resume"), [word for word in rest if word is not None]
    if run is None:
        out = Path(given.get("--out") or "")
        if not given.get("--out") or not any(int(os.environ.get(name) or 0) for name in RESTARTS):
            return None, list(arguments)
        from ich_lstm.cli.training.run_folder import has_checkpoints, resumed_with  # this imports torch, which takes seconds

        # The configuration is that of this very command, which may have named classes of the user.
        return (out, [*resumed_with(out), "--trust-config"]) if has_checkpoints(out) else (None, list(arguments))
    wrong = [option for option in ("--out", "--config", "--checkpoint") if option in given]
    if wrong:
        raise ConfigError(
            "wrong_usage",
            where="--resume",
            got=f"{', '.join(wrong)} beside it",
            expected="only --resume RUN, because the run's configuration is used",
            todo="Leave the others out.",
        )
    from ich_lstm.cli.training.run_folder import resumed_with

    return Path(run), [*resumed_with(Path(run)), *words]


def resolve_recipes(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Replace the names of shipped recipes by their paths.

    Args:
        arguments: Arguments of the command line.

    Returns:
        The name of the first recipe (``train`` if there is none), and the arguments.

    Raises:
        ConfigError: If a recipe is neither shipped nor a file.
    """
    resolved: list[str] = []
    recipe = ""
    for word, name in _options(arguments, ("--config",)):
        if name is None:
            resolved.append(word)
            continue
        resolved += ["--config", str(_recipe_path(name))]
        recipe = recipe or Path(name).stem
    return recipe or "train", resolved


def resolve_stages(arguments: Sequence[str]) -> list[str]:
    """Replace keys of single stages (``--stages.joint.optimizer.lr 1e-4``) by one ``--stages`` with the changed mapping.

    Args:
        arguments: Command line in which paths have replaced the names of recipes.

    Raises:
        ConfigError: If a key names a stage that the recipe does not have.
    """
    stages: dict[str, Any] = {}
    resolved: list[str] = []
    changes: list[tuple[str, str]] = []
    for option, value in _options(arguments, ("--config", "--stages")):
        if value is None:
            resolved.append(option)
        elif option.startswith("--stages."):
            changes.append((option.removeprefix("--stages."), value))
        else:
            resolved += [option, value]
            found = _stages_in(option, value)
            stages = found or ({} if option == "--stages" else stages)  # --stages null: none, whatever the recipe has
    for key, value in changes:
        name, *path = key.split(".")
        if name not in stages or not path:
            near = difflib.get_close_matches(name, stages, n=1)
            known = f"one of {', '.join(stages)}" if stages else "a recipe with stages; this one has none"
            raise ConfigError(
                "no_stage",
                where=f"--stages.{key}",
                got=name,
                expected=known,
                todo=f"Did you mean {near[0]}?" if near else "" if stages else "Use --trainer.max_epochs, --model and --data.",
            )
        place = stages[name]
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = _value(value)
    return [*resolved, "--stages", json.dumps(stages)] if changes else resolved


def find_checkpoint(arguments: Sequence[str]) -> Path | None:
    """Find the model of a warm start. Its settings become defaults of the parser, so it must be known before parsing.

    Args:
        arguments: Command line in which paths have replaced the names of recipes.

    Returns:
        Path of the model; None for no warm start.
    """
    checkpoint = None
    for option, value in _options(arguments, ("--config", "--checkpoint")):
        if value is not None:
            checkpoint = _in_yaml(option, value, "checkpoint") or checkpoint
    return Path(str(checkpoint)) if checkpoint else None


def _options(arguments: Sequence[str], names: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield some options (and their keys, as ``--stages.joint.ema``) with their values, and every other word with None."""
    words = iter(arguments)
    for word in words:
        option, has_value, value = word.partition("=")
        is_wanted = option in names or option.startswith(tuple(f"{name}." for name in names))
        if is_wanted and not option.endswith(".help"):
            yield option, value if has_value else next(words, "")
        else:
            yield word, None


def _stages_in(option: str, value: str) -> dict[str, Any] | None:
    """The stages in a recipe or in ``--stages``; None if they are missing or malformed, which is reported later."""
    stages = _in_yaml(option, value, "stages")
    is_mapping = isinstance(stages, dict) and all(isinstance(stage, dict) for stage in stages.values())
    return stages if is_mapping else None


def _in_yaml(option: str, value: str, key: str) -> Any:
    """The value of a key in the file of ``--config``, or the value of the key's own option."""
    with suppress(OSError, ValueError, yaml.YAMLError):
        if option != "--config":
            return yaml.safe_load(value)
        given = read_yaml(Path(value))
        return given.get(key) if isinstance(given, dict) else None
    return None


def _value(text: str) -> Any:
    """Parse a value of the command line: YAML, and numbers such as 1e-4, which YAML would read as text."""
    with suppress(ValueError):
        return int(text)
    with suppress(ValueError):
        return float(text)
    return yaml.safe_load(text)


def _recipe_path(name: str) -> Path:
    """Path of a shipped recipe, or of a YAML file."""
    shipped = CONFIGS / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    if Path(name).is_file():
        return Path(name)
    names = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    raise ConfigError(
        "no_recipe",
        where="--config",
        got=repr(name),
        expected=f"a YAML file, or a recipe of the library ({', '.join(names)})",
        todo="Check the name or the path.",
    )


if __name__ == "__main__":
    sys.exit(main())
