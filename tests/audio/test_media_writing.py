"""Media that PyAV writes: length and alignment, pictures and subtitles unchanged, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.audio.test_media import lag_of
from wesep_py import audio
from wesep_py.audio.media import import_av
from wesep_py.common.errors import AudioError, OutputExistsError, WesepError

media_files = pytest.importorskip("tests.media_files")
chirps, write_media, picture_packets = media_files.chirps, media_files.write_media, media_files.picture_packets


@pytest.mark.parametrize("suffix", ["m4a", "mp4", "mov", "mka", "mkv", "webm"])
def test_a_written_file_has_the_samples_that_were_given(suffix: str, tmp_path: Path):
    for rate, channels in [(8000, 1), (16000, 2), (44100, 2), (48000, 6)]:
        original, path = chirps(channels, 0.6543, rate), tmp_path / f"{rate}.{suffix}"
        audio.write(path, original, rate)
        decoded, decoded_rate = audio.read(path)
        if suffix == "webm":
            assert decoded_rate == 48000  # the rate of Opus
            assert decoded.shape[1] == audio.resampled_length(original.shape[1], rate, 48000) or rate == 44100
            decoded = audio.resample(decoded, 48000, rate)[:, : original.shape[1]]
        assert decoded.shape[0] == channels and abs(decoded.shape[1] - original.shape[1]) <= (suffix == "webm")
        assert lag_of(decoded[0], original[0]) == 0
        # Encoders need some frames to begin.
        error = decoded[0, 2048:-2048] - original[0, 2048 : decoded.shape[1] - 2048]
        snr_db = 10 * np.log10(np.mean(original[0] ** 2) / np.mean(error**2))
        assert snr_db > (110 if suffix in ("mka", "mkv") else 15), (rate, snr_db)


def test_blocks_of_any_length_give_the_same_file(tmp_path: Path):
    original = chirps(2, 1.0, 44100)
    for name, step in (("whole.m4a", 44100), ("blocks.m4a", 777)):
        with audio.AudioWriter(tmp_path / name, 44100, 2) as writer:
            for begin in range(0, 44100, step):
                writer.write(original[:, begin : begin + step])
    np.testing.assert_array_equal(audio.read(tmp_path / "whole.m4a")[0], audio.read(tmp_path / "blocks.m4a")[0])


VIDEOS = {
    "mp4": ("mp4", "libx264", "aac", ("mp4", "mov", "mkv")),
    "mov": ("mov", "libx264", "aac", ("mov", "mp4", "mkv")),
    "mkv": ("matroska", "mpeg4", "flac", ("mkv", "mp4")),
    "webm": ("webm", "libvpx", "libopus", ("webm", "mkv")),
}


@pytest.mark.parametrize("suffix", VIDEOS)
def test_pictures_are_copied_packet_by_packet(suffix: str, tmp_path: Path):
    container, codec, sound, outputs = VIDEOS[suffix]
    for shift in ({}, {"sound_at_s": 0.3}, {"pictures_at_s": 0.32}):
        path = tmp_path / f"in.{suffix}"
        write_media(path, container, sound, [chirps(2, 1.0, 48000)], 48000, codec, **shift)
        before, (waveform, rate) = path.read_bytes(), audio.read(path)
        for output in outputs:
            written = tmp_path / f"out.{output}"
            audio.write(written, 0.5 * waveform, rate, overwrite=True, pictures_of=path)
            original, copied = picture_packets(path), picture_packets(written)
            assert [data for data, _ in original] == [data for data, _ in copied]
            assert max(abs(a - b) for (_, a), (_, b) in zip(original, copied, strict=True)) < 0.0011
            decoded, _ = audio.read(written)
            assert decoded.shape == waveform.shape and lag_of(decoded[0], waveform[0]) == 0
        assert path.read_bytes() == before


def test_subtitles_chapters_and_rotation_are_kept_where_the_container_permits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    av = import_av()
    path, sound = tmp_path / "a.mkv", [chirps(1, 1.0, 16000), chirps(1, 1.0, 16000)]
    write_media(path, "matroska", "flac", sound, 16000, "mpeg4", subtitles="hello")
    for suffix, kinds in (("mkv", ["audio", "subtitle", "video"]), ("mp4", ["audio", "video"])):
        caplog.clear()
        audio.write(tmp_path / f"out.{suffix}", sound[0], 16000, pictures_of=path)
        with av.open(str(tmp_path / f"out.{suffix}")) as output:
            assert sorted(stream.type for stream in output.streams) == kinds
            if suffix == "mkv":
                (words,) = [bytes(packet) for packet in output.demux(subtitles=0) if packet.size]
                assert words == b"hello"
        missing = "1 audio track" + ("" if suffix == "mkv" else ", 1 subtitle")
        assert [record.getMessage() for record in caplog.records] == [f"{path}: not copied to the output: {missing}"]


def test_the_rotation_of_a_phone_video_is_kept(tmp_path: Path):
    av, path = import_av(), tmp_path / "phone.mp4"
    write_media(path, "mp4", "aac", [chirps(1, 0.4, 16000)], 16000, "mpeg4")
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # ISO/IEC 14496-12, 8.3.2: after version, times, layer and volume
    identity = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4")
    assert data[matrix : matrix + 36] == identity.tobytes()
    turned = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4")
    data[matrix : matrix + 36] = turned.tobytes()
    path.write_bytes(data)
    audio.write(tmp_path / "out.mp4", *audio.read(path), pictures_of=path)
    for file in (path, tmp_path / "out.mp4"):
        with av.open(str(file)) as video:
            assert next(video.decode(video=0)).rotation == -90


def test_a_container_that_cannot_hold_the_pictures_is_refused_before_the_work(tmp_path: Path):
    path = tmp_path / "a.mp4"
    write_media(path, "mp4", "aac", [chirps(1, 0.4, 16000)], 16000, "mpeg4")
    with pytest.raises(AudioError, match=r"\.webm cannot hold pictures of mpeg4; \.mkv"):
        audio.AudioWriter(tmp_path / "a.webm", 16000, 1, pictures_of=path)
    audio.AudioWriter(tmp_path / "b.m4a", 16000, 1, pictures_of=path)  # sound alone
    with pytest.raises(AudioError, match="a sample rate of 10000 Hz; AAC allows"):
        audio.AudioWriter(tmp_path / "b.m4a", 10000, 1)
    with pytest.raises(AudioError, match="cannot be written with 9 channels"):
        audio.AudioWriter(tmp_path / "b.m4a", 16000, 9)


def test_files_appear_whole_or_not_at_all(tmp_path: Path):
    path, source = tmp_path / "out.mp4", tmp_path / "in.mp4"
    write_media(source, "mp4", "aac", [chirps(1, 1.0, 16000)], 16000, "mpeg4")
    with pytest.raises(RuntimeError), audio.AudioWriter(path, 16000, 1, pictures_of=source) as writer:
        writer.write(np.zeros((1, 8000), np.float32))
        raise RuntimeError
    assert [file.name for file in tmp_path.iterdir()] == ["in.mp4"]
    path.write_bytes(b"mine")
    with pytest.raises(OutputExistsError):
        audio.write(path, np.zeros(8000, np.float32), 16000)
    assert path.read_bytes() == b"mine"
    if Path("/dev/full").exists():
        with pytest.raises(AudioError, match="would be clipped"):
            audio.write(tmp_path / "loud.m4a", np.full(8000, 2.0, np.float32), 16000)


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from wesep_py.audio import writing

    class Full(writing._Sink):
        def write(self, data: bytes) -> int:
            self.error = OSError(28, "No space left on device")
            return 0

    monkeypatch.setattr(writing, "_Sink", Full)
    with pytest.raises(WesepError, match="No space left on device"):
        audio.write(tmp_path / "a.m4a", np.zeros(48000, np.float32), 48000)
    assert not list(tmp_path.iterdir())


def test_without_pyav_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(AudioError, match=r"writing \.m4a needs the package av: pip install 'wesep-py\[media\]'"):
        audio.write(tmp_path / "a.m4a", np.zeros(800, np.float32), 8000)
