"""Readers of the lists and shards of WeSep and ESPnet: a value, or one line that names the file."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tests.damaged_files import damaged_bytes, damaged_object, hundred, value_or_line
from tests.interop.public_configs import ESPNET, WESEP
from wesep_py.common.errors import WesepError
from wesep_py.data import read_mixtures, read_trials
from wesep_py.data.mixture_shards import MixtureShards
from wesep_py.data.recipe_lists import read_raw_utterances, read_shard_list, read_spk2enroll
from wesep_py.interop.espnet_training import translate_espnet_training
from wesep_py.interop.public_checkpoints import translating
from wesep_py.interop.wesep_training import translate_wesep_training

FOLDER = {
    "wav.scp": b"a-0_b-0 mix_both/m0.wav s1/m0.wav s2/m0.wav\na-1_b-1 mix_both/m1.wav s1/m1.wav s2/m1.wav\n",
    "utt2spk": b"a-0_b-0 a b\na-1_b-1 a b\n",
    "single.wav.scp": b"s1/m0.wav s1/m0.wav\ns2/m1.wav s2/m1.wav\n",
    "spk1.enroll": b"a-0_b-0 s1/m0.wav\na-1_b-1 s1/m0.wav\n",
    "spk2.enroll": b"a-0_b-0 s2/m1.wav\na-1_b-1 s2/m1.wav\n",
}
MIXTURE = {"key": "m", "spk": ["a", "b"], "mix": {"default": ["m.wav"]}, "src": {"a": ["1.wav"], "b": ["2.wav"]}}


@hundred
@given(name=st.sampled_from(sorted(FOLDER)), data=st.data())
def test_data_folders_give_a_value_or_one_line(tmp_path: Path, name: str, data: st.DataObject):
    for other, content in FOLDER.items():
        (tmp_path / other).write_bytes(data.draw(damaged_bytes(content)) if other == name else content)
    value_or_line(lambda: read_trials(tmp_path, tmp_path, check_files=False), tmp_path / name)


@hundred
@given(mixture=damaged_object(MIXTURE))
def test_raw_lists_give_a_value_or_one_line(tmp_path: Path, mixture: dict):
    path = tmp_path / "raw.list"
    path.write_text(json.dumps(mixture))
    value_or_line(lambda: read_mixtures(path), path)
    value_or_line(lambda: read_raw_utterances(path, on_skip=lambda *_: None), path)


@hundred
@given(content=damaged_bytes(b'{"a": [["a-1", "a-1.wav"], ["a-2", "a-2.wav"]], "b": [["b-1", "b-1.wav"]]}'))
def test_spk2enroll_gives_a_value_or_one_line(tmp_path: Path, content: bytes):
    (tmp_path / "spk2enroll.json").write_bytes(content)
    value_or_line(
        lambda: read_spk2enroll(tmp_path / "spk2enroll.json", on_skip=lambda *_: None), tmp_path / "spk2enroll.json"
    )


@hundred
@given(content=damaged_bytes(b"data/shards/shards_000000000.tar\ndata/shards/shards_000000001.tar\n"))
def test_shard_lists_give_a_value_or_one_line(tmp_path: Path, content: bytes):
    (tmp_path / "shard.list").write_bytes(content)
    value_or_line(lambda: read_shard_list(tmp_path / "shard.list"), tmp_path / "shard.list")


def shard() -> bytes:
    audio, content = io.BytesIO(), io.BytesIO()
    soundfile.write(audio, np.full(80, 0.1), 16000, format="WAV", subtype="PCM_16")
    files = {"m.spk1": b"a", "m.spk2": b"b", **dict.fromkeys(("m.wav", "m_spk1.wav", "m_spk2.wav"), audio.getvalue())}
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


@hundred
@given(content=damaged_bytes(shard()))
def test_shards_of_mixtures_give_a_value_or_one_line(tmp_path: Path, content: bytes):
    path = tmp_path / "s.tar"
    path.write_bytes(content)
    store = value_or_line(lambda: MixtureShards([str(path)], path), path)
    for utterance in store.utterances() if store else []:
        value_or_line(lambda name=utterance.utterance_id: store.data(name), path)


@pytest.mark.parametrize("name", ["librimix/v2/spexplus", "voxceleb1/v2/bsrnn_online", "espnet"])
@hundred
@given(data=st.data())
def test_configurations_give_a_value_or_one_line(name: str, data: st.DataObject):
    content = next(iter(ESPNET.values())) if name == "espnet" else WESEP[name]
    damaged = data.draw(damaged_object(content))
    try:
        with translating():
            if name == "espnet":
                translate_espnet_training(damaged, sample_rate=16000).as_yaml("x")
            else:
                translate_wesep_training(damaged).as_yaml("x")
    except WesepError as error:
        assert "\n" not in str(error)
