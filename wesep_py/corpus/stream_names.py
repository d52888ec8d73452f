"""Names of shards that are read as a stream: tar files, by a path, a pattern or a range of numbers."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from wesep_py.corpus.remote import is_url
from wesep_py.corpus.stores import locate
from wesep_py.errors import InputError
from wesep_py.names import is_hidden

STREAM_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_stream(name: str | os.PathLike[str]) -> bool:
    """Whether a name of a configuration stands for tar files, which are read without an index.

    >>> is_stream("shards/{000..127}.tar"), is_stream("shards"), is_stream("train.jsonl")
    (True, False, False)
    """
    return os.fspath(name).endswith(STREAM_SUFFIXES)


def stream_shards(names: Sequence[str], root: str | os.PathLike[str]) -> list[str]:
    """The shards that names stand for, in no particular order.

    Args:
        names: paths, relative to `root`, or URLs, of tar files; `{000..127}` stands for each of the numbers,
            `{a,b}` for either, and in a path `*` and `?` for what there is.
        root: a folder.

    Raises:
        InputError: a pattern that no file matches, or a range that ends before it begins.

    >>> stream_shards(["s3://bucket/{08..10}.tar"], ".")
    ['s3://bucket/08.tar', 's3://bucket/09.tar', 's3://bucket/10.tar']
    """
    shards: list[str] = []
    for name in names:
        for place in (locate(one, root) for one in expand_braces(name)):
            if is_url(place) or not set(place) & set("*?"):
                shards.append(place)
                continue
            path = Path(place)
            found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
            matching = sorted(file.as_posix() for file in found if not is_hidden(file.name))
            if not matching:
                raise InputError(f"{place}: no file matches; name the tar files of the stream")
            shards.extend(matching)
    return shards


def expand_braces(name: str) -> list[str]:
    """What a name with `{000..127}` or `{a,b}` stands for.

    Raises:
        InputError: a range that ends before it begins.

    >>> expand_braces("{a,b}-{9..10}.tar")
    ['a-9.tar', 'a-10.tar', 'b-9.tar', 'b-10.tar']
    """
    braces = _BRACES.search(name)
    if braces is None:
        return [name]
    before, after = name[: braces.start()], expand_braces(name[braces.end() :])
    if numbers := _RANGE.fullmatch(braces[1]):
        first, last = int(numbers[1]), int(numbers[2])
        if last < first:
            raise InputError(f"{name}: the range {{{braces[1]}}} ends before it begins; swap its ends")
        choices = [str(number).zfill(len(numbers[1])) for number in range(first, last + 1)]
    else:
        choices = braces[1].split(",")
    return [before + choice + rest for choice in choices for rest in after]


def stream_identity(name: str, root: str | os.PathLike[str]) -> list[str]:
    """What a stream is recognised by: the names of its shards, and, on this machine, their sizes."""
    shards = stream_shards([name], root)
    return [f"{shard} {'' if is_url(shard) else Path(shard).stat().st_size}" for shard in shards]
