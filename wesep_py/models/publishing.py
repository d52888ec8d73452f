"""Upload a checkpoint to the Hugging Face Hub, with a card that the Hub can read.

The repository gets four files in one commit: `model.safetensors`, `config.yaml`, `provenance.json`, and the card as
`README.md`, which begins with the metadata of the Hub: licence, task, tags, results. `models.public_files` takes out
what describes the user's machine.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wesep_py.checkpoint import CONFIG, PROVENANCE, WEIGHTS
from wesep_py.common.errors import InputError
from wesep_py.models.hub import HUB_CARD, PREFIX, HubModel, endpoint, hub_calls, parse_hub_name
from wesep_py.models.public_files import PublicCheckpoint, licence_id, public_checkpoint

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, HfApi

LIBRARY = "wesep-py"
"""Value of `library_name` on the Hub."""
EXTRACTOR_TASK, ENCODER_TASK = "audio-to-audio", "feature-extraction"
"""Values of `pipeline_tag`: of an extraction network, and of a speaker encoder."""
EXTRACTOR_TAGS = ("target-speaker-extraction", "speech-separation", "speech-enhancement", "speech")
ENCODER_TAGS = ("speaker-verification", "speaker-embedding", "speech")
_LICENCES = """
    apache-2.0 mit openrail bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear isc zlib wtfpl unlicense ms-pl
    artistic-2.0 mpl-2.0 osl-3.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 ecl-2.0 afl-3.0 bsl-1.0 postgresql ncsa odbl
    odc-by pddl cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0
    cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
    cc-by-nc-sa-4.0 gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 lgpl-lr agpl-3.0 gfdl cdla-sharing-1.0
    cdla-permissive-1.0 cdla-permissive-2.0
