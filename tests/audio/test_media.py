"""Recordings that PyAV decodes: length and alignment by format, gaps, tracks, damage, and what is refused."""

from __future__ import annotations

import os
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from wesep_py import audio
from wesep_py.audio import media
from wesep_py.audio.decoding import open_audio_bytes, strict_reading
from wesep_py.audio.media import FramePlacement, audio_track
from wesep_py.audio.reading import FileSegment, read_file_segment
from wesep_py.common.errors import AudioError, InputError

media_files = pytest.importorskip("tests.media_files")
chirps, write_media = media_files.chirps, media_files.write_media

# Suffix, container, codec; samples that the format adds in front (its encoder's delay, which it cannot state), and
# whether the length is exact.
FORMATS = {
    "m4a": ("m4a", "ipod", "aac", 0, True),
    "mp4": ("mp4", "mp4", "aac", 0, True),
    "mov": ("mov", "mov", "aac", 0, True),
    "alac": ("m4a", "ipod", "alac", 0, True),
    "mov-pcm": ("mov", "mov", "pcm_s16le", 0, True),
    "webm": ("webm", "webm", "libopus", 0, True),
    "mka": ("mka", "matroska", "flac", 0, True),
    "mkv-aac": ("mkv", "matroska", "aac", 0, False),
    "aac": ("aac", "adts", "aac", 1024, False),
    "ts": ("ts", "mpegts", "aac", 1024, False),
    "avi": ("avi", "avi", "libmp3lame", 1105, False),
    "flv": ("flv", "flv", "aac", 1024, False),
}
RATES_AND_CHANNELS = [(8000, 1), (44100, 2), (48000, 6), (48000, 1)]


def lag_of(decoded: np.ndarray, original: np.ndarray) -> int:
    """Return by how many samples a recording is late, from the correlation."""
    size = 1 << (len(decoded) + len(original)).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(original, size)))
    lag = int(correlation.argmax())
    return lag - size if lag > size // 2 else lag


@pytest.mark.parametrize("name", FORMATS)
def test_formats_have_their_length_and_no_delay(name: str, tmp_path: Path):
    suffix, container, codec, delay, is_exact = FORMATS[name]
    read = 0
    for rate, channels in RATES_AND_CHANNELS:
        original, path = chirps(channels, 0.6543, rate), tmp_path / f"{rate}_{channels}.{suffix}"
        try:
            write_media(path, container, codec, [original], rate)
        except (media.import_av().error.FFmpegError, ValueError):
            continue  # the format has no such rate or channels
        about, (waveform, sample_rate) = audio.info(path), audio.read(path)
        if about.sample_rate != rate:  # Opus is decoded at 48 kHz
            original = audio.resample(original, rate, about.sample_rate)
        elif channels > 2 and suffix == "flv":
            continue  # it has no layout for them
        assert waveform.shape == (channels, about.num_samples) and sample_rate == about.sample_rate
        num_samples = original.shape[1]
        assert about.num_samples == num_samples if is_exact else 0 <= about.num_samples - num_samples < 3 * 1152
        for c in range(channels):
            if c != 3:  # the fourth channel of 5.1 has low frequencies only
                assert lag_of(waveform[c], original[c]) == delay
        error = waveform[0, delay : delay + num_samples] - original[0, : waveform.shape[1] - delay]
        assert np.mean(error**2) < 0.05 * np.mean(original[0] ** 2)
        blocks = np.concatenate(list(audio.read_blocks(path, 1000)), axis=1)
        np.testing.assert_array_equal(blocks, waveform)
        read += 1
    assert read >= 2


@pytest.mark.parametrize(("container", "codec"), [("asf", "wmav2"), ("amr", "libopencore_amrnb")])
def test_wma_and_amr_are_read(container: str, codec: str, tmp_path: Path):
    rate = 8000 if container == "amr" else 44100
    original, path = chirps(1, 1.0, rate), tmp_path / f"a.{container}"
    write_media(path, container, codec, [original], rate)
    waveform, sample_rate = audio.read(path)
    # Decoders of WMA drop their first two frames; AMR looks ahead by 5 ms, and its last frame is filled up.
    assert sample_rate == rate and abs(waveform.shape[1] - rate) < 0.05 * rate
    assert abs(lag_of(waveform[0], original[0])) < 0.05 * rate
    assert audio.rms(waveform[0]) == pytest.approx(audio.rms(original[0]), rel=0.2)


