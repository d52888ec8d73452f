"""Models as the Hugging Face ecosystem handles them: load one from its repository, save a loaded one, upload it.

`PretrainedModel` is the base class of `Extractor`; the functions below it do the work.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wesep_py import checkpoint
from wesep_py.checkpoint import CARD, CHECKPOINT_KIND, CONFIG, PROVENANCE, WEIGHTS
from wesep_py.common.errors import InputError, shorten
from wesep_py.common.files import refuse_inputs
from wesep_py.common.folders import atomic_folder
from wesep_py.inference.presence_decision.presence import PROVENANCE_KEY, UNCALIBRATED, Calibration
from wesep_py.models import find_model
from wesep_py.models.hub import HUB_CARD, PREFIX, HubModel, download, is_hub_name, parse_hub_name
from wesep_py.models.publishing import push

if TYPE_CHECKING:
    from typing_extensions import Self

    from wesep_py.network.extraction_network import TargetSpeakerExtractor


class PretrainedModel(ABC):
    """A loaded model that the functions of huggingface_hub's `ModelHubMixin` load, save and upload, under its names.

    Attributes:
        name: of the model, for messages.
        calibration: of its presence head.
        folder: checkpoint folder that it was loaded from; `None` if it was not loaded.
    """

    name: str
    calibration: Calibration
    folder: Path | None = None
    _whole: PretrainedModel | None = None
    """Of a live mode: the whole model."""

    @property
    @abstractmethod
    def network(self) -> TargetSpeakerExtractor:
        """The network."""

    @classmethod
    @abstractmethod
    def _load_folder(cls, folder: Path, device: str, **options: Any) -> Self:
        """Load a checkpoint folder."""

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        device: str = "auto",
        **options: Any,
    ) -> Self:
        """Load a model from the Hugging Face Hub, or from a folder; the names are those of huggingface_hub.

        Args:
            model: `ORG/NAME`, a checkpoint or experiment folder, or the name of a bundled model.
            revision: a branch, a tag or a commit of the repository; by default `main`.
            token: for private and restricted repositories; by default `HF_TOKEN`, or that of `hf auth login`.
            cache_dir: folder of the cache; by default that of huggingface_hub.
            force_download: download files again that are in the cache.
            local_files_only: use the cache without asking the server.
            device, options: as `load`.

        Raises:
            InputError, CheckpointError, WesepError: as `load` and `models.hub.download`.

        >>> from wesep_py import Extractor
        >>> Extractor.from_pretrained("base", device="cpu").sample_rate
        16000
        """
        name, folder = find_pretrained(model, revision, token, cache_dir, force_download, local_files_only)
        extractor = cls._load_folder(folder, device, **options)
        extractor.name = name
        return extractor

    def save_pretrained(self, folder: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write the model as a checkpoint folder, which `load` and `from_pretrained` take, and return it.

        A model that was loaded and not changed since is copied: it keeps its hash, so voice prints stay valid.

        Args:
            folder: new, empty, or with `overwrite` an existing checkpoint.
            overwrite: replace an existing checkpoint.

        Raises:
            InputError: the folder holds other files.
            OutputExistsError: it is a checkpoint, and `overwrite` is false.
        """
        whole = self._whole or self
        return save_model(whole.network, folder, whole.folder, whole.calibration, overwrite)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        private: bool = False,
        token: str | None = None,
        branch: str | None = None,
        licence: str | None = None,
    ) -> str:
        """Upload the model to the Hugging Face Hub, as `wesep models push` does, and return the page of the commit.

        Args:
            repo_id: `ORG/NAME`; the repository is created if there is none.
            commit_message: by default it holds the model's hash.
            private: create a private repository.
            token: with the right to write; by default `HF_TOKEN`, or that of `hf auth login`.
            branch: by default `main`.
            licence: of the weights, such as `cc-by-4.0`; needed if the provenance has none.

        Raises:
            InputError, CheckpointError, WesepError: as `models.publishing.push`.
        """
        whole = self._whole or self
        return push_model(
            whole.network, whole.folder, whole.calibration, repo_id, private=private, revision=branch,
            message=commit_message, licence=licence, token=token,
        )  # fmt: skip


