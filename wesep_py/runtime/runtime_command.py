"""`python -m wesep_py.runtime`: enroll, extract and stream with an exported model, without torch."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from wesep_py.common.errors import WesepError, reason
from wesep_py.runtime.runtime_extractor import RuntimeExtractor, load
from wesep_py.runtime.runtime_voice import RuntimeVoice


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit status: 1 or 2 for an error, as `wesep`."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    options = _parser().parse_args(arguments)
    try:
        options.run(load(options.model), options)
    except WesepError as error:
        print(f"error: {reason(error)}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # nobody reads the output any more
        return 0
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m wesep_py.runtime", description="Use an exported model, without torch.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--model", required=True, metavar="DIR", help="folder that `wesep export` wrote")
    output = argparse.ArgumentParser(add_help=False)
    output.add_argument("-o", "--output", required=True, metavar="FILE", help="file to write")
    output.add_argument("--overwrite", action="store_true", help="replace an existing file")
    voice = argparse.ArgumentParser(add_help=False)
    voice.add_argument(
        "--enroll",
        required=True,
        action="append",
        metavar="FILE",
        help="recording of the voice (repeatable), or NAME.voice",
    )

    enroll = commands.add_parser("enroll", parents=[common, output], help="make a voice print")
    enroll.add_argument("enroll", nargs="+", metavar="RECORDING", help="recordings of one person")
    enroll.set_defaults(run=_enroll)

    extract = commands.add_parser("extract", parents=[common, output, voice], help="extract a voice from a recording")
    extract.add_argument("mixture", metavar="MIXTURE", help="recording")
    extract.set_defaults(run=_extract)

    stream = commands.add_parser("stream", parents=[common, voice], help="raw samples from stdin to stdout")
    stream.add_argument("--rate", type=int, default=None, metavar="HZ", help="sample rate; default: the model's")
    stream.add_argument("--channels", type=int, default=1, metavar="N", help="interleaved channels; default: 1")
    stream.add_argument("--format", default="s16le", help="s16le (default) or f32le")
    stream.set_defaults(run=_stream)
    return parser


def _voice(extractor: RuntimeExtractor, files: Sequence[str]) -> RuntimeVoice:
    """Return the voice of a print, or of recordings."""
    if len(files) == 1 and files[0].endswith(".voice"):
        return RuntimeVoice.load(files[0])
    return extractor.enroll(*files)


def _enroll(extractor: RuntimeExtractor, options: argparse.Namespace) -> None:
    voice = extractor.enroll(*options.enroll)
    voice.save(options.output, options.overwrite)
    for warning in voice.quality.warnings if voice.quality is not None else ():
        print(f"warning: {warning}", file=sys.stderr)


def _extract(extractor: RuntimeExtractor, options: argparse.Namespace) -> None:
    from wesep_py.common.files import check_writable, refuse_inputs

    output = check_writable(options.output, options.overwrite)
    refuse_inputs([output], [(options.mixture, "the mixture"), *((file, "an enrollment") for file in options.enroll)])
    result = extractor.extract(options.mixture, _voice(extractor, options.enroll))
    result.save(output, options.overwrite)
    if result.presence is not None:
        print(f"presence {result.presence:.2f}", file=sys.stderr)


def _stream(extractor: RuntimeExtractor, options: argparse.Namespace) -> None:
    from wesep_py.inference.live_stream.pcm_stream import pump

    voice = _voice(extractor, options.enroll)
    stream = extractor.stream(voice, options.rate, options.channels)
    sys.stdout.flush()
    pump(stream, sys.stdin.fileno(), sys.stdout.fileno(), options.format, block_samples=stream.sample_rate)