"""
HUB_LICENCES = frozenset(_LICENCES.split())
"""Identifiers of licences that the Hub knows (https://huggingface.co/docs/hub/repositories-licenses); another one is
published as `license: other` with its name."""

# The sentences that `recipes/default/bundle_card.py: headline` writes.
_RESULT = re.compile(r"(-?\d+(?:\.\d+)?) dB SI-SDRi(?: and (\d+(?:\.\d+)?) % accuracy)? on ([\w./-]+)")


@dataclass(frozen=True)
class Published:
    """A checkpoint that was uploaded.

    Attributes:
        model: its name for `--model` and `load`.
        url: page of the commit.
        commit: of the repository.
        hash: of weights and configuration.
        licence: identifier on the Hub.
        private: only its owners can read the repository.
        changed_from: hash of the checkpoint, if the published configuration differs from its own; else `None`.
    """

    model: str
    url: str
    commit: str
    hash: str
    licence: str
    private: bool
    changed_from: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return asdict(self)


def push(
    folder: str | os.PathLike[str],
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    licence: str | None = None,
    token: str | None = None,
) -> Published:
    """Upload a checkpoint to the Hub in one commit; create the repository, and the branch, if necessary.

    Args:
        folder: a checkpoint folder.
        repository: `ORG/NAME`.
        private: create a private repository; an existing one must be private.
        revision: branch to write to; by default `main`.
        message: of the commit.
        licence: of the weights, as an identifier of the Hub such as `cc-by-4.0`; needed if the provenance has none.
        token: with the right to write; by default `HF_TOKEN`, or the token of `hf auth login`.

    Raises:
        InputError: no such repository name; there is no licence, or a contradicting one; a local path is left in a
            file; huggingface_hub is not installed.
        CheckpointError: the checkpoint is incomplete or damaged.
        WesepError: the server refuses, or there is no connection.
    """
    folder = Path(folder)
    target = parse_hub_name(repository if repository.startswith(PREFIX) else PREFIX + repository)
    if target.revision is not None:
        raise InputError(f"{repository}: names a revision; write ORG/NAME, and --revision for a branch")
    if message is not None and not message.strip():
        raise InputError("--message: is empty; write a message, or leave it out")
    public = public_checkpoint(folder, licence)
    if public.licence is None or licence_id(public.licence) in ("", "unknown", "none", "other"):
        raise InputError(
            f"{folder}: its provenance states no licence of the weights; pass one, such as --licence cc-by-4.0"
        )
    with hub_calls(str(target), token, writes=True):
        from huggingface_hub import HfApi

        files = hub_files(public, target.repository)
        api = HfApi(endpoint=endpoint(), token=token, library_name=LIBRARY)
        is_private = _make_repository(api, target, private)
        if revision is not None and revision != "main":
            api.create_branch(target.repository, branch=revision, exist_ok=True)
        commit = _commit(api, target.repository, files, message or f"Upload {public.hash[:12]}", revision)
    return Published(
        model=str(HubModel(target.repository, None if revision in (None, "main") else revision)),
        url=str(commit.commit_url),
        commit=str(commit.oid),
        hash=public.hash,
        licence=licence_id(public.licence),
        private=is_private,
        changed_from=public.changed_from,
    )


def _make_repository(api: HfApi, target: HubModel, private: bool) -> bool:
    """Create the repository if there is none, and return whether it is private."""
    api.create_repo(target.repository, private=private or None, exist_ok=True)
    is_private = bool(api.model_info(target.repository).private)
    if private and not is_private:
        raise InputError(
            f"{target}: exists and is public; nothing was uploaded: change its visibility on its page, or leave out "
            "--private"
        )
    return is_private


def _commit(api: HfApi, repository: str, files: Mapping[str, bytes], message: str, revision: str | None) -> Any:
    from huggingface_hub import CommitOperationAdd

    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    return api.create_commit(repository, operations, commit_message=message, revision=revision)


def hub_files(public: PublicCheckpoint, repository: str) -> dict[str, bytes]:
    """Return the files of a repository by name.

    Args:
        public: a checkpoint with a licence.
        repository: `ORG/NAME`.
    """
    provenance = json.dumps(public.provenance, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return {
        WEIGHTS: public.weights,
        CONFIG: public.config_text.encode("utf-8"),
        PROVENANCE: provenance.encode("utf-8", errors="backslashreplace"),
        HUB_CARD: hub_card(public, repository).encode("utf-8", errors="backslashreplace"),
    }


def hub_card(public: PublicCheckpoint, repository: str) -> str:
    """Return the card with the metadata of the Hub in front, and with the command that uses the model.

    Metadata that the card has already (of a model that came from the Hub) is kept where this package sets nothing.
    """
    from huggingface_hub import ModelCard, ModelCardData

    card = ModelCard(public.card, ignore_metadata_errors=True)
    is_encoder = "network" in public.config and "backbone" not in public.config
    licence = licence_id(public.licence or "")
    known = licence in HUB_LICENCES
    earlier = {key: value for key, value in card.data.to_dict().items() if key not in ("model-index", "license_name")}
    tags = [*(ENCODER_TAGS if is_encoder else EXTRACTOR_TAGS), *earlier.pop("tags", [])]
    results = _results(public.provenance)
    values: dict[str, Any] = {
        **earlier,
        "license": licence if known else "other",
        **({} if known else {"license_name": licence}),
        "library_name": LIBRARY,
        "pipeline_tag": ENCODER_TASK if is_encoder else EXTRACTOR_TASK,
        "tags": list(dict.fromkeys(tags)),
        **({"model_name": repository.partition("/")[2], "eval_results": results} if results else {}),
    }
    metadata = ModelCardData(**values).to_yaml(line_break="\n")
    body = card.text.strip("\n")
    if f"hf:{repository}" not in body:
        body += f"\n\n## Use\n\n{_usage(repository, is_encoder)}"
    return f"---\n{metadata}\n---\n\n{body.rstrip()}\n"


def _usage(repository: str, is_encoder: bool) -> str:
    install = "pip install 'wesep-py[hub]'"
    if is_encoder:
        code = f'from wesep_py.models import find_model\n\n_, folder = find_model("hf:{repository}")'
        return f"```sh\n{install}\n```\n\n```python\n{code}\n```"
    command = f"wesep extract meeting.wav --enroll alice.wav -o alice_only.wav --model hf:{repository}"
    return f"```sh\n{install}\n{command}\n```"


def _results(provenance: Mapping[str, Any]) -> list[EvalResult]:
    """Return the results in the provenance of a bundle (`bundle.figures`) in the Hub's form."""
    from huggingface_hub import EvalResult

    about = provenance.get("bundle")
    figures = about.get("figures") if isinstance(about, Mapping) else None
    results = []
    for match in _RESULT.finditer(figures) if isinstance(figures, str) else ():
        name = match[3].rstrip(".")
        place = {
            "task_type": EXTRACTOR_TASK,
            "task_name": "Target speaker extraction",
            "dataset_type": name.partition("/")[0],
            "dataset_name": name,
        }
        results.append(
            EvalResult(**place, metric_type="si-sdri", metric_name="SI-SDRi, dB", metric_value=float(match[1]))
        )
        if match[2] is not None:
            share = {"metric_type": "accuracy", "metric_name": "SI-SDRi above 1 dB, % of trials"}
            results.append(EvalResult(**place, **share, metric_value=float(match[2])))
    return results
