"""What a real model's conversations cost on each engine: ``python -m bench.conversations MODEL``.

One phase of the warehouse, its runs side by side on one worker, on the CPU: vLLM, our `hf` engine,
the same without kept prefixes, and with ``--against CHECKOUT`` the `hf` engine of another version.
Everything is measured in one run of this program, one engine after the other:

- replies a second, from the first request to the last reply, the start of the engine apart;
- tokens of prompts that were computed over those that were new: in whole blocks of 32 tokens, what
  no earlier prompt began with;
- numerics: the same greedy prompts on vLLM, `hf` and `hf` without kept prefixes, under their schema
  and as plain text: how many replies are equal, and the largest difference of log-probabilities up
  to the first other token. (Under a schema vLLM tells those within the grammar, `hf` the model's.)
"""

import argparse
import asyncio
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.engine_rig import Asked, could_hit, phase, spec, work
from bench.engines import differences, processor, say, started
from vendomini.chat import Reply, ReplyFormat, Sampling
from vendomini.engines.process import ProcessEngine

WINDOW = 8192
KV_CACHE_BYTES = 4 << 30
COMPARED = 16
GREEDY = Sampling(temperature=0.0, max_tokens=48, top_logprobs=1)

Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder of a model with a chat template")
    parser.add_argument("--runs", type=int, default=8, help="a multiple of 4")
    parser.add_argument("--days", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=300.0, help="at most, on each engine")
    parser.add_argument("--against", type=Path, help="a checkout of another version")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    model = options.model.absolute()
    figures: Figures = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {processor()}, no GPU",
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "model": model.name,
        "runs": options.runs,
        "days": options.days,
    }
    figures |= asyncio.run(_measured(model, options))
    text = json.dumps(figures, indent=2)
    if options.json is not None:
        options.json.write_text(text + "\n")
    print(text)


async def _measured(model: Path, options: argparse.Namespace) -> Figures:
    ways: dict[str, tuple[Any, Path | None]] = {
        "vllm": (_spec("vllm", model), None),
        "hf": (_spec("hf", model), None),
        "hf without kept prefixes": (_spec("hf", model, enable_prefix_caching=False), None),
    }
    if options.against is not None:
        ways["hf of the other version"] = (_spec("hf", model), options.against.absolute())
    played: Figures = {}
    replies: dict[str, dict[str, list[Reply]]] = {}
    compared: list[Asked] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for way, (wanted, checkout) in ways.items():
            say(way)
            with _code_of(checkout):
                engine, load_s = await started(wanted, folder)
            try:
                played[way], asked = await _play(folder / way, model, engine, options)
                compared = compared or asked[:: max(1, len(asked) // COMPARED)][:COMPARED]
                if checkout is None:
                    replies[way] = await _greedy(engine, compared)
            finally:
                await engine.stop()
            played[way]["seconds of the start"] = round(load_s, 1)
            say(json.dumps(played[way]))
    for way, found in played.items():
        if way != "hf":
            ratio = played["hf"]["replies a second"] / found["replies a second"]
            found["replies a second of hf over this"] = round(ratio, 2)
    return {"played": played, "numerics": _numerics(replies)}


async def _play(
    folder: Path, model: Path, engine: ProcessEngine, options: argparse.Namespace
) -> tuple[Figures, list[Asked]]:
    folder.mkdir()
    runs = phase(folder, model, episodes=options.runs, steps=options.days, window=WINDOW)
    heard = await work(
        folder / "experiment", runs, engine, under_way=options.runs, seconds=options.seconds
    )
    done = [each for each in heard.asked if each.tokens_out]
    total, could = could_hit(done, model)
    computed = sum(each.tokens_in - each.tokens_cached for each in done)
    return {
        "replies": len(done),
        "seconds": round(heard.seconds, 1),
        "replies a second": round(len(done) / heard.seconds, 4),
        "longest prompt": max(each.tokens_in for each in done),
        "tokens of prompts": total,
        "of these new": total - could,
        "computed": computed,
        "computed over new": round(computed / (total - could), 3),
        "tokens of replies": sum(each.tokens_out for each in done),
    }, done


async def _greedy(engine: ProcessEngine, compared: Sequence[Asked]) -> dict[str, list[Reply]]:
    """By form. One at a time: what is beside a prompt moves its low bits."""
    asked = [replace(each.request, sampling=GREEDY) for each in compared]
    forms = {
        "under a schema": asked,
        "as plain text": [replace(each, reply_format=ReplyFormat()) for each in asked[::2]],
    }
    return {
        form: [await engine.answer(each) for each in requests] for form, requests in forms.items()
    }


def _numerics(replies: dict[str, dict[str, list[Reply]]]) -> Figures:
    def compare(one: str, other: str, form: str) -> Figures:
        pairs = list(zip(replies[one][form], replies[other][form], strict=True))
        found = [each for pair in pairs for each in differences(*pair)]
        return {
            "prompts": len(pairs),
            "equal replies": sum(mine.text == its.text for mine, its in pairs),
            "tokens compared": len(found),
            "largest difference of log-probabilities": max(found, default=0.0),
        }

    return {
        form: {
            "hf and vllm": compare("hf", "vllm", form),
            "hf with kept prefixes and without": compare("hf", "hf without kept prefixes", form),
        }
        for form in replies["hf"]
    }


def _spec(backend: str, model: Path, **changes: Any) -> Any:
    sizes = {"max_model_len": WINDOW, "kv_cache_memory_bytes": KV_CACHE_BYTES}
    return spec(backend, model, **sizes, **changes)


@contextmanager
def _code_of(checkout: Path | None) -> Iterator[None]:
    """Engines that start meanwhile run another version's code."""
    if checkout is None:
        yield
        return
    assert (checkout / "vendomini" / "engines").is_dir(), f"{checkout} is no checkout"
    with chdir(checkout):  # where `python -m` looks first
        yield


if __name__ == "__main__":
    main()
