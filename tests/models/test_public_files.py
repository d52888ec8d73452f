"""Published checkpoints: no file names the machine that it was made on, and the model stays the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from wesep_py import checkpoint
from wesep_py.common.config import dump_yaml
from wesep_py.common.errors import CheckpointError, InputError
from wesep_py.models import MODELS_FOLDER
from wesep_py.models.public_files import licence_id, licence_of, public_checkpoint, public_provenance, shorten_paths


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/alice/data/train.csv", "data/train.csv"),
        ("/home/alice/my data/train list.csv", "my data/train list.csv"),
        ("../other/train.csv", "other/train.csv"),
        ("~/data/train.csv", "data/train.csv"),
        ("see /home/alice/data/a.csv, and ~/b/c.csv.", "see data/a.csv, and b/c.csv."),
        ("(`/mnt/disk/exp/run1/`)", "(`exp/run1`)"),
        (r"from C:\Users\alice\a.wav", "from alice/a.wav"),
        ("file:///home/alice/a.wav", "alice/a.wav"),
        ("https://www.openslr.org/12/a/b and s3://bucket/a/b", "https://www.openslr.org/12/a/b and s3://bucket/a/b"),
        ("dev_2mix/clean, 3/4, and/or, SI-SDRi / dB", "dev_2mix/clean, 3/4, and/or, SI-SDRi / dB"),
        ("speech/train.csv", "speech/train.csv"),
        ("", ""),
    ],
)
def test_local_paths_become_their_last_two_parts(text: str, expected: str):
    assert shorten_paths(text) == expected
    assert shorten_paths({text: [text, 1, None]}) == {expected: [expected, 1, None]}


def test_a_provenance_loses_what_describes_one_machine():
    provenance = {
        "made_by": "wesep train",
        "command": ["wesep", "train", "/home/alice/a.yaml"],
        "git": {"commit": "0c14", "branch": "secret", "changed": ["a.py"], "changed_count": 1},
        "went_on_from": [{"hash": "12", "command": ["wesep"], "host": "alices-laptop"}],
        "training": {"data": {"train": ["/home/alice/speech/train.csv"]}},
        "data": {"/home/alice/speech/train.csv": "681f"},
    }
    assert public_provenance(provenance) == {
        "made_by": "wesep train",
        "git": {"commit": "0c14", "changed_count": 1},
        "went_on_from": [{"hash": "12"}],
        "training": {"data": {"train": ["speech/train.csv"]}},
        "data": {"speech/train.csv": "681f"},
    }


def test_the_bundled_model_is_published_as_it_is():
    folder = MODELS_FOLDER / "base"
    public = public_checkpoint(folder)
    assert public.provenance == checkpoint.read_provenance(folder)
    assert public.card == (folder / "card.md").read_text(encoding="utf-8")
    assert public.licence == "CC BY 4.0" and public.changed_from is None


@pytest.mark.parametrize(
    ("provenance", "expected"),
    [
        ({}, None),
        ({"licence": "MIT"}, "MIT"),
        ({"bundle": {"licence": "CC BY 4.0"}}, "CC BY 4.0"),
        ({"installed": {"licence": "cc-by-4.0", "source": "x"}}, "cc-by-4.0"),
        ({"bundle": {"licence": None}, "licence": 3}, None),
    ],
)
def test_the_licence_is_found_where_commands_write_it(provenance: dict, expected: str | None):
    assert licence_of(provenance) == expected


def test_licences_in_the_form_of_the_hub():
    names = ["CC BY 4.0", "cc-by-nc-sa-4.0", "CC0 1.0", "Apache-2.0", "MIT", "My own terms, v2"]
    expected = ["cc-by-4.0", "cc-by-nc-sa-4.0", "cc0-1.0", "apache-2.0", "mit", "my-own-terms-v2"]
    assert [licence_id(name) for name in names] == expected


def test_a_licence_may_be_given_but_not_changed(tiny_model: Path):
    assert public_checkpoint(tiny_model, "mit").provenance["licence"] == "mit"
    assert "licence" not in checkpoint.read_provenance(tiny_model), "the folder itself stays"
    public_checkpoint(MODELS_FOLDER / "base", "cc-by-4.0")
    with pytest.raises(InputError, match=r"^--licence: is mit; the model's provenance says CC BY 4\.0: leave it out$"):
        public_checkpoint(MODELS_FOLDER / "base", "mit")


def save(folder: Path, config: dict, **options) -> Path:
    return checkpoint.save(folder, config, {"a": torch.ones(2)}, **options)


def test_the_file_that_an_encoder_came_from_is_taken_out_of_the_configuration(tmp_path: Path):
    speaker = {"network": {"name": "ecapa_tdnn"}, "mode": "frozen", "checkpoint": "/home/alice/exp/ecapa"}
    folder = save(tmp_path / "model", {"backbone": {"name": "bsrnn"}, "speaker": speaker})
    before = checkpoint.load(folder)
    public = public_checkpoint(folder)
    expected = {"backbone": {"name": "bsrnn"}, "speaker": {"network": {"name": "ecapa_tdnn"}}}
    assert public.config == expected and public.config_text == dump_yaml(expected)
    assert public.changed_from == before.hash == public.provenance["published_from"]
    assert public.hash == checkpoint.fingerprint(public.weights, public.config_text) != before.hash
    assert before.hash not in public.card.split("published_from")[0], "the card names the published model"
    speaker["checkpoint"] = "dvector"  # the name of a model, no path
    public = public_checkpoint(save(tmp_path / "named", {"backbone": {"name": "bsrnn"}, "speaker": speaker}))
    assert public.config["speaker"] == speaker and public.changed_from is None


def test_a_local_path_elsewhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    front_end = {"backbone": {"name": "bsrnn"}, "speaker": {"self_supervised": {"model": "/home/alice/wavlm"}}}
    with pytest.raises(InputError, match=r"^config\.yaml: names a local path \(/home/alice/wavlm\), which is not publ"):
        public_checkpoint(save(tmp_path / "model", front_end))
    monkeypatch.setenv("HOME", "/alice")  # one part, so no path to shorten
    folder = save(tmp_path / "other", {"backbone": {"name": "bsrnn"}}, card="trained in `/alice/`\n")
    with pytest.raises(InputError, match=r"^card\.md: names a local path \(/alice\)"):
        public_checkpoint(folder)


def test_metadata_of_the_weights_is_checked(tmp_path: Path):
    from safetensors.torch import save as serialise

    folder = save(tmp_path / "model", {"backbone": {"name": "bsrnn"}})
    weights = serialise({"a": torch.ones(2)}, metadata={"source": "/home/alice/model.pt"})
    (folder / checkpoint.WEIGHTS).write_bytes(weights)
    provenance = checkpoint.read_provenance(folder)
    provenance["hash"] = checkpoint.fingerprint(weights, (folder / checkpoint.CONFIG).read_text(encoding="utf-8"))
    (folder / checkpoint.PROVENANCE).write_text(json.dumps(provenance), encoding="utf-8")
    with pytest.raises(InputError, match=r"^model\.safetensors: names a local path \(/home/alice/model\.pt\)"):
        public_checkpoint(folder)


def test_the_card_may_have_the_name_that_the_hub_gives_it(tmp_path: Path):
    folder = save(tmp_path / "model", {"backbone": {"name": "bsrnn"}}, card="# Mine, in /home/alice/exp\n")
    (folder / "card.md").rename(folder / "README.md")
    assert public_checkpoint(folder).card == "# Mine, in alice/exp\n"
    (folder / "README.md").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"README\.md: cannot be read"):
        public_checkpoint(folder)
    (folder / "README.md").unlink()
    assert public_checkpoint(folder).card.startswith("# model\n")
