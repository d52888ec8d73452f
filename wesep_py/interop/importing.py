"""A public checkpoint and the configuration that it was trained with → a checkpoint of ours, or a list of why not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from wesep_py import checkpoint
from wesep_py.common.errors import CheckpointError, ConfigError, nearest, shorten
from wesep_py.common.safe_building import build_within, check_numbers
from wesep_py.common.yamlfiles import read_yaml
from wesep_py.interop import encoders
from wesep_py.interop import public_checkpoints as files
from wesep_py.interop.public_checkpoints import (
    WESEP,
    MisfitError,
    MissingTensorError,
    PublicConfig,
    UntranslatableError,
    public_config,
    translating,
)
from wesep_py.interop.wesep import ARCHITECTURES
from wesep_py.network.extraction_network import build_network
from wesep_py.network.speaker import speaker_networks

SLACK = 8
"""A network that its weights do not fit is built, to list what does not, up to so many times their size."""
MOST_LINES = 200


class UnmappedError(CheckpointError):
    """A public checkpoint that cannot be mapped; `lines` says why, a line for each argument and each tensor."""

    def __init__(self, path: Path, lines: list[str]) -> None:
        lines = [shorten(line, 300) for line in lines]
        super().__init__(f"{path}: {len(lines)} thing(s) could not be mapped, so nothing was written: {lines[0]}")
        self.lines = lines


@dataclass(frozen=True)
class Imported:
    """A public checkpoint as one of ours.

    Attributes:
        config: what builds the network (`kind` extractor), or what an encoder's folder holds.
        state_dict: weights under our names.
        kind: `extractor` or `speaker encoder`.
        provenance: what it came from.
    """

    config: dict[str, Any]
    state_dict: dict[str, Tensor]
    kind: str
    provenance: dict[str, Any]

    def save(self, folder: Path) -> Path:
        """Write the checkpoint folder; it appears whole."""
        return checkpoint.save(folder, self.config, self.state_dict, self.provenance, self._card(folder.name))

    def _card(self, name: str) -> str:
        source = self.provenance["imported_from"]
        use = f"`wesep extract --model {name}`, `wesep_py.load({name!r})`"
        if self.kind != "extractor":
            use = f"`speaker: {{network: …, checkpoint: {name}}}` in a configuration, with the network of `config.yaml`"
        elif self.config.get("speaker") is None and any("embedding_dim" in cue for cue in self.config["cues"]):
            use = "it has no speaker encoder: embeddings are computed elsewhere (`--enroll NAME.npy`)"
        return (
            f"# {name}\n\nThe {self.kind} `{source['model']}`, trained with {source['toolkit']} and imported by "
            f"wesep-py; nothing was trained here.\n\n"
            f"- weights: `{source['file']}`, SHA-256 `{source['sha256']}`\n"
            f"- configuration: `{source['config_file']}`, SHA-256 `{source['config_sha256']}`\n"
            f"- use: {use}\n\n"
            "Its licence and the data that it was trained on are those of its source.\n"
        )


def import_checkpoint(path: str | Path, config_path: str | Path) -> Imported:
    """Read a public checkpoint into a network of ours.

    Args:
        path: `avg_model.pt`, say.
        config_path: the YAML that was trained with.

    Raises:
        UnmappedError: arguments, weights or sizes that could not be mapped.
        ConfigError, CheckpointError: a file is missing, or is not what it should be.
    """
    path, config_path = Path(path), Path(config_path)
    try:
        public = public_config(read_yaml(config_path))
        check_numbers({"model_args": public.args, "dataset_args": public.filterbank, "encoder": public.encoder})
    except ConfigError as error:
        raise error if str(error).startswith(str(config_path)) else ConfigError(f"{config_path}: {error}") from error
    except (TypeError, ValueError, AttributeError) as error:  # lists where mappings belong, texts where numbers do
        raise ConfigError(f"{config_path}: a value is of the wrong type ({shorten(error)})") from error
    weights = files.read(path)
    extractor = public.toolkit == WESEP or public.model in ARCHITECTURES
    if public.model not in (names := list(ARCHITECTURES) if extractor else [*ARCHITECTURES, *encoders.names()]):
        raise ConfigError(
            f"{config_path}: model: no network is called {public.model!r}; {nearest(public.model, names)}"
        )
    build = _extractor if extractor else _encoder
    config, expected, mapped, lines = build(public, weights)
    counters = {name: value for name, value in expected.items() if name.endswith("num_batches_tracked")}
    complete = counters | mapped
    lines += checkpoint.misfit(expected, complete) if mapped else []
    if lines:
        raise UnmappedError(path, lines)
    source = {
        "toolkit": public.toolkit,
        "model": public.model,
        "arguments": public.args,
        "file": path.name,
        "sha256": _sha256(path),
        "config_file": config_path.name,
        "config_sha256": _sha256(config_path),
    }
    return Imported(config, complete, "extractor" if extractor else "speaker encoder", {"imported_from": source})


Built = tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor], list[str]]
"""Configuration, the network's weights as built, the public ones under our names (none where that failed), problems."""


