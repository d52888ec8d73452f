"""`wesep models push` uploads to a stand-in for the Hub; what comes back is the same model."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import wesep_py
from tests.models.hub_server import TOKEN, HubServer, sha
from wesep_py import checkpoint
from wesep_py.common.errors import InputError, WesepError
from wesep_py.models import MODELS_FOLDER
from wesep_py.models.public_files import public_checkpoint
from wesep_py.models.publishing import HUB_LICENCES, hub_card, push


@pytest.fixture
def logged_in(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The stand-in, and a token that may write."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def metadata_of(card: bytes | str) -> dict:
    """Return the metadata in front of a card."""
    text = card if isinstance(card, str) else card.decode()
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n\n", text, re.DOTALL)[1])


def test_a_pushed_model_comes_back_the_same(logged_in: HubServer, wesep):
    ran = wesep("models", "push", "base", "alice/base")
    assert ran.status == 0, ran.err
    assert ran.out.splitlines()[0].startswith(f"{logged_in.url}/alice/base/commit/")
    assert ran.out.splitlines()[0].endswith(": public, licence cc-by-4.0")
    assert ran.out.splitlines()[-1] == "use it with --model hf:alice/base"
    theirs, ours = wesep_py.load("hf:alice/base", device="cpu"), wesep_py.load(device="cpu")
    assert theirs.model_hash == ours.model_hash and theirs.calibration == ours.calibration
    rng = np.random.default_rng(0)
    mixture, enrollment = rng.standard_normal((2, 16000), np.float32) / 10
    voice = ours.enroll((enrollment, 16000))
    estimates = [extractor.extract((mixture, 16000), voice).waveform for extractor in (ours, theirs)]
    np.testing.assert_array_equal(*estimates)


def test_the_calls_and_the_files_of_a_first_push(logged_in: HubServer):
    published = push(MODELS_FOLDER / "base", "alice/base", message="First")
    assert set(logged_in.files("alice/base")) == {
        ".gitattributes", "README.md", "config.yaml", "model.safetensors", "provenance.json",
    }  # fmt: skip
    assert logged_in.repositories["alice/base"].messages[-1] == "First"
    assert published.hash == checkpoint.load(MODELS_FOLDER / "base").hash and not published.private
    assert published.commit == logged_in.repositories["alice/base"].branches["main"]
    oid = sha((MODELS_FOLDER / "base" / "model.safetensors").read_bytes())
    assert [call for call in logged_in.calls if not call.startswith("GET")] == [
        "POST /api/repos/create",
        "POST /api/validate-yaml",
        "POST /api/models/alice/base/preupload/main",
        "POST /alice/base.git/info/lfs/objects/batch",
        f"PUT /lfs/{oid}",
        "POST /lfs/verify",
        "POST /api/models/alice/base/commit/main",
    ]


def test_a_second_push_uploads_what_changed(logged_in: HubServer, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(MODELS_FOLDER / "base", folder)
    first = push(folder, "alice/base")
    del logged_in.calls[:]
    assert push(folder, "alice/base").commit == first.commit, "nothing changed, so there is no commit"
    (folder / "card.md").write_text("# Another card\n", encoding="utf-8")
    assert push(folder, "alice/base").commit != first.commit
    assert b"# Another card" in logged_in.files("alice/base")["README.md"]
    assert not [call for call in logged_in.calls if call.startswith("PUT")]


def test_a_branch_is_created_and_loaded_by_its_name(logged_in: HubServer, tiny_model: Path, wesep):
    push(MODELS_FOLDER / "base", "alice/model")
    arguments = ["models", "push", tiny_model, "alice/model", "--revision", "tiny", "--licence", "MIT", "--json"]
    ran = wesep(*arguments)
    assert ran.status == 0, ran.err
    published = json.loads(ran.out)
    assert published["model"] == "hf:alice/model@tiny" and published["licence"] == "mit"
    assert wesep(*arguments).status == 0, "the branch may exist"
    assert checkpoint.load("hf:alice/model@tiny").hash == checkpoint.load(tiny_model).hash
    assert checkpoint.load("hf:alice/model").hash == checkpoint.load(MODELS_FOLDER / "base").hash


def test_private_repositories(logged_in: HubServer, tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    assert push(tiny_model, "alice/secret", private=True, licence="mit").private
    assert push(tiny_model, "alice/secret", licence="mit").private, "it stays private"
    push(tiny_model, "alice/open", licence="mit")
    before = logged_in.repositories["alice/open"].branches["main"]
    with pytest.raises(InputError, match=r"^hf:alice/open: exists and is public; nothing was uploaded: change its vis"):
        push(MODELS_FOLDER / "base", "alice/open", private=True)
    assert logged_in.repositories["alice/open"].branches["main"] == before
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(WesepError, match="or it is private"):
        checkpoint.load("hf:alice/secret")


def test_without_a_licence_nothing_is_sent(logged_in: HubServer, tiny_model: Path, wesep):
    ran = wesep("models", "push", tiny_model, "alice/tiny")
    assert ran.status == 2 and "states no licence of the weights; pass one, such as --licence cc-by-4.0" in ran.message
    assert not logged_in.calls


@pytest.mark.parametrize(
    ("repository", "message"),
    [("tiny", "names no repository"), ("a/b/c", "names no repository"), ("a/b@v1", "names a revision; write ORG/NAME")],
)
def test_repositories_have_an_owner(logged_in: HubServer, repository: str, message: str):
    with pytest.raises(InputError, match=message):
        push(MODELS_FOLDER / "base", repository)
    assert not logged_in.calls


def test_nothing_of_this_machine_is_uploaded(logged_in: HubServer, tiny_model: Path, tmp_path: Path):
    saved = checkpoint.load(tiny_model)
    provenance = {"command": ["wesep", "train", "/home/alice/secret/a.yaml"], "data": {"/home/alice/secret/b.csv": "1"}}
    folder = checkpoint.save(tmp_path / "exp", saved.config, saved.state_dict, provenance)
    assert "/home/alice" in (folder / "card.md").read_text(encoding="utf-8")
    published = push(folder, "alice/tiny", licence="mit")
    for name, content in logged_in.files("alice/tiny").items():
        assert b"/home/" not in content and str(tmp_path).encode() not in content, name
    assert published.hash == saved.hash and published.changed_from is None
    card = logged_in.files("alice/tiny")["README.md"].decode()
    assert card.endswith("--model hf:alice/tiny\n```\n")


@pytest.mark.parametrize(
    ("token", "repository", "expected"),
    [
        (None, "alice/tiny", "does not let this account write to it (status 401); log in with `hf auth login`"),
        ("hf_wrongTokenWrongToken", "alice/tiny", "does not let this account write to it (status 401)"),
        (TOKEN, "others/tiny", "does not let this account write to it (status 403)"),
    ],
)
def test_missing_rights_are_one_line_without_the_token(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, token: str | None, repository: str, expected: str, wesep
):
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    ran = wesep("models", "push", "base", repository)
    assert ran.status == 1 and expected in ran.message
    assert token is None or token not in ran.err
    assert not hub.objects


def test_a_server_that_repeats_the_token_is_not_quoted(logged_in: HubServer, wesep):
    logged_in.failure = (500, "cannot handle {token}")
    ran = wesep("models", "push", "base", "alice/tiny", "--debug")
    assert ran.status == 1 and "answered with status 500 (cannot handle hf_***)" in ran.err
    assert TOKEN not in ran.err and TOKEN in logged_in.tokens_seen


def test_the_token_of_an_argument_is_used(hub: HubServer, tiny_model: Path):
    push(tiny_model, "alice/tiny", licence="mit", token=TOKEN)
    assert hub.tokens_seen == {TOKEN, None}, "the address of a large file's upload needs none"


def test_without_a_connection_or_offline_a_push_is_one_line(logged_in: HubServer, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WesepError, match=r"^hf:alice/b: no connection to http://127\.0\.0\.1:9 \(ConnectError"):
        push(MODELS_FOLDER / "base", "alice/b")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WesepError, match="HF_HUB_OFFLINE is set, so nothing is sent; unset it"):
        push(MODELS_FOLDER / "base", "alice/b")


def test_a_server_without_xet_storage_is_one_line(logged_in: HubServer, monkeypatch: pytest.MonkeyPatch, wesep):
    pytest.importorskip("hf_xet")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    ran = wesep("models", "push", "base", "alice/base")
    assert ran.status == 1 and "does not take files by Xet" in ran.message and "HF_HUB_DISABLE_XET=1" in ran.message
    assert TOKEN not in ran.err


# The card.


def test_the_metadata_of_a_card():
    pytest.importorskip("huggingface_hub")
    metadata = metadata_of(hub_card(public_checkpoint(MODELS_FOLDER / "base"), "alice/bsrnn"))
    results = metadata.pop("model-index")
    assert metadata == {
        "license": "cc-by-4.0",
        "library_name": "wesep-py",
        "pipeline_tag": "audio-to-audio",
        "tags": ["target-speaker-extraction", "speech-separation", "speech-enhancement", "speech"],
    }
    assert results[0]["name"] == "bsrnn"
    figures = checkpoint.read_provenance(MODELS_FOLDER / "base")["bundle"]["figures"]
    for result in results[0]["results"]:
        values = {metric["type"]: metric["value"] for metric in result["metrics"]}
        sentence = (
            f"{values['si-sdri']} dB SI-SDRi and {values['accuracy']:.0f} % accuracy on {result['dataset']['name']}"
        )
        assert sentence in figures
    assert len(results[0]["results"]) == figures.count("SI-SDRi")


def test_other_licences_and_speaker_encoders(tmp_path: Path):
    pytest.importorskip("huggingface_hub")
    import torch

    config = {"network": {"name": "ecapa_tdnn"}, "sample_rate": 16000}
    card = "---\nlicense: mit\ntags: [mine]\nlanguage: en\n---\n# Encoder\n"
    folder = checkpoint.save(tmp_path / "encoder", config, {"a": torch.ones(1)}, card=card)
    text = hub_card(public_checkpoint(folder, "My own terms"), "alice/ecapa")
    assert metadata_of(text) == {
        "language": "en",
        "license": "other",
        "license_name": "my-own-terms",
        "library_name": "wesep-py",
        "pipeline_tag": "feature-extraction",
        "tags": ["speaker-verification", "speaker-embedding", "speech", "mine"],
    }
    assert text.count("---\n") == 2 and "# Encoder" in text and "license: mit" not in text
    again = checkpoint.save(tmp_path / "again", config, {"a": torch.ones(1)}, card=text)
    assert hub_card(public_checkpoint(again, "My own terms"), "alice/ecapa") == text, "a card that came from the Hub"


def test_identifiers_of_licences_are_in_their_own_form():
    from wesep_py.models.public_files import licence_id

    assert {licence_id(name) for name in HUB_LICENCES} == HUB_LICENCES
