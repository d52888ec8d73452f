"""`hf:ORG/NAME` is downloaded from a stand-in for the Hub, works without a connection, and fails in one line."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

import wesep_py
from tests.models.hub_server import TOKEN, HubServer
from wesep_py import checkpoint, models
from wesep_py.common.errors import CheckpointError, InputError, WesepError
from wesep_py.models import hub as hub_module
from wesep_py.models.hub import ALLOWED_FILES, HubModel, download, parse_hub_name, without_tokens


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the files of a checkpoint as a repository has them, and others that nobody asked for."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files["README.md"] = files.pop("card.md")
    return {**files, ".gitattributes": b"", "training.pt": b"1" * 1000, "samples/a.wav": b"2" * 1000}


@pytest.fixture
def published(hub: HubServer, tiny_model: Path) -> HubServer:
    """The stand-in with the tiny model as `alice/tiny`."""
    hub.add("alice/tiny", files_of(tiny_model))
    return hub


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf:alice/tiny", HubModel("alice/tiny")),
        ("hf:alice/tiny@v1.0", HubModel("alice/tiny", "v1.0")),
        ("hf:alice/tiny@refs/pr/1", HubModel("alice/tiny", "refs/pr/1")),
        ("hf://alice/tiny", HubModel("alice/tiny")),
        (Path("hf://alice/tiny"), HubModel("alice/tiny")),
    ],
)
def test_names_of_repositories(name: str, expected: HubModel):
    assert parse_hub_name(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "hf:",
        "hf:alice",
        "hf:alice/",
        "hf:/tiny",
        "hf:a/b/c",
        "hf:a/b@",
        "hf:../b",
        "hf:a/..",
        "hf:a/b@../c",
        "hf:a/b c",
    ],
)
def test_other_names_are_refused(name: str):
    with pytest.raises(InputError, match="names no repository; write hf:ORG/NAME"):
        models.find_model(name)


def test_a_model_is_downloaded_by_its_name(published: HubServer, tiny_model: Path, tmp_path: Path):
    extractor = wesep_py.load("hf:alice/tiny", device="cpu")
    assert (extractor.name, extractor.model_hash) == ("hf:alice/tiny", checkpoint.load(tiny_model).hash)
    _, folder = models.find_model("hf:alice/tiny")
    assert folder.is_relative_to(tmp_path / "cache")
    assert {path.name for path in folder.iterdir()} == set(ALLOWED_FILES) - {"card.md"}
    asked = {call.rpartition("/")[2] for call in published.calls if "/resolve/" in call}
    assert asked <= set(ALLOWED_FILES), "nothing else is downloaded"


def test_wherever_a_checkpoint_is_read_the_name_works(published: HubServer, tiny_model: Path):
    assert checkpoint.load("hf:alice/tiny").hash == checkpoint.load(tiny_model).hash
    assert checkpoint.load(Path("hf:alice/tiny")).hash == checkpoint.load(tiny_model).hash


def test_an_existing_path_has_priority(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hf:alice" / "tiny").mkdir(parents=True)
    assert models.find_model("hf:alice/tiny") == ("hf:alice/tiny", Path("hf:alice/tiny"))
    assert not hub.calls


def test_a_second_load_downloads_nothing_and_a_new_commit_only_what_changed(published: HubServer):
    models.find_model("hf:alice/tiny")
    del published.calls[:]
    models.find_model("hf:alice/tiny")
    assert published.calls and not [call for call in published.calls if "/resolve/" in call]
    published.add("alice/tiny", {"README.md": b"# New"})
    _, folder = models.find_model("hf:alice/tiny")
    assert (folder / "README.md").read_bytes() == b"# New"
    fetched = [call for call in published.calls if call.startswith("GET") and "/resolve/" in call]
    assert len(fetched) == 1 and fetched[0].endswith("README.md")


def test_a_revision_is_a_branch_or_a_commit(published: HubServer, tiny_model: Path):
    repository = published.repositories["alice/tiny"]
    first = repository.branches["main"]
    published.add("alice/tiny", {**files_of(tiny_model), "README.md": b"# On a branch"}, branch="v2")
    _, folder = models.find_model("hf:alice/tiny@v2")
    assert (folder / "README.md").read_bytes() == b"# On a branch"
    name, folder = models.find_model(f"hf:alice/tiny@{first}")
    assert name == f"hf:alice/tiny@{first}" and (folder / "README.md").read_bytes() != b"# On a branch"
    del published.calls[:]
    models.find_model(f"hf:alice/tiny@{first}")
    assert not published.calls, "a commit never changes, so nobody is asked"
    with pytest.raises(CheckpointError, match=r"hf:alice/tiny@v3: has no such revision; name a branch"):
        models.find_model("hf:alice/tiny@v3")


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "HF_ENDPOINT"])
def test_without_a_connection_the_copy_in_the_cache_is_used(
    published: HubServer, monkeypatch: pytest.MonkeyPatch, variable: str
):
    _, folder = models.find_model("hf:alice/tiny")
    del published.calls[:]
    monkeypatch.setenv(variable, {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": f"http://127.0.0.1:{closed_port()}"}[variable])
    assert models.find_model("hf:alice/tiny") == ("hf:alice/tiny", folder)
    assert not published.calls
    with pytest.raises(WesepError) as caught:
        models.find_model("hf:alice/other")
    words = {"HF_HUB_OFFLINE": "is not in the cache, and HF_HUB_OFFLINE is set", "HF_ENDPOINT": "no connection to http"}
    assert words[variable] in str(caught.value) and "\n" not in str(caught.value)


def test_an_interrupted_download_is_no_copy(published: HubServer, monkeypatch: pytest.MonkeyPatch):
    _, folder = models.find_model("hf:alice/tiny")
    (folder / "model.safetensors").unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WesepError, match="hf:alice/tiny: is not in the cache"):
        models.find_model("hf:alice/tiny")


def test_the_cache_alone_can_be_asked(published: HubServer):
    with pytest.raises(WesepError, match="is not in the cache, and only the cache was asked"):
        download(HubModel("alice/tiny"), only_cached=True)
    folder = download(HubModel("alice/tiny"))
    del published.calls[:]
    assert download(HubModel("alice/tiny"), only_cached=True) == folder
    assert not published.calls


def test_a_repository_of_another_library_is_refused_before_it_is_downloaded(hub: HubServer):
    card = b"---\nlibrary_name: espnet\npipeline_tag: audio-to-audio\n---\n# TD-SpeakerBeam\n"
    hub.add("espnet/tse", {"README.md": card, "config.yaml": b"a: 1", "model.safetensors": b"0" * 10**6})
    with pytest.raises(CheckpointError) as caught:
        models.find_model("hf:espnet/tse")
    assert str(caught.value) == (
        "hf:espnet/tse: is a model of espnet for audio-to-audio with README.md, config.yaml, model.safetensors; a "
        "model of wesep-py also has provenance.json: name another repository, or convert its weights with "
        "`wesep import-checkpoint`"
    )
    assert not [call for call in hub.calls if "/resolve/" in call]
    hub.add("espnet/empty", {})
    with pytest.raises(CheckpointError, match="is a repository without files; a model of wesep-py also has model"):
        models.find_model("hf:espnet/empty")


def test_a_missing_repository_and_a_private_one_look_alike(published: HubServer, monkeypatch: pytest.MonkeyPatch):
    published.repositories["alice/tiny"].private = True
    for name in ("alice/tiny", "alice/tinny"):
        with pytest.raises(
            CheckpointError, match=rf"^hf:{name}: no such repository at http.*, or it is private; .*HF_TOKEN$"
        ):
            models.find_model(f"hf:{name}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    models.find_model("hf:alice/tiny")


def test_a_gated_repository_says_what_to_do(published: HubServer):
    published.repositories["alice/tiny"].gated = True
    with pytest.raises(CheckpointError, match=r"access is restricted; accept its conditions on its page at http"):
        models.find_model("hf:alice/tiny")
    assert download(HubModel("alice/tiny"), token=TOKEN).is_dir()


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, "does not let this account read it (status 401); log in"), (429, "answered with status 429"),
     (500, "answered with status 500"), (503, "answered with status 503")],
)  # fmt: skip
def test_failures_of_the_server_are_one_line_without_the_token(
    published: HubServer, monkeypatch: pytest.MonkeyPatch, status: int, expected: str
):
    published.failure = (status, "Invalid credentials in Authorization header {token}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(WesepError) as caught:
        models.find_model("hf:alice/tiny")
    message = str(caught.value)
    assert expected in message and "\n" not in message and TOKEN not in message
    assert caught.value.__cause__ is None or TOKEN not in str(caught.value.__cause__)


def test_no_text_holds_a_token(monkeypatch: pytest.MonkeyPatch, hub: HubServer, tmp_path: Path):
    monkeypatch.setenv("HF_TOKEN", "plain-token-of-a-company")
    (tmp_path / "token").write_text("another-token\n")
    text = "sent plain-token-of-a-company, another-token, given-token, hf_AAAABBBBCCCC"
    assert without_tokens(text, "given-token") == "sent hf_***, hf_***, hf_***, hf_***"


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", None)
    with pytest.raises(
        InputError, match=r"need the package huggingface_hub, which is not installed; pip install 'wesep-py\[hub\]'"
    ):
        models.find_model("hf:alice/tiny")


def test_a_damaged_copy_is_refused(published: HubServer, tiny_model: Path):
    published.add("alice/tiny", {"config.yaml": b"sample_rate: 8000\n"})
    with pytest.raises(CheckpointError, match="their hash differs"):
        wesep_py.load("hf:alice/tiny")


def test_the_settings_of_huggingface_hub_are_left_as_they_are(published: HubServer):
    import logging

    from huggingface_hub.utils import are_progress_bars_disabled

    before = logging.getLogger("huggingface_hub").level, are_progress_bars_disabled()
    models.find_model("hf:alice/tiny")
    assert (logging.getLogger("huggingface_hub").level, are_progress_bars_disabled()) == before


def test_a_calibration_is_not_written_into_the_cache(published: HubServer):
    from wesep_py.evaluation.calibration import calibrate_model
    from wesep_py.inference.presence_decision.presence import Calibration, save_calibration

    for change in (
        lambda: save_calibration("hf:alice/tiny", Calibration()),
        lambda: calibrate_model("hf:alice/tiny", []),
    ):
        with pytest.raises(InputError, match=r"is on the Hub, and calibrating changes the model; save it as a folder"):
            change()


def test_a_command_takes_the_name_in_a_process_of_its_own(published: HubServer, tmp_path: Path, tiny_speech: Path):
    """Here huggingface_hub reads all its variables from the environment, as for users."""
    recordings = sorted((tiny_speech / "anna").iterdir())
    runs = []
    for name in ("tiny", "gone"):
        command = [sys.executable, "-m", "wesep_py.cli.main", "extract", str(recordings[0]), "--force"]
        command += ["--enroll", str(recordings[1]), "-o", str(tmp_path / f"{name}.wav"), "--model", f"hf:alice/{name}"]
        runs.append(subprocess.run(command, capture_output=True, text=True, check=False))
    assert runs[0].returncode == 0 and (tmp_path / "tiny.wav").is_file(), runs[0].stderr
    assert "Fetching" not in runs[0].stderr, "no bars where there is no terminal"
    assert runs[1].returncode == 2 and len(runs[1].stderr.splitlines()) == 1
    assert runs[1].stderr.startswith("wesep extract: hf:alice/gone: no such repository at http://127.0.0.1")


def test_the_module_is_not_imported_for_other_models(tiny_model: Path):
    code = (
        f"import sys, wesep_py.models as m; m.find_model({str(tiny_model)!r}); print('huggingface_hub' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert hub_module.INSTALL_HINT
