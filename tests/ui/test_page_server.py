"""The page without a browser: what its handlers answer, limits, deletion, and two visitors at once."""

from __future__ import annotations

import re
import socket
import threading
import time
import urllib.error
import urllib.request
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.ui.conftest import Talk
from wesep_py import audio
from wesep_py.common.errors import InputError
from wesep_py.inference import load
from wesep_py.metrics import si_sdr

gradio_client = pytest.importorskip("gradio_client")
pytest.importorskip("gradio")
httpx = pytest.importorskip("httpx")

if TYPE_CHECKING:
    from wesep_py.ui import PageServer

OWN, MARKED = "a recording of it", "a segment of the mixture"
NO_MARK = {"start": 0.0, "end": 0.0}


class Visitor:
    """One open page, by gradio_client."""

    def __init__(self, server: PageServer) -> None:
        self.url = server.url
        self.client = gradio_client.Client(server.url, verbose=False)

    def use_mixture(self, path: Path) -> tuple[Any, str]:
        wave, status, *_ = self.client.predict(gradio_client.handle_file(path), api_name="/use_mixture")
        return wave, text_of(status)

    def add_voice(self, name: str, enrollment: Path | None, mark: Any = NO_MARK, chosen: Any = ()) -> tuple[list, str]:
        given = None if enrollment is None else gradio_client.handle_file(enrollment)
        source = MARKED if enrollment is None else OWN
        voices, *_, status = self.client.predict(name, source, given, mark, list(chosen), api_name="/add_voice")
        return voices, text_of(status)

    def extract(
        self, enrollment: Path | None = None, mark: Any = NO_MARK, chosen: Any = (), name: str = "Voice", **more: Any
    ) -> tuple[str, str]:
        """Return the text of the status, and the HTML of the results."""
        arguments = {"model": "base", "force": False, **more}
        source = MARKED if enrollment is None else OWN
        given = None if enrollment is None else gradio_client.handle_file(enrollment)
        status, results, *_ = self.client.predict(
            arguments["model"], list(chosen), name, source, given, mark, arguments["force"], api_name="/extract"
        )
        return text_of(status), results if isinstance(results, str) else ""

    def download(self, results: str, suffix: str) -> bytes:
        """Return the file of the download whose name ends with the suffix."""
        links = dict(re.findall(r'href="([^"]+)" download="([^"]+)"', results))
        (link,) = [link for link, name in links.items() if unescape(name).endswith(suffix)]
        with urllib.request.urlopen(self.url + unescape(link)) as answer:
            return answer.read()

    def waveform(self, results: str, suffix: str, folder: Path) -> np.ndarray:
        path = folder / "downloaded.wav"
        path.write_bytes(self.download(results, suffix))
        return audio.read(path)[0][0]


@pytest.fixture
def visitor(server: PageServer) -> Visitor:
    return Visitor(server)