def _extractor(public: PublicConfig, weights: Mapping[str, Tensor]) -> Built:
    architecture, lines = ARCHITECTURES[public.model], list(public.problems)
    try:
        with translating():
            model = architecture.translate(public.args, public.encoder, weights)
    except ConfigError as error:
        return {}, {}, {}, lines + _lines(error)
    speaker = model.get("speaker")
    if speaker is not None and public.args.get("spk_feat", False):
        given = speaker["filterbank"]["num_mel_bins"]
        lines += _unequal_bins(given, public.filterbank)
        speaker["filterbank"] = {**public.filterbank, "num_mel_bins": given}
    try:
        network = build_within(lambda: build_network(model, initialise=False), weights, SLACK)
    except ConfigError as error:
        return {}, {}, {}, lines + _lines(error)
    mapped, unmapped = _mapped(lambda given: architecture.rename(given, public.args, public.encoder), weights)
    return network.config, network.state_dict(), mapped, lines + unmapped


def _encoder(public: PublicConfig, weights: Mapping[str, Tensor]) -> Built:
    lines = list(public.problems)
    try:
        with translating():
            bins = encoders.num_mel_bins(public.args)
            given = {"model": public.model, "args": public.args, "block": public.block}
            config = encoders.translate(public.model, public.args, given)
        lines += _unequal_bins(bins, public.filterbank)
        network = build_within(lambda: speaker_networks.build(config, "network", num_mel_bins=bins), weights, SLACK)
    except ConfigError as error:
        return {}, {}, {}, lines + _lines(error)
    whole = {
        "network": config,
        "sample_rate": public.sample_rate,
        "filterbank": {**public.filterbank, "num_mel_bins": bins},
    }
    mapped, unmapped = _mapped(encoders.family(public.model).rename, files.without_classifier(weights))
    expected = {f"network.{name}": value for name, value in network.state_dict().items()}
    return whole, expected, {f"network.{name}": value for name, value in mapped.items()}, lines + unmapped


def _mapped(
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]], weights: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights under our names, and what is missing or left over.

    For a tensor that is missing, another one of its kind stands in, so that all that are missing are found.
    """
    given, lines = dict(weights), []
    while True:
        try:
            return rename(given), lines
        except MissingTensorError as error:
            lines.append(f"missing: {error.name}")
            if len(lines) >= MOST_LINES:
                return {}, [*lines, "and more"]
            pattern = re.sub(r"\d+", r"\\d+", re.escape(error.name))
            alike = next((value for name, value in given.items() if re.fullmatch(pattern, name)), None)
            if alike is None:
                return {}, lines
            given[error.name] = alike
        except MisfitError as error:
            lines += [f"not used: {name}" for name in error.lines]
            given = {name: value for name, value in given.items() if name not in error.lines}
        except (CheckpointError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
            return {}, [*lines, f"weights: {shorten(error)}"]


def _lines(error: ConfigError) -> list[str]:
    return error.lines if isinstance(error, UntranslatableError) else [str(error)]


def _unequal_bins(network: int, filterbank: Mapping[str, Any]) -> list[str]:
    given = filterbank.get("num_mel_bins", network)
    if given == network:
        return []
    return [f"dataset_args.fbank_args.num_mel_bins: is {given}, and the speaker network hears {network} (feat_dim)"]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
