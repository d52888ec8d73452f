"""Import a public checkpoint: from the weights and the training configuration to a checkpoint folder of ours.

`import_public_checkpoint` translates the configuration, builds our network, renames the weights, and compares the two.
What cannot be mapped is collected, over all of these steps, into one `UnmappedError`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from wesep_py import checkpoint
from wesep_py.common.errors import CheckpointError, ConfigError, nearest, shorten
from wesep_py.common.safe_building import build_within, check_numbers
from wesep_py.common.yamlfiles import read_yaml
from wesep_py.interop.espnet import TD_SPEAKERBEAM
from wesep_py.interop.espnet_config import ESPNET, EXTRACTOR, RATE_OPTION, is_espnet, parse_espnet_config
from wesep_py.interop.public_checkpoints import (
    WESEP,
    MisfitError,
    MissingTensorError,
    PublicConfig,
    UntranslatableError,
    parse_public_config,
    read_public_weights,
    translating,
    without_classifier,
)
from wesep_py.interop.wesep import ARCHITECTURES
from wesep_py.interop.wesep_enrollment import PublicExtractor
from wesep_py.interop.wespeaker_networks import family_of, network_names, num_mel_bins, translate_network
from wesep_py.network.extraction_network import build_network
from wesep_py.network.speaker import speaker_networks

EXTRACTORS: dict[str, PublicExtractor] = {**ARCHITECTURES, EXTRACTOR: TD_SPEAKERBEAM}
"""Public name of an extraction network → how its arguments and weights become ours."""
MAX_SIZE_RATIO = 8
"""A network may be this many times larger than the weights: it is still built, so that all that differs is listed."""
MAX_MISSING = 200
"""Missing tensors that are listed."""


class UnmappedError(CheckpointError):
    """A public checkpoint that cannot be mapped.

    Attributes:
        lines: the reasons, a line for each argument and each tensor.
    """

    def __init__(self, path: Path, lines: list[str]) -> None:
        lines = [shorten(line, 300) for line in lines]
        super().__init__(f"{path}: {len(lines)} thing(s) could not be mapped, so nothing was written: {lines[0]}")
        self.lines = lines


@dataclass(frozen=True)
class ImportedCheckpoint:
    """A public checkpoint as one of ours.

    Attributes:
        config: what builds the network (`kind` extractor), or what an encoder's folder holds.
        state_dict: weights under our names.
        kind: `extractor` or `speaker encoder`.
        provenance: the source: toolkit, model, arguments, files and their hashes.
    """

    config: dict[str, Any]
    state_dict: dict[str, Tensor]
    kind: str
    provenance: dict[str, Any]

    def save(self, folder: Path) -> Path:
        """Write the checkpoint folder, which appears when it is complete."""
        return checkpoint.save(folder, self.config, self.state_dict, self.provenance, self._card(folder.name))

    def _card(self, name: str) -> str:
        source = self.provenance["imported_from"]
        use = f"`wesep extract --model {name}`, `wesep_py.load({name!r})`"
        if self.kind != "extractor":
            use = f"`speaker: {{checkpoint: {name}, mode: frozen}}` in a configuration, `wesep verify --model {name}`"
        elif self.config.get("speaker") is None and any("embedding_dim" in cue for cue in self.config["cues"]):
            use = "it has no speaker encoder: embeddings are computed elsewhere (`--enroll NAME.npy`)"
        lines = [f"- weights: `{source['file']}`, SHA-256 `{source['sha256']}`"]
        if "config_file" in source:
            lines.append(f"- configuration: `{source['config_file']}`, SHA-256 `{source['config_sha256']}`")
        lines += [f"- {key}: {source[key]}" for key in ("licence", "citation") if key in source]
        remark = (
            "The data that it was trained on"
            if "licence" in source
            else "Its licence and the data that it was trained on"
        )
        return (
            f"# {name}\n\nThe {self.kind} `{source['model']}`, trained with {source['toolkit']} and imported by "
            f"wesep-py; nothing was trained here.\n\n"
            + "\n".join([*lines, f"- use: {use}"])
            + f"\n\n{remark} are those of its source.\n"
        )


def import_public_checkpoint(
    path: str | Path, config_path: str | Path, sample_rate: int | None = None
) -> ImportedCheckpoint:
    """Read a public checkpoint into a network of ours; its configuration says of which toolkit it is.

    Args:
        path: the weights, such as `avg_model.pt`, or `valid.loss.best.pth` of ESPnet.
        config_path: the YAML that was trained with.
        sample_rate: Hz that the model was trained at, where the configuration does not say it.

    Raises:
        UnmappedError: arguments, weights or sizes that could not be mapped.
        ConfigError, CheckpointError: a file is missing, or is not what it should be.
    """
    path, config_path = Path(path), Path(config_path)
    try:
        public = _parse_config(read_yaml(config_path), sample_rate)
        check_numbers({"model_args": public.args, "dataset_args": public.filterbank, "encoder": public.encoder})
    except ConfigError as error:
        raise error if str(error).startswith(str(config_path)) else ConfigError(f"{config_path}: {error}") from error
    except (TypeError, ValueError, AttributeError) as error:  # lists where mappings belong, texts where numbers do
        raise ConfigError(f"{config_path}: a value is of the wrong type ({shorten(error)})") from error
    weights = read_public_weights(path)
    is_extractor = public.toolkit in (WESEP, ESPNET) or public.model in ARCHITECTURES
    names = list(ARCHITECTURES) if is_extractor else [*ARCHITECTURES, *network_names()]
    if public.toolkit == ESPNET:
        names = [EXTRACTOR]
    if public.model not in names:
        key = "extractor" if public.toolkit == ESPNET else "model"
        raise ConfigError(
            f"{config_path}: {key}: no network is called {shorten(public.model, 60)!r}; "
            f"{nearest(shorten(public.model, 60), names)}"
        )
    translation = _translate_extractor(public, weights) if is_extractor else _translate_encoder(public, weights)
    counters = {name: v for name, v in translation.expected.items() if name.endswith("num_batches_tracked")}
    state_dict = counters | translation.renamed
    misfits = checkpoint.weight_mismatches(translation.expected, state_dict) if translation.renamed else []
    if problems := translation.problems + misfits:
        raise UnmappedError(path, problems)
    source = {
        "toolkit": public.toolkit,
        "model": public.model,
        "arguments": public.args,
        "file": path.name,
        "sha256": _sha256(path),
        "config_file": config_path.name,
        "config_sha256": _sha256(config_path),
    }
    kind = "extractor" if is_extractor else "speaker encoder"
    return ImportedCheckpoint(translation.config, state_dict, kind, {"imported_from": source})


def _parse_config(content: Mapping[str, Any], sample_rate: int | None) -> PublicConfig:
    """Parse the configuration of any of the toolkits; a sample rate that it does not state is filled in."""
    if is_espnet(content):
        return parse_espnet_config(content, sample_rate)
    if sample_rate is not None:
        dataset = content.get("dataset_args") or {}
        if dataset.get("resample_rate", sample_rate) != sample_rate:
            raise ConfigError(
                f"dataset_args.resample_rate: is {dataset['resample_rate']}, but a {RATE_OPTION} of {sample_rate} Hz "
                "is asked for; leave it out"
            )
        content = {**content, "dataset_args": {**dataset, "resample_rate": sample_rate}}
    return parse_public_config(content)


class Translation(NamedTuple):
    """A public network in our terms, as far as it could be translated.

    Attributes:
        config: the configuration of the checkpoint.
        expected: the weights of our network as it was built.
        renamed: the public weights under our names; none where that failed.
        problems: a line for each thing that could not be mapped.
    """

    config: dict[str, Any]
    expected: dict[str, Tensor]
    renamed: dict[str, Tensor]
    problems: list[str]


def translate_extraction_model(
    public: PublicConfig, weights: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return the `ModelConfig` mapping of a public extraction network, and a line for each thing without counterpart.

    Args:
        public: its configuration.
        weights: the public ones, for sizes that no argument gives.

    Returns:
        The mapping, which is empty if the arguments cannot be translated.
    """
    problems = list(public.problems)
    try:
        with translating():
            model = EXTRACTORS[public.model].translate(public.args, public.encoder, weights or {})
    except ConfigError as error:
        return {}, problems + _lines(error)
    speaker = model.get("speaker")
    if speaker is not None and public.args.get("spk_feat", False):
        bins = speaker["filterbank"]["num_mel_bins"]
        problems += _unequal_bins(bins, public.filterbank)
        speaker["filterbank"] = {**public.filterbank, "num_mel_bins": bins}
    return model, problems