def find_pretrained(
    model: str | os.PathLike[str],
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    force: bool = False,
    only_cached: bool = False,
) -> tuple[str, Path]:
    """Return name and folder of a model: an existing folder, a bundled model, or a repository, which is downloaded.

    Args:
        model: a path, a name, `ORG/NAME` or `hf:ORG/NAME[@REVISION]`.
        revision, token, cache_dir, force, only_cached: as `models.hub.download`.

    Raises:
        InputError: a revision of something that is not on the Hub, or two revisions.
        CheckpointError, WesepError: as `models.find_model` and `models.hub.download`.
    """
    if not isinstance(model, (str, os.PathLike)):
        raise InputError(f"the model is {type(model).__name__}; ORG/NAME, a folder or a name is needed")
    text = os.fspath(model)
    on_hub = is_hub_name(text) or ("/" in text and not Path(text).exists() and not Path(text).is_absolute())
    if not on_hub:
        if revision is not None:
            raise InputError(
                f"revision: is {shorten(revision, 60)}, but {shorten(text)} is not on the Hub; leave it out"
            )
        return find_model(model)
    hub_model = parse_hub_name(text if is_hub_name(text) else PREFIX + text)
    if revision is not None:
        if hub_model.revision not in (None, revision):
            raise InputError(
                f"revision: is {shorten(revision, 60)}, but {hub_model} names another one; give one of both"
            )
        hub_model = parse_hub_name(str(HubModel(hub_model.repository, revision)))
    return str(hub_model), download(hub_model, token=token, cache_dir=cache_dir, force=force, only_cached=only_cached)


def save_model(
    network: TargetSpeakerExtractor,
    folder: str | os.PathLike[str],
    source: Path | None = None,
    calibration: Calibration = UNCALIBRATED,
    overwrite: bool = False,
) -> Path:
    """Write a network as a checkpoint folder; copy the checkpoint that it was loaded from if it has not changed.

    Args:
        network: the whole model, in no live mode.
        folder: new, empty, or with `overwrite` an existing checkpoint.
        source: the checkpoint folder that the network was loaded from, if there is one.
        calibration: of the presence head.
        overwrite: replace an existing checkpoint.

    Raises:
        InputError: the folder holds other files, or is `source`.
        OutputExistsError: it is a checkpoint, and `overwrite` is false.
    """
    folder = checkpoint.check_checkpoint_folder(folder, overwrite)
    provenance: dict[str, Any] = {"made_by": "Extractor.save_pretrained"}
    if source is not None:
        refuse_inputs([folder], [(source, "the checkpoint that was loaded")])
        saved = checkpoint.load(source)
        if _is_unchanged(network, saved):
            return _copy(source, folder)
        provenance = {**saved.provenance, **provenance, "changed_from": saved.hash}
        provenance.pop("bundle", None)  # its figures are those of the other weights
    if calibration != UNCALIBRATED:
        known = provenance.get(PROVENANCE_KEY)
        provenance[PROVENANCE_KEY] = {**(known if isinstance(known, dict) else {}), **asdict(calibration)}
    return checkpoint.save(folder, network.config, network.state_dict(), provenance)


def push_model(
    network: TargetSpeakerExtractor, source: Path | None, calibration: Calibration, repository: str, **options: Any
) -> str:
    """Upload a network, and return the page of the commit; arguments as `save_model` and `models.publishing.push`."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / repository.rpartition("/")[2]
        return push(save_model(network, folder, source, calibration), repository, **options).url


def _is_unchanged(network: TargetSpeakerExtractor, saved: checkpoint.Checkpoint) -> bool:
    """True if a network computes with the weights of a checkpoint, which may be stored in half precision."""
    import torch

    weights = network.state_dict()
    return weights.keys() == saved.state_dict.keys() and all(
        torch.equal(value.detach().cpu(), saved.state_dict[name].to(value.dtype)) for name, value in weights.items()
    )


def _copy(source: Path, folder: Path) -> Path:
    card = next((source / name for name in (CARD, HUB_CARD) if (source / name).is_file()), None)
    with atomic_folder(folder, CHECKPOINT_KIND) as partial:
        for name in (WEIGHTS, CONFIG, PROVENANCE):
            shutil.copyfile(source / name, partial / name)
        if card is not None:
            shutil.copyfile(card, partial / CARD)
    return folder