def test_a_caf_with_a_codec_that_libsndfile_lacks_is_decoded(tmp_path: Path):
    original, path = chirps(1, 0.6543, 44100), tmp_path / "a.caf"
    write_media(tmp_path / "a.m4a", "ipod", "aac", [original], 44100)
    media_files.caf_of_m4a(tmp_path / "a.m4a", path)
    about, (waveform, _) = audio.info(path), audio.read(path)
    assert (about.format, about.subtype) == ("CAF", "AAC")
    assert abs(about.num_samples - original.shape[1]) < 2048 and 0 <= lag_of(waveform[0], original[0]) <= 1024


@pytest.mark.parametrize(
    ("suffix", "container", "pictures", "codec"),
    [
        ("mp4", "mp4", "libx264", "aac"),
        ("mov", "mov", "libx264", "aac"),
        ("mkv", "matroska", "libx264", "flac"),
        ("webm", "webm", "libvpx", "libopus"),
    ],
)
def test_sound_of_a_video_is_on_the_time_axis_of_the_pictures(suffix, container, pictures, codec, tmp_path: Path):
    original = chirps(2, 1.0, 48000)
    for late_s, path in ((0.0, tmp_path / f"a.{suffix}"), (0.5, tmp_path / f"late.{suffix}")):
        write_media(path, container, codec, [original], 48000, pictures, sound_at_s=late_s)
        about, (waveform, _) = audio.info(path), audio.read(path)
        late = round(late_s * 48000)
        assert about.has_pictures and abs(about.num_samples - 48000 - late) <= 48  # times in ms
        assert abs(lag_of(waveform[0], original[0]) - late) <= 48
        assert not waveform[:, : max(0, late - 1200)].any()


@pytest.mark.parametrize(
    ("suffix", "container", "codec"), [("webm", "webm", "libopus"), ("m4a", "ipod", "aac"), ("mka", "matroska", "flac")]
)
def test_a_gap_is_silent_and_what_follows_keeps_its_time(suffix, container, codec, tmp_path: Path):
    original, path = chirps(1, 2.0, 48000), tmp_path / f"gap.{suffix}"
    write_media(path, container, codec, [original], 48000, gap_s=(0.8, 1.3))
    waveform, _ = audio.read(path)
    assert abs(waveform.shape[1] - 96000) <= 48
    assert not waveform[0, 46000:60000].any()
    assert abs(lag_of(waveform[0, 66000:], original[0, 66000:])) <= 48


def test_small_and_strange_differences_of_time_stamps_move_no_sample():
    placement = FramePlacement()
    stamps = [Fraction(0), Fraction(11, 1000), Fraction(19, 1000), Fraction(31, 1000), Fraction(0), Fraction(10, 1000)]
    assert [placement.place(stamp, 80, 8000) for stamp in stamps] == [0, 0, 0, 0, 0, 0]
    assert placement.elapsed == Fraction(6 * 80, 8000)
    assert placement.place(Fraction(10**9), 80, 8000) == 0  # a clock that was set anew is no gap


def test_a_segment_equals_the_same_samples_of_the_whole(tmp_path: Path):
    path = tmp_path / "a.m4a"
    write_media(path, "ipod", "aac", [chirps(2, 1.5, 44100)], 44100)
    whole, _ = audio.read(path)
    segment, rate = read_file_segment(FileSegment(str(path), 0.7, 1.1))
    np.testing.assert_array_equal(segment, whole[:, round(0.7 * rate) : round(1.1 * rate)])
    with open_audio_bytes(path.read_bytes(), "in memory") as recording:
        assert recording.about == audio.info(path)


def test_an_audio_track_can_be_chosen(tmp_path: Path):
    path = tmp_path / "a.mp4"
    write_media(path, "mp4", "aac", [chirps(2, 0.5, 16000), chirps(1, 0.5, 16000)], 16000)
    assert audio.info(path).num_channels == 2
    with audio_track(2):
        assert audio.info(path).num_channels == 1 and audio.read(path)[0].shape == (1, 8000)
    with audio_track(3), pytest.raises(AudioError, match="track 3 was requested; it has 2, counted from 1"):
        audio.info(path)
    with pytest.raises(InputError, match="counted from 1"), audio_track(0):
        pass
    single = tmp_path / "b.m4a"
    write_media(single, "ipod", "aac", [chirps(1, 0.5, 16000)], 16000)
    with audio_track(2):  # an enrollment beside a video with several tracks
        assert audio.info(single).num_samples == 8000


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "video.mp4"
    write_media(path, "mp4", "aac", [chirps(1, 1.0, 16000)], 16000, "mpeg4")
    return path


