"""The page of a small random network, built and served once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import soundfile

from tests.conftest import SAMPLE_RATE, VOICES, make_voice
from tests.export.exportable_networks import BAND_ATTENTION, BSRNN, HEAD, TF_MAP, random_network
from tests.web.page_server import build_page, missing, serve
from wesep_py.export import export
from wesep_py.inference import Extractor
from wesep_py.inference.presence_decision.presence import Calibration

LIVE = {"backbone": {**BSRNN, "live": True, "norm": "frame"}, "cues": [TF_MAP, BAND_ATTENTION]}
NETWORKS = {
    "base": {**LIVE, "presence": HEAD, "live_presence": HEAD, "level": "learned"},
    "plain": {"backbone": BSRNN, "cues": [TF_MAP]},  # no presence head, another rule of the level, no stream
}
CALIBRATION = Calibration(1.5, 0.6, 0.2, 1.1, 0.4, 0.3)


@pytest.fixture(scope="session")
def exported_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`exported_model("base")`: folder of a small random network."""
    folders: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in folders:
            extractor = Extractor(random_network(NETWORKS[name]), "cpu", name, calibration=CALIBRATION)
            folder = tmp_path_factory.mktemp("exported") / name
            folders[name] = export(extractor, folder, precision="fp16", stream=name == "base").folder
        return folders[name]

    return make


@pytest.fixture(scope="session")
def page_folder(exported_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built page of the model `base`."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    return build_page(exported_model("base"), tmp_path_factory.mktemp("page") / "dist")


@pytest.fixture(scope="session")
def address(page_folder: Path) -> Iterator[str]:
    """Address at which that page is served."""
    with serve(page_folder) as url:
        yield url


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `mixture.wav` of 6 s, of two voices, and `enrollment.wav` of 3 s, of the first."""
    folder = tmp_path_factory.mktemp("recordings")
    anna, bert = (make_voice(*VOICES[name], 6.0, seed=1) for name in ("anna", "bert"))
    soundfile.write(folder / "mixture.wav", (anna + bert) / 2, SAMPLE_RATE, subtype="PCM_16")
    enrollment = make_voice(*VOICES["anna"], 3.0, seed=2)
    soundfile.write(folder / "enrollment.wav", enrollment, SAMPLE_RATE, subtype="PCM_16")
    return folder
