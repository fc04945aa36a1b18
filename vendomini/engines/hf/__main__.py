"""Start of the server's process: arguments, loading, the socket, and its end."""

import argparse
import asyncio
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from vendomini.errors import EngineError, VendoMiniError

if TYPE_CHECKING:
    from vendomini.engines.hf.loading import Loaded, Options

KEY = "VENDOMINI_API_KEY"

LONGEST_SOCKET_PATH = 107
"""In bytes; Linux's."""

LONGEST_LINE = 600

NEEDED = ("torch", "transformers", "xgrammar")


def main(arguments: list[str]) -> int:
    """Serve until a signal. Exit status 1 and one line on stderr if it cannot start."""
    fields = vars(_parser().parse_args(arguments))
    try:
        return _start(fields)
    except KeyboardInterrupt:  # while it loads; later, signals are the event loop's
        return 130
    except Exception as error:
        print(f"[!] {root_cause(error)}", file=sys.stderr, flush=True)
        return 1


def _start(fields: dict[str, object]) -> int:
    key = os.environ.get(KEY, "")
    if not key:
        raise EngineError(f"the environment variable {KEY} is not set")
    uds = Path(str(fields["uds"]))
    if len(os.fsencode(uds)) > LONGEST_SOCKET_PATH:
        raise EngineError(f"the socket's path is longer than {LONGEST_SOCKET_PATH} bytes: {uds}")
    if not uds.parent.is_dir():
        raise EngineError(f"there is no folder for the socket `{uds}`")
    lacking = [name for name in NEEDED if find_spec(name) is None]
    if lacking:
        raise EngineError(
            f"the hf engine needs {', '.join(lacking)}, which this Python ({sys.executable}) lacks",
            hint="pip install 'vendomini[hf]'",
        )

    # Seconds of imports: only when the rest is in order.
    from vendomini.engines.hf.loading import Options, load

    options = Options(**fields)  # type: ignore[arg-type]
    loaded = load(options, _tell)
    asyncio.run(_serve(options, loaded, key=key))
    return 0


async def _serve(options: "Options", loaded: "Loaded", *, key: str) -> None:
    import transformers
    from aiohttp import web

    from vendomini.engines.hf.batching import Batcher
    from vendomini.engines.hf.generation import Generation
    from vendomini.engines.hf.server import Server

    generation = Generation(
        loaded, max_rows=options.max_num_seqs, keeps=options.enable_prefix_caching
    )
    batcher = Batcher(generation)
    server = Server(loaded, batcher, name=options.served_model_name, key=key)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    runner = web.AppRunner(
        server.application(), handler_cancellation=True, access_log=None, shutdown_timeout=1.0
    )
    await runner.setup()
    batcher.start()
    try:
        await web.UnixSite(runner, str(options.uds)).start()
        _tell(
            f"[*] transformers {transformers.__version__} ready: {options.served_model_name} on "
            f"{loaded.device}, {loaded.dtype}, {loaded.attention}, "
            f"max_model_len {loaded.max_model_len}, at most {options.max_num_seqs} sequences"
        )
        await ended.wait()
    finally:
        generation.halt()
        options.uds.unlink(missing_ok=True)
        await runner.cleanup()


def root_cause(error: BaseException) -> str:
    """One line that says what is wrong, and what to do if that is known."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, VendoMiniError):
        return f"{text}; {error.hint}" if error.hint else text
    if isinstance(error, KeyError):
        text = f"unknown name {text}"
    return text if len(text) <= LONGEST_LINE else text[:LONGEST_LINE] + " ..."


def _tell(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vendomini.engines.hf", allow_abbrev=False)
    parser.add_argument("--model", required=True, help="local folder or hub id")
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--uds", required=True, type=Path, help="path of the Unix socket")
    parser.add_argument("--revision")
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "cpu"))
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--quantization")
    parser.add_argument("--attn-implementation")
    parser.add_argument("--max-model-len", type=_count, help="tokens")
    parser.add_argument("--kv-cache-memory-bytes", type=_count)
    parser.add_argument("--max-num-seqs", type=_count, default=256, help="most rows at a time")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument(
        "--no-enable-prefix-caching", dest="enable_prefix_caching", action="store_false"
    )
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # A kernel that is under way cannot be interrupted, and what it computes nobody wants.
    os._exit(status)
