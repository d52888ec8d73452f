"""Models on the Hugging Face Hub: `hf:ORG/NAME` as a model, downloaded into the Hub's own cache.

`download` fetches the four files of a checkpoint and nothing else; before that, the list of files says whether the
repository is a model of this package. Without a connection, or with `HF_HUB_OFFLINE=1`, the copy in the cache is used.
`HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and the proxy variables have the meaning that huggingface_hub gives them.

`hub_calls` turns every error of huggingface_hub into one line, without any token. `models.publishing` uploads.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wesep_py.checkpoint import CARD, CONFIG, PROVENANCE, WEIGHTS
from wesep_py.common.errors import CheckpointError, InputError, WesepError, shorten

PREFIX = "hf:"
"""Beginning of a model's name that stands for a repository on the Hub."""
HUB_CARD = "README.md"
"""Name of the card in a repository on the Hub."""
REQUIRED_FILES = (WEIGHTS, CONFIG, PROVENANCE)
"""Files that make a repository a model of this package."""
ALLOWED_FILES = (*REQUIRED_FILES, CARD, HUB_CARD)
"""Files that are downloaded."""
INSTALL_HINT = "pip install 'wesep-py[hub]'"

_REPOSITORY = r"[A-Za-z0-9](?:[\w.-]{0,95})/[A-Za-z0-9](?:[\w.-]{0,95})"
_REVISION = r"[\w./+-]{1,200}"
# `hf://ORG/NAME` is what huggingface_hub writes; as a path it becomes `hf:/ORG/NAME`.
_REFERENCE = re.compile(rf"hf:/{{0,2}}({_REPOSITORY})(?:@({_REVISION}))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}\b")


@dataclass(frozen=True)
class HubModel:
    """A repository on the Hub, at a revision.

    Attributes:
        repository: `ORG/NAME`.
        revision: a branch, a tag or a commit; `None` is the branch `main`.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return PREFIX + self.repository + (f"@{self.revision}" if self.revision else "")


def is_hub_name(model: str | os.PathLike[str]) -> bool:
    """True if a model's name stands for a repository on the Hub: it begins with `hf:`."""
    return os.fspath(model).startswith(PREFIX)


def parse_hub_name(model: str | os.PathLike[str]) -> HubModel:
    """Return the repository that a name stands for.

    Args:
        model: `hf:ORG/NAME` or `hf:ORG/NAME@REVISION`; `hf://ORG/NAME` is allowed, too.

    Raises:
        InputError: the name has another form.

    >>> parse_hub_name("hf:alice/bsrnn@v1.0")
    HubModel(repository='alice/bsrnn', revision='v1.0')
    """
    name = os.fspath(model).replace("\\", "/")
    match = _REFERENCE.fullmatch(name)
    if match is None or ".." in name or "--" in match[1]:
        raise InputError(
            f"{shorten(name)}: names no repository; write hf:ORG/NAME or hf:ORG/NAME@REVISION, with letters, digits, "
            "'-', '_' and '.'"
        )
    return HubModel(match[1], match[2])


def refuse_hub_name(model: str | os.PathLike[str], doing: str) -> None:
    """Raise `InputError` if a model that is to be changed is on the Hub: the cache holds what the Hub holds.

    Args:
        model: name or path.
        doing: what changes it, for the message: "calibrating".
    """
    if is_hub_name(model):
        raise InputError(
            f"{shorten(os.fspath(model))}: is on the Hub, and {doing} changes the model; save it as a folder first: "
            "wesep_py.load(…).save_pretrained(FOLDER)"
        )