def text_of(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def test_an_uploaded_mixture_is_extracted_as_by_the_library(visitor: Visitor, talk: Talk, tmp_path: Path):
    wave, status = visitor.use_mixture(talk.mixture)
    assert status == "anna_bert.wav: 0:04, 16000 Hz, mono"
    assert wave["value"].items() >= NO_MARK.items() and max(wave["props"]["recording"]["peaks"]) == 100
    status, results = visitor.extract(talk.enrollments["anna"], name="Anna")
    assert status == "" and "is there: probability 0.9" in text_of(results)
    voice = visitor.waveform(results, "anna_bert_Anna.wav", tmp_path)
    extractor = load(device="cpu")
    expected = extractor.extract(talk.mixture, extractor.enroll(talk.enrollments["anna"]))
    mixture = audio.read(talk.mixture)[0][0]
    np.testing.assert_allclose(voice, expected.waveform[0], atol=2**-15)
    assert si_sdr(voice, talk.references["anna"]) > si_sdr(mixture, talk.references["anna"]) + 6
    residual = visitor.waveform(results, "anna_bert_without_Anna.wav", tmp_path)
    np.testing.assert_array_equal(voice + residual, mixture)
    timeline = visitor.download(results, ".rttm").decode()
    assert timeline.startswith("SPEAKER anna_bert 1 ") and timeline.split()[7] == "Anna"
    for suffix in (".json", ".csv", ".srt"):
        assert b"Anna" in visitor.download(results, suffix)


def test_a_marked_segment_is_the_enrollment(visitor: Visitor, talk: Talk, tmp_path: Path):
    joined = np.concatenate([audio.read(talk.enrollments["anna"])[0], audio.read(talk.mixture)[0]], axis=1)
    path = tmp_path / "meeting.wav"
    audio.write(path, joined, 16000, "PCM_16")
    visitor.use_mixture(path)
    status, results = visitor.extract(mark={"start": 0.5, "end": 3.5})
    assert status == ""
    extractor = load(device="cpu")
    expected = extractor.extract(path, extractor.enroll(f"{path}@0.5-3.5")).waveform[0]
    np.testing.assert_allclose(visitor.waveform(results, "meeting_Voice.wav", tmp_path), expected, atol=2**-15)


def test_several_named_voices_are_extracted_together(visitor: Visitor, talk: Talk, tmp_path: Path):
    visitor.use_mixture(talk.mixture)
    group, status = visitor.add_voice("Anna", talk.enrollments["anna"])
    assert group["value"] == ["Anna"] and status == "Anna: anna.wav"
    group, _ = visitor.add_voice("Bert", talk.enrollments["bert"], chosen=["Anna"])
    assert group["value"] == ["Anna", "Bert"]
    status, results = visitor.extract(chosen=["Anna", "Bert"])
    mixture = audio.read(talk.mixture)[0][0]
    for name in ("Anna", "Bert"):
        voice = visitor.waveform(results, f"anna_bert_{name}.wav", tmp_path)
        reference = talk.references[name.lower()]
        assert si_sdr(voice, reference) > si_sdr(mixture, reference) + 6
    group, *_ = visitor.client.predict(["Bert"], api_name="/remove_voices")
    assert [choice[1] for choice in group["choices"]] == ["Bert"]
    status, results = visitor.extract(chosen=["Bert"])
    assert "anna_bert_Bert.wav" in results and "Anna" not in results


def test_an_absent_voice_is_said_to_be_absent(visitor: Visitor, talk: Talk, other_talk: Talk, tmp_path: Path):
    visitor.use_mixture(other_talk.enrollments["carl"])
    _, results = visitor.extract(talk.enrollments["anna"])
    assert "seems absent: probability 0.0" in text_of(results) and "silence was written" in results
    assert not visitor.waveform(results, "carl_Voice.wav", tmp_path).any()
    _, results = visitor.extract(talk.enrollments["anna"], force=True)
    assert "the estimate is kept as asked" in results
    assert visitor.waveform(results, "carl_Voice.wav", tmp_path).any()


def test_errors_are_one_line_without_folders(visitor: Visitor, talk: Talk, tmp_path: Path):
    assert visitor.extract(talk.enrollments["anna"])[0].startswith("no mixture is here; drop or record one")
    bad = tmp_path / "letter.wav"
    bad.write_text("Dear Alice")
    _, line = visitor.use_mixture(bad)
    assert line.startswith("letter.wav: ") and "/" not in line.split(" ")[0] and "Traceback" not in line
    visitor.use_mixture(talk.mixture)
    assert visitor.extract()[0] == "no voice was given; mark a segment in which it speaks alone"
    assert visitor.extract(mark={"start": 3, "end": 90})[0] == (
        "anna_bert.wav: 3 to 90 s were requested; it lasts 4.000 s"
    )
    silent = tmp_path / "silent.wav"
    audio.write(silent, np.zeros(16000, np.float32), 16000)
    line, _ = visitor.extract(silent)
    assert line == "silent.wav: is silent; an enrollment needs a recording of the voice"
    assert visitor.add_voice(" ", talk.enrollments["anna"])[1] == "the name has 0 characters; 1 to 60 are allowed"
    assert "no speaker encoder is installed" in text_of(visitor.client.predict("base", api_name="/suggest")[0])


def test_a_name_is_shown_as_text_and_stays_in_its_folder(visitor: Visitor, talk: Talk, server: PageServer):
    visitor.use_mixture(talk.mixture)
    status, results = visitor.extract(talk.enrollments["anna"], name="<b>../../a</b>")
    assert status == "" and "<b>" not in results and "&lt;b&gt;" in results
    outside = [p for p in server.folder.rglob("*a%2F*") if p.parent.name != "results"]
    assert not outside and visitor.download(results, "without_<b>..%2F..%2Fa<%2Fb>.wav")


def test_only_offered_models_can_be_chosen(server: PageServer, tmp_path: Path):
    with pytest.raises(InputError, match=r"is no model of this page; .*allowed: base"):
        server.models.load(str(tmp_path))


def test_two_visitors_at_once_get_their_own_voices(server: PageServer, talk: Talk, other_talk: Talk, tmp_path: Path):
    pairs = [(talk, "anna"), (other_talk, "carl"), (talk, "bert"), (other_talk, "dora")]
    waveforms: dict[str, np.ndarray] = {}
    visitors = {name: Visitor(server) for _, name in pairs}

    def visit(given: Talk, name: str) -> None:
        folder = tmp_path / name
        folder.mkdir()
        visitors[name].use_mixture(given.mixture)
        for _ in range(2):
            _, results = visitors[name].extract(given.enrollments[name])
            waveforms[name] = visitors[name].waveform(results, f"{given.mixture.stem}_Voice.wav", folder)

    threads = [threading.Thread(target=visit, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    extractor = load(device="cpu")
    for given, name in pairs:
        expected = extractor.extract(given.mixture, extractor.enroll(given.enrollments[name])).waveform[0]
        np.testing.assert_allclose(waveforms[name], expected, atol=2**-15)


def test_files_of_others_cannot_be_fetched(visitor: Visitor, talk: Talk, server: PageServer):
    wave, _ = visitor.use_mixture(talk.mixture)
    link = wave["props"]["recording"]["url"]
    token = link.split("/")[1]
    assert urllib.request.urlopen(server.url + link).read() == talk.mixture.read_bytes()
    secret = server.sessions.folder / "secret.txt"
    secret.write_text("of nobody")
    for path in (link.replace(token, "guess"), f"session/{token}/../secret.txt", f"session/{token}/..%2Fsecret.txt"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(server.url + path)
    secret.unlink()


def test_too_large_an_upload_is_refused(visitor: Visitor, tmp_path: Path):
    path = tmp_path / "large.wav"
    audio.write(path, np.zeros(5_000_000, np.float32), 16000, "PCM_16")
    with pytest.raises(Exception, match="exceeds the maximum file size of 8000000 bytes"):
        visitor.use_mixture(path)
    with path.open("rb") as file:  # a program that does not ask first
        answer = httpx.post(f"{visitor.url}gradio_api/upload", files={"files": file})
    assert answer.status_code == 413


def test_files_are_deleted_when_the_page_is_closed(server: PageServer, talk: Talk):
    before = set(server.sessions.folder.iterdir())
    visitor = Visitor(server)
    visitor.use_mixture(talk.mixture)
    (own,) = set(server.sessions.folder.iterdir()) - before
    assert list(own.rglob("*.wav"))
    visitor.client.close()
    until = time.monotonic() + 30
    while own.exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not own.exists()


def test_all_files_are_deleted_when_the_server_ends(talk: Talk, tiny_model: Path):
    from wesep_py.ui import PageServer, UiSettings

    with PageServer(UiSettings(str(tiny_model), "cpu", port=None)) as server:
        visitor = Visitor(server)
        visitor.use_mixture(talk.mixture)
        assert list(server.folder.rglob("anna_bert.wav"))
        assert server.models.names == [str(tiny_model), "base"]
        visitor.client.close()
    assert not server.folder.exists()


def test_only_loopback_is_listened_on_and_a_taken_port_is_named(server: PageServer, tiny_model: Path):
    from wesep_py.ui import PageServer, UiSettings

    port = int(server.url.rstrip("/").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    with pytest.raises(OSError):  # what listens on all addresses answers on this one, too
        socket.create_connection(("127.0.0.2", port), timeout=5).close()
    again = PageServer(UiSettings(str(tiny_model), "cpu", port=port))
    with pytest.raises(InputError, match=f"127.0.0.1, port {port}: cannot listen there"):
        again.start()
    assert not again.folder.exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [({"port": 70000}, "port: is 70000"), ({"max_upload_mb": 0}, "max_upload_mb: is 0"), ({"key": Path("k")}, "both")],
)
def test_settings_out_of_range_are_refused(values: dict[str, Any], message: str):
    from wesep_py.ui import UiSettings

    with pytest.raises(ValueError, match=message):
        UiSettings(**values)