def _translate_extractor(public: PublicConfig, weights: Mapping[str, Tensor]) -> Translation:
    architecture = EXTRACTORS[public.model]
    model, problems = translate_extraction_model(public, weights)
    if not model:
        return Translation({}, {}, {}, problems)
    try:
        network = build_within(lambda: build_network(model, initialise=False), weights, MAX_SIZE_RATIO)
    except ConfigError as error:
        return Translation({}, {}, {}, problems + _lines(error))
    renamed, unmapped = _rename_all(lambda tensors: architecture.rename(tensors, public.args, public.encoder), weights)
    return Translation(network.config, network.state_dict(), renamed, problems + unmapped)


def _translate_encoder(public: PublicConfig, weights: Mapping[str, Tensor]) -> Translation:
    problems = list(public.problems)
    try:
        with translating():
            bins = num_mel_bins(public.args)
            config = translate_network(public.model, public.args, public.block)
        problems += _unequal_bins(bins, public.filterbank)
        network = build_within(
            lambda: speaker_networks.build(config, "network", num_mel_bins=bins), weights, MAX_SIZE_RATIO
        )
    except ConfigError as error:
        return Translation({}, {}, {}, problems + _lines(error))
    encoder = {
        "network": config,
        "sample_rate": public.sample_rate,
        "filterbank": {**public.filterbank, "num_mel_bins": bins},
    }
    renamed, unmapped = _rename_all(family_of(public.model).rename, without_classifier(weights))
    expected = {f"network.{name}": value for name, value in network.state_dict().items()}
    renamed = {f"network.{name}": value for name, value in renamed.items()}
    return Translation(encoder, expected, renamed, problems + unmapped)