def test_the_suffix_does_not_matter(video: Path, tmp_path: Path):
    for name in ("a.wav", "a.mp3", "a.xyz", os.fsdecode(b"caf\xe9.m4a")):
        copy = Path(shutil.copy(video, tmp_path / name))
        assert audio.info(copy).num_samples == 16000
    audio.write(tmp_path / "b.wav", np.zeros(800, np.float32), 8000)
    assert audio.info((tmp_path / "b.wav").rename(tmp_path / "b.mp4")).format == "WAV"


def test_what_cannot_be_read_is_one_line(video: Path, tmp_path: Path):
    data, path = video.read_bytes(), tmp_path / "bad.mp4"
    place = data.index(b"mp4a")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))
    silent = tmp_path / "silent.mp4"
    av = media.import_av()
    with av.open(str(video)) as source, av.open(str(silent), "w") as output:
        pictures = output.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = pictures
                output.mux(packet)
    mkv = tmp_path / "a.mkv"
    write_media(mkv, "matroska", "aac", [chirps(1, 0.5, 16000)], 16000)
    for content, message in (
        (data[: len(data) * 6 // 10], r"is cut short: the index \(moov\).* is missing"),
        (data[:place] + b"drms" + data[place + 4 :], "its sound is encrypted"),
        (data[:place] + b"enca" + data[place + 4 :], "its sound is encrypted"),
        (silent.read_bytes(), r"has no audio track \(it holds video\)"),
        (mkv.read_bytes().replace(b"A_AAC", b"A_ZZZ"), "a codec that cannot be decoded"),
        ((tmp_path / "picture.png").read_bytes(), "is not audio that can be read"),
        (b"#EXTM3U\n#EXTINF:9,\n/etc/hostname\n", "is not audio that can be read"),
        (b"ffconcat version 1.0\nfile 'video.mp4'\n", "is not audio that can be read"),
        (b"", "is an empty file"),
    ):
        path.write_bytes(content)
        with pytest.raises(AudioError, match=message) as raised:
            audio.info(path)
        assert "\n" not in str(raised.value)


def test_a_cut_recording_gives_what_is_there_and_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    first, path = tmp_path / "index_first.mp4", tmp_path / "cut.mp4"
    write_media(first, "mp4", "aac", [chirps(1, 3.0, 16000)], 16000, options={"movflags": "+faststart"})
    data = first.read_bytes()
    missing = (len(data) - data.index(b"mdat")) // 2
    path.write_bytes(data[:-missing])
    assert 8000 < audio.info(path).num_samples < 40000
    assert f"is cut short: its last {missing} bytes are missing" in caplog.text
    with strict_reading(), pytest.raises(AudioError, match="is cut short"):
        audio.info(path)
    webm = tmp_path / "a.webm"
    write_media(webm, "webm", "libopus", [chirps(1, 3.0, 48000)], 48000)
    path.write_bytes(webm.read_bytes()[: webm.stat().st_size // 2])
    assert 48000 < audio.info(path).num_samples < 96000
    assert "is cut short: it should last 3.0" in caplog.text


def test_damaged_packets_keep_the_time_and_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "a.m4a"
    write_media(path, "ipod", "aac", [chirps(1, 3.0, 16000)], 16000)
    data = bytearray(path.read_bytes())
    begin = data.index(b"mdat") + 4000
    data[begin : begin + 4000] = np.random.default_rng(0).integers(0, 256, 4000).astype(np.uint8).tobytes()
    path.write_bytes(data)
    waveform, _ = audio.read(path)
    assert waveform.shape == (1, 48000) and "damaged packets" in caplog.text


def test_without_pyav_one_line_says_what_to_install(video: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(AudioError, match=r"this format needs the package av: pip install 'wesep-py\[media\]'"):
        audio.info(video)
