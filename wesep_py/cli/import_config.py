"""`wesep import-config`: translate the training configuration of another toolkit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wesep_py.cli.options import JsonOption, OverwriteOption

if TYPE_CHECKING:
    from wesep_py.interop.training_notes import ConfigTranslation


def import_config(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML: confs/bsrnn.yaml, train_enh_tse_….yaml.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The training configuration to write.", show_default=False)
    ],
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="DATA", help="Training data: a data folder with wav.scp, a raw.list or shard.list."
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option("--validation", metavar="DATA", help="Data folder with mixtures and enrollments, such as dev."),
    ] = None,
    epoch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Number of mixtures in an epoch; by default that of --data, or of Libri2Mix."),
    ] = None,
    sample_rate: Annotated[
        int | None, typer.Option(min=8000, help="Hz, if the configuration does not say it (ESPnet).")
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Translate a training configuration of WeSep or ESPnet (TD-SpeakerBeam) into one for `wesep train`.

    Example: wesep import-config confs/bsrnn.yaml --data data/clean/train-100
    --validation data/clean/dev -o train.yaml

    Comments in the file say what each key became. The keys without counterpart
    are printed. Values that you must give are ???. If the network itself has no
    counterpart, nothing is written.
    """
    from wesep_py.common.errors import ConfigError, InputError
    from wesep_py.common.files import check_writable, refuse_inputs, write_text
    from wesep_py.common.yamlfiles import read_yaml
    from wesep_py.data.recipe_lists import count_mixtures
    from wesep_py.interop.public_checkpoints import UntranslatableError, translating

    refuse_inputs([output], [(config, "the configuration")])
    if output.suffix not in (".yaml", ".yml"):
        raise InputError(f"{output}: is no name of a YAML file; end it in .yaml")
    check_writable(output, overwrite)
    content = read_yaml(config)
    try:
        with translating():
            num_mixtures = None if data is None else count_mixtures(data)
            translation = _translate(content, epoch_size, sample_rate, num_mixtures)
    except UntranslatableError as error:
        for line in error.lines:
            typer.echo(line, err=True)
        raise ConfigError(f"{config}: nothing was written, for the {len(error.lines)} reason(s) above") from error
    except ConfigError as error:
        raise error if str(error).startswith(str(config)) else ConfigError(f"{config}: {error}") from error
    _name_data(translation, data, validation)
    _check(translation.config, config)
    write_text(output, translation.as_yaml(config.name), overwrite)
    if as_json:
        facts = {"file": str(output), "toolkit": translation.toolkit, "model": translation.model}
        typer.echo(json.dumps(facts | {"missing": translation.missing, "open": _open_keys(translation.config)}))
        return
    typer.echo(f"{output}: {translation.toolkit}'s {translation.model}")
    for key, reason in translation.missing.items():
        typer.echo(f"no counterpart: {key}: {reason}")
    for key in _open_keys(translation.config):
        typer.echo(f"to be given: {key}")


def _translate(
    content: dict[str, Any], epoch_size: int | None, sample_rate: int | None, num_mixtures: int | None
) -> ConfigTranslation:
    from wesep_py.common.errors import ConfigError
    from wesep_py.interop.espnet_config import is_espnet
    from wesep_py.interop.espnet_training import translate_espnet_training
    from wesep_py.interop.wesep_training import is_wesep_training, translate_wesep_training

    if is_wesep_training(content):
        return translate_wesep_training(content, epoch_size, num_mixtures)
    if is_espnet(content):
        return translate_espnet_training(content, epoch_size, sample_rate, num_mixtures)
    raise ConfigError(
        "is no training configuration of WeSep (model: {tse_model: …}) or ESPnet (encoder, extractor, decoder)"
    )


def _name_data(translation: ConfigTranslation, data: str | None, validation: str | None) -> None:
    """Enter the names of the training and the validation data.

    Raises:
        InputError: the training data does not exist, is no data, or is of another kind than the configuration is for.
    """
    from wesep_py.common.errors import InputError
    from wesep_py.data.recipe_lists import holds_mixtures, is_data_folder, mixtures_have_noise

    config = translation.config
    if data is not None:
        path = Path(data)
        if not path.exists():
            raise InputError(f"{data}: does not exist; name the training data, a folder or a list")
        takes_mixtures = "mixtures" in config["data"]
        if path.name == "wav.scp":
            raise InputError(f"{data}: is read together with the lists beside it; name its folder, {path.parent}")
        if takes_mixtures and path.is_dir() and not is_data_folder(path) and not (path / "s1").is_dir():
            raise InputError(f"{data}: has no wav.scp; name a data folder of one subset, such as {path / 'train-100'}")
        if is_data_folder(path) and holds_mixtures(path) != takes_mixtures:
            wanted = "mixtures with their sources" if takes_mixtures else "single utterances (online_mix)"
            raise InputError(f"{data}: the configuration is for {wanted}; name such data, or leave out --data")
        if takes_mixtures:
            config["data"]["mixtures"]["lists"] = [data]
            beside = path if path.is_dir() else path.parent
            if is_data_folder(beside) and holds_mixtures(beside) and mixtures_have_noise(beside):
                config["data"]["mixtures"]["condition"] = "noisy"
                note = f"{translation.toolkit} -> data.mixtures.condition (the mixtures of wav.scp have noise)"
                translation.notes.setdefault("data", []).append(note)
            if is_data_folder(path) and (path / "spk2enroll.json").is_file():
                config["data"]["train"] = [str(path / "spk2enroll.json")]
            if is_data_folder(path) and config["model"].get("speaker") is None and (path / "embed.scp").is_file():
                config["data"]["embeddings"] = str(path / "embed.scp")
        else:
            lists = sorted(path.glob("shard*.list")) if path.is_dir() else []
            config["data"]["train"] = [str(lists[0]) if lists else data]
    if validation is not None:
        section = config.setdefault("validation", {})
        section |= {"trials": validation, "enrollment": validation}
        section.setdefault("every_steps", config["checkpoint"]["every_steps"])
        if is_data_folder(validation) and holds_mixtures(validation) and mixtures_have_noise(validation):
            section["condition"] = "noisy"
        embeddings = Path(validation) / "embed.scp"
        if config["model"].get("speaker") is None and embeddings.is_file():
            section["embeddings"] = str(embeddings)


def _open_keys(config: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the keys whose value the user must give."""
    keys = []
    for name, value in config.items():
        if isinstance(value, dict):
            keys += _open_keys(value, f"{prefix}{name}.")
        elif value == "???":
            keys.append(f"{prefix}{name}")
    return keys


def _check(config: dict[str, Any], source: Path) -> None:
    """Check that the translation is a configuration, and that its network can be built.

    Raises:
        ConfigError: it is not.
    """
    import copy

    from wesep_py.common.errors import ConfigError
    from wesep_py.network.extraction_network import build_network
    from wesep_py.training.training_config import load_config

    filled = copy.deepcopy(config)
    for key in _open_keys(filled):
        *parents, last = key.split(".")
        section = filled
        for parent in parents:
            section = section[parent]
        section[last] = ["x"] if last in ("lists", "train", "noise") else "x"
    try:
        load_config(filled)
        build_network(copy.deepcopy(config["model"]), initialise=False)
    except ConfigError as error:
        raise ConfigError(f"{source}: has values that cannot be used here: {error}") from error
