"""Which recordings exist: manifests and other corpus formats, and readers that give their samples."""

from wesep_py.corpus.folders import find_audio, read_librispeech, read_speaker_folders
from wesep_py.corpus.kaldi import read_kaldi
from wesep_py.corpus.librimix import read_librimix_metadata
from wesep_py.corpus.lmdb_store import LMDBReader
from wesep_py.corpus.lmdb_write import write_lmdb
from wesep_py.corpus.manifest import read_manifest, write_manifest
from wesep_py.corpus.mixtures import Mixture, TrialNoise, TrialSource, read_mixtures
from wesep_py.corpus.packed import PackedReader, pack
from wesep_py.corpus.reader import FileReader, Reader
from wesep_py.corpus.recordings import find_noises, perturb_speed, read_speech
from wesep_py.corpus.shard_store import ShardReader
from wesep_py.corpus.shards import write_shards
from wesep_py.corpus.speakers import Speaker, read_speakers, speaker_of
from wesep_py.corpus.store import RoutedReader
from wesep_py.corpus.stores import reader_of
from wesep_py.corpus.stream import StreamPool
from wesep_py.corpus.toy import make_toy_corpus
from wesep_py.corpus.trials import Trial, read_trials
from wesep_py.corpus.utterance import Utterance

__all__ = [
    "FileReader",
    "LMDBReader",
    "Mixture",
    "PackedReader",
    "Reader",
    "RoutedReader",
    "ShardReader",
    "Speaker",
    "StreamPool",
    "Trial",
    "TrialNoise",
    "TrialSource",
    "Utterance",
    "find_audio",
    "find_noises",
    "make_toy_corpus",
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
    "reader_of",
    "speaker_of",
    "write_lmdb",
    "write_manifest",
    "write_shards",
]