def download(
    model: HubModel,
    *,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    force: bool = False,
    only_cached: bool = False,
) -> Path:
    """Return the folder of a checkpoint on the Hub, downloaded if the cache has no current copy of it.

    Args:
        model: the repository.
        token: for private and restricted repositories; by default `HF_TOKEN`, or the token of `hf auth login`.
        cache_dir: folder of the cache; by default that of huggingface_hub.
        force: download files again that are in the cache.
        only_cached: use the cache without asking the server.

    Raises:
        InputError: huggingface_hub is not installed.
        CheckpointError: there is no such repository or revision, access is restricted, or it is no model of this
            package.
        WesepError: there is no connection, and no copy in the cache.
    """
    options: dict[str, Any] = {
        "revision": model.revision,
        "cache_dir": cache_dir,
        "allow_patterns": list(ALLOWED_FILES),
        "endpoint": endpoint(),
        "token": token,
    }
    with hub_calls(str(model), token):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        if only_cached or _is_offline():
            folder = Path(snapshot_download(model.repository, local_files_only=True, **options))
        else:
            is_commit = model.revision is not None and _COMMIT.fullmatch(model.revision)
            if is_commit and not force:  # what a commit holds never changes
                try:
                    folder = Path(snapshot_download(model.repository, local_files_only=True, **options))
                    _require_files(model, {path.name for path in folder.iterdir()})
                    return folder
                except (LocalEntryNotFoundError, CheckpointError):
                    pass
            _check_repository(model, token)
            folder = Path(snapshot_download(model.repository, force_download=force, **options))
    _require_files(model, {path.name for path in folder.iterdir()})
    return folder


def _check_repository(model: HubModel, token: str | None) -> None:
    """Check by its list of files that a repository is a model of this package, before anything is downloaded.

    Without a connection nothing is checked: the download then takes the copy in the cache.
    """
    from huggingface_hub import HfApi

    try:
        info = HfApi(endpoint=endpoint(), token=token).model_info(model.repository, revision=model.revision)
    except Exception as error:
        if _is_connection_error(error):
            return
        raise
    _require_files(model, {sibling.rfilename for sibling in info.siblings or []}, info.library_name, info.pipeline_tag)


def _require_files(
    model: HubModel, names: Collection[str], library: str | None = None, task: str | None = None
) -> None:
    """Raise `CheckpointError` unless the files of a checkpoint are there; say what the repository is instead."""
    missing = [name for name in REQUIRED_FILES if name not in names]
    if not missing:
        return
    visible = sorted(name for name in names if not name.startswith("."))
    more = f" and {len(visible) - 5} more" if len(visible) > 5 else ""
    kind = f"a model of {library}" if library else "a repository"
    kind += f" for {task}" if task else ""
    holds = f"with {', '.join(visible[:5])}{more}" if visible else "without files"
    raise CheckpointError(
        f"{model}: is {shorten(f'{kind} {holds}')}; a model of wesep-py also has {', '.join(missing)}: name another "
        "repository, or convert its weights with `wesep import-checkpoint`"
    )


def endpoint() -> str | None:
    """Return `HF_ENDPOINT` as it is now; huggingface_hub keeps the value that it had at its import."""
    return (os.environ.get("HF_ENDPOINT") or "").rstrip("/") or None


def _is_offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


# Errors of huggingface_hub.


@contextmanager
def hub_calls(what: str, token: str | None = None, writes: bool = False) -> Iterator[None]:
    """Turn errors of huggingface_hub into one line, and keep its warnings and, without a terminal, its bars away.

    Args:
        what: the repository, for messages.
        token: the token of the calls, which no message may hold.
        writes: the calls write to the repository.

    Raises:
        InputError: huggingface_hub is not installed.
        CheckpointError: the repository cannot be read, for a reason that is the user's to change.
        WesepError: any other failure of a call.
    """
    try:
        from huggingface_hub.utils import (
            are_progress_bars_disabled,
            disable_progress_bars,
            enable_progress_bars,
        )
    except ImportError as error:
        raise InputError(
            f"{what}: models on the Hub need the package huggingface_hub, which is not installed; {INSTALL_HINT}"
        ) from error
    logger = logging.getLogger("huggingface_hub")
    level, bars = logger.level, not are_progress_bars_disabled() and not sys.stderr.isatty()
    logger.setLevel(logging.ERROR)
    if bars:
        disable_progress_bars()
    try:
        yield
    except WesepError:
        raise
    except Exception as error:
        explained = _explain(error, what, writes)
        text, clean = str(explained), without_tokens(str(explained), token)
        # A traceback (`--debug`) shows the cause, too.
        cause = error if text == clean and without_tokens(str(error), token) == str(error) else None
        raise type(explained)(clean) from cause
    finally:
        logger.setLevel(level)
        if bars:
            enable_progress_bars()


