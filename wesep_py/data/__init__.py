"""Recordings, utterances and mixtures: lists of them, and readers of their samples.

Manifests
    manifest         `Utterance`; manifests (JSONL, CSV) and tables of speakers; finding the files that a list names
    recordings       manifests, stores, noise files and folders by the names in a configuration; speed perturbation

Readers of corpora
    corpora          folders per speaker, LibriSpeech, VoxCeleb, Kaldi data folders
    wsj0mix          WSJ0 and WSJ0-mix: utterances, mixtures and trials
    toy, espeak      a small synthetic corpus, spoken by espeak-ng
    embedding_files  precomputed embeddings: `.npy` files, Kaldi's archives

Samples and stores
    reader           the interface of readers; decoding audio files; 16-bit cache; lossless encoding for stores
    packed           a corpus decoded once into a memory-mapped file
    store            the interface of stores of encoded audio; readers of one store, or of several and of files
    lmdb_store       encoded audio in one LMDB file
    keyed_lmdb       LMDB files of WeSep: noises and room responses
    shard_store      tar shards with an index, read in any order
    shard_writing    writing, indexing and checking tar shards
    shard_stream     tar shards without an index, read window by window
    webdataset       the utterances in a tar shard of any program
    remote           files of a folder, local or behind a URL

Lists of mixtures
    mixture_lists    LibriMix's metadata and rendered trees
    mixture_corpus   mixtures of lists as training data
    trials           mixture, target and enrollment, to evaluate
    premixed         WeSep's shards of fixed mixtures, unpacked
    mixture_shards   WeSep's shards of fixed mixtures, read in place

Recordings without references
    meetings         AMI, LibriCSS and REAL-T as lists to evaluate

Data of other projects
    recipe_lists       data folders and lists of WeSep's and ESPnet's recipes
    recipe_conversion  the same, written as lists of ours
"""

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
