"""`wesep models pull` and `verify`: install a public model in the store, and check models that are there.

entry of the registry ─► files (download, or --from) ─► SHA-256 as pinned and as recorded
                      ─► converter ─► checkpoint folder in the store, with card and provenance
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from wesep_py import __version__, checkpoint
from wesep_py.common.errors import CheckpointError, InputError, OutputExistsError, WesepError
from wesep_py.common.files import write_json
from wesep_py.common.folders import one_run_in
from wesep_py.interop.converters import check_converter, convert
from wesep_py.interop.importing import ImportedCheckpoint
from wesep_py.models.downloading import DownloadSettings, Progress, check_free_space, sha256_of
from wesep_py.models.model_sources import ChangedFileError, fetch, files_from, named_files
from wesep_py.models.model_store import (
    INSTALLED_KEY,
    check_model_name,
    installed_model,
    models_folder,
    store_folder,
)
from wesep_py.models.public_models import LICENCE_UNKNOWN, ModelSource, PublicModel
from wesep_py.models.saved_model import SavedModel


@dataclass(frozen=True)
class PulledModel:
    """A model that was installed.

    Attributes:
        name: its name.
        folder: its checkpoint folder in the store.
        kind: `extractor` or `speaker encoder`.
        parameters: number of values in its weights.
        notes: what the user should know, a line for each.
    """

    name: str
    folder: Path
    kind: str
    parameters: int
    notes: list[str]


def pull_model(
    model: PublicModel,
    from_path: Path | None = None,
    accept_licence: bool = False,
    accept_changed: bool = False,
    overwrite: bool = False,
    on_progress: Progress = lambda name, done, total: None,
    settings: DownloadSettings | None = None,
) -> PulledModel:
    """Install a public model in the store.

    Args:
        model: the entry of the registry.
        from_path: a folder, an archive or the weights that were downloaded by hand; nothing is downloaded then.
        accept_licence: the user decided to use a model whose source states no licence.
        accept_changed: take files that differ from those of the first download, and record them instead.
        overwrite: replace the installed model.
        on_progress: called with the file's name, the received bytes and all bytes.
        settings: how patiently to download.

    Raises:
        OutputExistsError: it is installed, and `overwrite` is false.
        InputError: no licence is stated, and `accept_licence` is false; a file is missing, damaged, changed, or cannot
            be converted.
        WesepError: a download failed, another process installs the same model, or the disk is full.
    """
    name = check_model_name(model.name)
    check_converter(model)
    if model.licence is None and not accept_licence:
        raise InputError(
            f"{name}: its source states no licence ({model.sources[0].location}), so nobody has allowed you to use it; "
            "if you have decided to, pass --accept-licence, which is recorded with the model"
        )
    work = store_folder() / "downloads" / name
    try:
        work.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WesepError(
            f"{work.parent}: cannot be created ({error.strerror or error}); name another folder by WESEP_HOME"
        ) from error
    with one_run_in(work, f"installing {name}"):
        if installed_model(name) is not None and not overwrite:
            raise OutputExistsError(
                f"{name}: is installed already in {models_folder() / name}; `wesep models verify {name}` checks it, "
                "and --overwrite installs it again"
            )
        downloads = work / "files"
        downloads.mkdir(exist_ok=True)
        source: ModelSource | None = None
        if from_path is not None:
            files = files_from(from_path, model, downloads)
        else:
            if model.size_bytes is not None and not any(downloads.iterdir()):
                check_free_space(downloads, model.size_bytes, name)
            files, source = fetch(model, downloads, on_progress, settings)
        digests = {role: sha256_of(file) for role, file in files.items()}
        names = named_files(files, source)
        _check_recorded(model, names, digests, accept_changed)
        try:
            pulled = _install(model, files, names, digests, source, from_path)
        except InputError:  # another attempt would fail in the same way
            shutil.rmtree(downloads, ignore_errors=True)
            raise
        shutil.rmtree(downloads, ignore_errors=True)
        return pulled


def verify_model(model: SavedModel) -> None:
    """Check that the files of a bundled or installed model are unchanged, and that its network can be built.

    Raises:
        CheckpointError: a file is missing, damaged or altered, or the weights do not fit the configuration.
    """
    from wesep_py.network.extraction_network import load_network
    from wesep_py.network.speaker import is_encoder, load_encoder

    saved = checkpoint.load(model.folder)
    about = saved.provenance.get(INSTALLED_KEY)
    if isinstance(about, dict):
        expected = about.get("card_sha256")
        card = model.folder / checkpoint.CARD
        if not card.is_file() or sha256_of(card) != expected:
            raise CheckpointError(f"{card}: is not the card that was installed; {model.repair}")
        recorded = _recorded(model.name)
        for role, file in (about.get("files") or {}).items():
            if role in recorded and file.get("sha256") != recorded[role].get("sha256"):
                raise CheckpointError(
                    f"{model.folder}: was made of another {file.get('name')} than the one that is recorded in "
                    f"{_checksums_file(model.name)}; {model.repair}"
                )
    _ = load_encoder(model.folder) if is_encoder(saved.config) else load_network(model.folder)


def _install(
    model: PublicModel,
    files: Mapping[str, Path],
    names: Mapping[str, str],
    digests: Mapping[str, str],
    source: ModelSource | None,
    from_path: Path | None,
) -> PulledModel:
    """Convert the files, and write the checkpoint folder."""
    imported = convert(files, model)
    notes = []
    rate = imported.config.get("sample_rate")
    if rate != model.sample_rate:
        notes.append(f"its sample rate is {rate} Hz; the registry says {model.sample_rate} Hz")
    location = source.location if source else "a file that the user gave"
    facts = {
        "name": model.name,
        "kind": model.kind,
        "task": model.task,
        "licence": model.licence,
        "licence_note": model.licence_note,
        "licence_accepted_by_user": model.licence is None,
        "figures": model.figures,
        "published": asdict(model.published) if model.published else None,
        "citation": model.citation,
        "source": location,
        "public_source": model.sources[0].location,
        "conversion": model.conversion,
        "loaded": model.loaded,
        "certain": dict(model.certain),
        "note": model.note,
        "files": {
            role: {"name": names[role], "sha256": digests[role], "size_bytes": file.stat().st_size}
            for role, file in files.items()
        },
        "installed": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "installed_by": f"wesep-py {__version__}",
    }
    card = model_card(model, imported, facts)
    folder = models_folder() / model.name
    size = sum(value.numel() * value.element_size() for value in imported.state_dict.values())
    folder.parent.mkdir(parents=True, exist_ok=True)
    check_free_space(folder.parent, size, model.name)
    provenance = {**imported.provenance, INSTALLED_KEY: {**facts, "card_sha256": _text_digest(card)}}
    checkpoint.save(folder, imported.config, imported.state_dict, provenance, card)
    count = sum(value.numel() for value in imported.state_dict.values() if value.is_floating_point())
    return PulledModel(model.name, folder, imported.kind, count, notes)


def model_card(model: PublicModel, imported: ImportedCheckpoint, facts: Mapping[str, Any]) -> str:
    """Return the card of an installed model: source, licence, citation and published result."""
    use = f"`wesep extract --model {model.name}`, `wesep_py.load({model.name!r})`"
    if model.kind == "speaker encoder":
        use = (
            f"`speaker: {{checkpoint: {model.name}, mode: frozen}}` in a configuration, `--speaker-model {model.name}`"
        )
    licence = model.licence or f"{LICENCE_UNKNOWN} by the source; the person who installed it decided to use it"
    rows = [
        ("task", model.task),
        ("kind", model.kind),
        ("sample rate", f"{imported.config.get('sample_rate')} Hz"),
        ("licence of the weights", f"{licence}{f' ({model.licence_note})' if model.licence_note else ''}"),
        ("source", str(facts["public_source"])),
        ("citation", model.citation or "none given"),
        ("use", use),
    ]
    if model.published:
        where = model.published.source
        rows.insert(3, ("published result", f"{model.figures} ({where}); not measured here"))
    lines = [f"| {key} | {_cell(value)} |" for key, value in rows]
    files = [f"- `{file['name']}`, SHA-256 `{file['sha256']}`" for file in facts["files"].values()]
    how = {
        "for real": "The published weights were loaded by the makers of this package before it was released.",
        "fixtures only": "The makers of this package have loaded files of the same layout, but never these weights.",
        "never": "The makers of this package have never loaded a file of this layout.",
    }[model.loaded]
    note = f"{model.note}\n\n" if model.note else ""
    text = f"# {model.name}\n\nA public model, converted by wesep-py; nothing was trained here. {how}\n\n{note}"
    return text + "| | |\n| --- | --- |\n" + "\n".join(lines) + "\n\nMade of:\n\n" + "\n".join(files) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _text_digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode("utf-8", errors="backslashreplace")).hexdigest()


# The digests that were recorded at the first download.


def _checksums_file(name: str) -> Path:
    return store_folder() / "checksums" / f"{name}.json"


def _recorded(name: str) -> dict[str, Any]:
    """Return the recorded digests of a model's files, by role; empty before the first download."""
    path = _checksums_file(name)
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is damaged ({error}); delete it to record the checksums anew") from error
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise InputError(f"{path}: is damaged; delete it to record the checksums anew")
    return content


def _check_recorded(
    model: PublicModel, names: Mapping[str, str], digests: Mapping[str, str], accept_changed: bool
) -> None:
    """Compare digests with those of the first download, and record new ones.

    Raises:
        ChangedFileError: one differs, and `accept_changed` is false.
    """
    recorded = _recorded(model.name)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    for role, digest in digests.items():
        before = recorded.get(role)
        if before is not None and before.get("sha256") != digest and not accept_changed:
            raise ChangedFileError(
                f"{model.name}: {names[role]} is not the file of the first download ({before.get('recorded')}): its "
                f"SHA-256 is {digest}, not {before.get('sha256')}; if you expect the change, pass --accept-changed"
            )
        if before is None or before.get("sha256") != digest:
            recorded[role] = {"name": names[role], "sha256": digest, "recorded": now}
    path = _checksums_file(model.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, recorded)