def without_tokens(text: str, token: str | None = None) -> str:
    """Return a text with every access token replaced by `hf_***`.

    >>> without_tokens("refused: Bearer hf_abcdefghijklmnop")
    'refused: Bearer hf_***'
    """
    secrets = [token, os.environ.get("HF_TOKEN"), os.environ.get("HUGGING_FACE_HUB_TOKEN")]
    with suppress(ImportError, OSError, UnicodeDecodeError):  # without a token of `hf auth login`
        from huggingface_hub.constants import HF_TOKEN_PATH

        secrets.append(Path(HF_TOKEN_PATH).read_text(encoding="utf-8"))
    for secret in secrets:
        if secret and secret.strip():
            text = text.replace(secret.strip(), "hf_***")
    return _TOKEN.sub("hf_***", text)


def _explain(error: Exception, what: str, writes: bool) -> WesepError:
    """Return an error of one line for an error of huggingface_hub, or of the libraries below it."""
    from huggingface_hub import errors

    server = endpoint() or "huggingface.co"
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else None
    status = _status_of(error) or (_status_of(cause) if cause is not None else None)
    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(
            f"{what}: access is restricted; accept its conditions on its page at {server}, then {log_in}"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return CheckpointError(f"{what}: no such repository at {server}, or it is private; check the name, or {log_in}")
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointError(
            f"{what}: has no such revision; name a branch, a tag or a commit, or leave out @REVISION"
        )
    if status in (401, 403):
        may = "write to" if writes else "read"
        return WesepError(f"{what}: {server} does not let this account {may} it (status {status}); {log_in}")
    if status is not None:
        return WesepError(f"{what}: {server} answered with status {status}{_server_message(error)}; try again later")
    if isinstance(error, errors.OfflineModeIsEnabled) or (writes and _is_offline()):
        return WesepError(f"{what}: HF_HUB_OFFLINE is set, so nothing is sent; unset it")
    if isinstance(error, errors.LocalEntryNotFoundError):
        if cause is None or isinstance(cause, errors.OfflineModeIsEnabled):
            reason = "HF_HUB_OFFLINE is set" if _is_offline() else "only the cache was asked"
            return WesepError(f"{what}: is not in the cache, and {reason}; load it once with a connection")
        return WesepError(
            f"{what}: no connection to {server} ({_root(cause)}), and no complete copy in the cache; check the "
            "network, the proxy or HF_ENDPOINT, and try again"
        )
    if writes and "xet-write-token" in str(error):
        return WesepError(
            f"{what}: {server} does not take files by Xet ({_root(error)}); if it has no Xet storage, set "
            "HF_HUB_DISABLE_XET=1"
        )
    if _is_connection_error(error):
        return WesepError(
            f"{what}: no connection to {server} ({_root(error)}); check the network, the proxy or HF_ENDPOINT, and try "
            "again"
        )
    if isinstance(error, errors.LocalTokenNotFoundError):
        return WesepError(f"{what}: needs a token; {log_in}")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return WesepError(f"{what}: the disk of the cache is full; make room, or set HF_HOME to another folder")
    if isinstance(error, OSError) and error.strerror:
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        return WesepError(f"{what}: the cache cannot be used ({place}{error.strerror}); set HF_HOME to another folder")
    return WesepError(f"{what}: huggingface_hub failed ({_root(error)})")


def _status_of(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) and status >= 400 else None


def _server_message(error: Exception) -> str:
    message = getattr(error, "server_message", None)
    return f" ({shorten(message)})" if message else ""


def _is_connection_error(error: BaseException) -> bool:
    """True for errors of a connection, whichever HTTP library the version of huggingface_hub uses."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled) or _status_of(error) is not None:
        return False
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, (ConnectionError, TimeoutError)) or library in ("httpx", "httpx2", "requests", "urllib3")


def _root(error: BaseException) -> str:
    """Return class and message of an error in one line of moderate length."""
    return shorten(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
