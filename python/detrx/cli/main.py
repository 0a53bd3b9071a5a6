"""``detrx <command>``: finds the command, imports that one alone, and turns errors into exit codes."""

from __future__ import annotations

import ctypes
import difflib
import importlib
import os
import signal
import sys
from contextlib import suppress
from typing import Dict, Optional, Sequence, Tuple

import detrx
from detrx.errors import DetrxError, pip_install

COMMANDS: Dict[str, Tuple[str, str]] = {
    "demo": ("detrx.cli.demo", "see it work: no network, GPU or camera needed, under a minute"),
    "detect": ("detrx.cli.detect", "find objects in pictures, folders, videos, cameras, streams"),
    "webcam": ("detrx.cli.webcam", "the same in a window or, with --web, in a browser, live"),
    "train": ("detrx.cli.train", "train a model on your own pictures"),
    "eval": ("detrx.cli.eval", "score a model on a data set: the COCO numbers, curves, worst pictures"),
    "tracks": ("detrx.cli.tracks", "score tracks against the truth: HOTA, IDF1, MOTA"),
    "explain": ("detrx.cli.explain", "what a model looks at: attention, sampling points, its queries"),
    "export": ("detrx.cli.export", "turn weights into an ONNX file, checked against them"),
    "convert": ("detrx.cli.convert", "weights of facebookresearch/detr or transformers to ours, and back"),
    "data": ("detrx.cli.data", "check a data set before it costs you a training run"),
    "bench": ("detrx.cli.bench", "measure a model here, stage by stage"),
    "inspect": ("detrx.cli.inspect", "what is inside a TensorRT engine, and whether tensor cores run it"),
    "estimate": ("detrx.cli.estimate", "what a model would take on a Jetson or a card that is not here"),
    "doctor": ("detrx.cli.doctor", "what this machine has, what is missing, what to type for it"),
}

OK, REFUSED, PARITY, INTERRUPTED = 0, 2, 3, 130


STOPPED = (INTERRUPTED, 128 + signal.SIGTERM, 129)
M_ARENA_MAX = -8
"""As glibc's malloc.h numbers it."""
LIVE = ("detect", "webcam")


def command() -> None:
    """What the shell runs: ``main``, and the end of the process.

    A live command that was stopped has finished its files and freed its camera by then. What Python still takes apart,
    loaded libraries, is two seconds on a busy board, and a thread that a library does not give back would abort it.
    """
    if len(sys.argv) > 1 and sys.argv[1] in LIVE:
        _keep_one_heap()
    try:
        code: object = main()
    except SystemExit as left:
        code = left.code
    if code in STOPPED and sys.argv[1] in LIVE:
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # closed, or nobody reads it
                stream.flush()
        os._exit(int(str(code)))
    sys.exit(code)  # type: ignore[arg-type]


def _keep_one_heap() -> None:
    """Each thread takes from the same memory.

    glibc gives threads up to eight heaps a core. Those of a camera that is lost and found come and go, and leave pieces
    in each: a megabyte a minute for an hour, that nobody has and nobody gets back.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def main(args: Optional[Sequence[str]] = None) -> int:
    """Run one command.

    Returns:
        0; 2 for a mistake that the message explains; 3 for an export that does not answer as its weights do;
        130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    given = list(sys.argv[1:] if args is None else args)
    try:
        code = _answer(given)
        if sys.stdout is not None:  # closed by whoever started us: `detrx ... >&-`
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        # `detrx ... | head`: the reader left. What Python flushes at its exit has to go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def _answer(given: Sequence[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        print(overview())
        return OK
    if given[0] in ("-V", "--version", "version"):
        print(f"detrx {detrx.__version__}")
        return OK
    if given[0] not in COMMANDS:
        print(_unknown(given[0]), file=sys.stderr)
        return REFUSED
    return _run(given[0], given[1:])


def overview() -> str:
    """What ``detrx`` alone prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  detrx {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    head = f"detrx {detrx.__version__} - train a DETR on your own pictures, run it at camera speed\n"
    return "\n".join(
        [head, *lines, "", "`detrx COMMAND --help` lists what a command takes. New here? `detrx demo`"]
    )


def _run(name: str, args: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, _terminate)
    # Under nohup it is ignored, and stays so.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _terminate)
    try:
        code: int = importlib.import_module(COMMANDS[name][0]).run(args)
        return code
    except DetrxError as error:
        print(f"detrx {name}: {error}", file=sys.stderr)
        return REFUSED
    except ModuleNotFoundError as error:
        # The training half imports its libraries at the top; whoever installed the runtime half lacks them.
        if (error.name or "detrx").partition(".")[0] == "detrx":
            raise
        print(f"detrx {name} needs {error.name}. Type: {pip_install('train')}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print(f"detrx {name}: interrupted", file=sys.stderr)
        return INTERRUPTED


def _terminate(number: int, _: object) -> None:
    """SIGTERM and SIGHUP leave through every ``finally``, so that files are finished and cameras freed."""
    raise SystemExit(128 + number)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
    hint = f"did you mean `detrx {near[0]}`?" if near else f"it is one of {', '.join(COMMANDS)}"
    return f"detrx: no command {name!r}; {hint}"


if __name__ == "__main__":
    command()