def _rename_all(
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]], weights: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights under our names, and a line for each tensor that is missing or left over.

    Renaming stops at the first missing tensor. Then another one, whose name differs only in its numbers, takes its
    place, and renaming starts again, so that all missing tensors are found.
    """
    tensors, problems = dict(weights), []
    while True:
        try:
            return rename(tensors), problems
        except MissingTensorError as error:
            problems.append(f"missing: {error.name}")
            if len(problems) >= MAX_MISSING:
                return {}, [*problems, "and more"]
            pattern = re.sub(r"\d+", r"\\d+", re.escape(error.name))
            substitute = next((value for name, value in tensors.items() if re.fullmatch(pattern, name)), None)
            if substitute is None:
                return {}, problems
            tensors[error.name] = substitute
        except MisfitError as error:
            problems += [f"not used: {name}" for name in error.lines]
            tensors = {name: value for name, value in tensors.items() if name not in error.lines}
        except (CheckpointError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
            return {}, [*problems, f"weights: {shorten(error)}"]


def _lines(error: ConfigError) -> list[str]:
    return error.lines if isinstance(error, UntranslatableError) else [str(error)]


def _unequal_bins(network_bins: int, filterbank: Mapping[str, Any]) -> list[str]:
    """Return a line if the filterbank has another number of bins than the speaker network takes."""
    bins = filterbank.get("num_mel_bins", network_bins)
    if bins == network_bins:
        return []
    return [f"dataset_args.fbank_args.num_mel_bins: is {bins}, but the speaker network takes {network_bins} (feat_dim)"]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
