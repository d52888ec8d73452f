"""WHAM!'s noises at other speeds: the file where it is there, its original at that speed where it is not."""

from pathlib import Path

from wesep_py.data.mixture_lists import find_noise_file


def test_a_noise_at_another_speed_is_its_original_played_faster(tmp_path: Path):
    for mark, speed in (("sp08", 0.8), ("sp12", 1.2)):
        assert find_noise_file(tmp_path / f"01ga_0.6{mark}.wav") == (tmp_path / "01ga_0.6.wav", speed)
    assert find_noise_file(tmp_path / "01ga_0.6.wav") == (tmp_path / "01ga_0.6.wav", 1.0)


def test_a_file_that_is_there_is_taken_as_it_is(tmp_path: Path):
    (tmp_path / "onsp08.wav").touch()
    assert find_noise_file(tmp_path / "onsp08.wav") == (tmp_path / "onsp08.wav", 1.0)
