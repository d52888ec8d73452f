"""The converter of the registry for ESPnet's models."""

from __future__ import annotations

import pytest
import torch

from tests.interop.espnet_reference import espnet_config, espnet_weights
from wesep_py.common.config import dump_yaml
from wesep_py.interop.converters import convert
from wesep_py.interop.importing import UnmappedError
from wesep_py.models.public_models import public_models


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write the files of a model whose configuration does not say its sample rate."""
    monkeypatch.setenv("WESEP_HOME", str(tmp_path / "home"))
    config = {key: value for key, value in espnet_config().items() if key != "fs"}
    torch.save(espnet_weights(config), tmp_path / "99epoch.pth")
    (tmp_path / "config.yaml").write_text(dump_yaml(config))
    return {"weights": tmp_path / "99epoch.pth", "config": tmp_path / "config.yaml"}


@pytest.mark.parametrize(
    ("name", "rate"), [("espnet-td-speakerbeam-librimix", 16000), ("espnet-td-speakerbeam-wsj0", 8000)]
)
def test_the_registry_gives_the_sample_rate(files, name, rate):
    imported = convert(files, public_models()[name])
    assert imported.config["sample_rate"] == rate and imported.kind == "extractor"
    assert imported.provenance["imported_from"]["toolkit"] == "ESPnet"


def test_a_configuration_of_another_sample_rate_is_refused(files):
    with files["config"].open("a") as file:
        file.write("sample_rate: 48000\n")
    with pytest.raises(UnmappedError, match="16000 Hz is asked for, but the configuration is of a model at 48000 Hz"):
        convert(files, public_models()["espnet-td-speakerbeam-librimix"])
