"""Which recordings exist: manifests and other corpus formats, and readers that give their samples."""

from wesep_py.data.corpora import find_audio, read_kaldi, read_librispeech, read_speaker_folders
from wesep_py.data.lmdb_store import LMDBReader, write_lmdb
from wesep_py.data.manifest import Speaker, Utterance, read_manifest, read_speakers, speaker_of, write_manifest
from wesep_py.data.mixture_lists import Mixture, MixtureNoise, MixtureSource, read_librimix_metadata, read_mixtures
from wesep_py.data.packed import PackedReader, pack
from wesep_py.data.reader import FileReader, Reader
from wesep_py.data.recordings import find_noises, open_reader, perturb_speed, read_speech
from wesep_py.data.shard_store import ShardReader
from wesep_py.data.shard_stream import StreamPool
from wesep_py.data.shard_writing import write_shards
from wesep_py.data.store import RoutedReader
from wesep_py.data.toy import make_toy_corpus
from wesep_py.data.trials import Trial, read_trials

__all__ = [
    "FileReader",
    "LMDBReader",
    "Mixture",
    "MixtureNoise",
    "MixtureSource",
    "PackedReader",
    "Reader",
    "RoutedReader",
    "ShardReader",
    "Speaker",
    "StreamPool",
    "Trial",
    "Utterance",
    "find_audio",
    "find_noises",
    "make_toy_corpus",
    "open_reader",
    "pack",
    "perturb_speed",
    "read_kaldi",
    "read_librimix_metadata",
    "read_librispeech",
    "read_manifest",
    "read_mixtures",
    "read_speaker_folders",
    "read_speakers",
    "read_speech",
    "read_trials",
    "speaker_of",
    "write_lmdb",
    "write_manifest",
    "write_shards",
]
