"""What serving many runs on one engine is worth: ``python -m bench.engines``.

Real vLLM and transformers on the CPU, a random model of about 20 million parameters, and the
warehouse's runs as a worker plays them. Every figure is a ratio within one run of this program:

- serving: tokens found in the prefix cache over those that could have been; preemptions; tokens a
  second over a bare asyncio client's that asks the same server the same;
- people: engine-hours of the same runs as people play them today (for each run a load, then one
  request at a time; a few are measured, and scaled) over one worker's, with the factors apart;
- hf: runs side by side over one after another;
- numerics: vLLM against transformers on the same greedy prompts.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.engine_rig import (
    ask_bare,
    bench_model,
    could_hit,
    counters,
    forget_prefixes,
    phase,
    spec,
    work,
)
from vendomini.chat import CompletionRequest, Reply, Sampling
from vendomini.engines.process import ProcessEngine

PARTS = ("serving", "hf", "numerics")
MEASURED_ONE_BY_ONE = 2
CACHE_EPISODES, CACHE_REQUESTS = 8, 8

Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--hf-steps", type=int, default=2)
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # so that the prefix cache can be emptied
    figures: Figures = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {processor()}, no GPU",
        "python": platform.python_version(),
        "episodes": options.episodes,
        "steps": options.steps,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = bench_model(folder)
        figures["model parameters"] = _parameters(model)
        for part in options.part or PARTS:
            say(part)
            measure = {"serving": _serving, "hf": _hf, "numerics": _numerics}[part]
            figures[part] = asyncio.run(measure(folder, model, options))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


async def _serving(folder: Path, model: Path, options: argparse.Namespace) -> Figures:
    runs = phase(folder, model, episodes=options.episodes, steps=options.steps)
    engine, load_s = await started(spec("vllm", model), folder)
    try:
        before = await counters(engine)
        ours = await work(folder / "ours", runs, engine, under_way=options.episodes)
        after = await counters(engine)
        say(f"ours: {ours.seconds:.0f} s, {len(ours.asked)} requests, {ours.tokens_out} tokens")
        episodes = ours.by_episode()
        await forget_prefixes(engine)
        bare = await ask_bare(engine, episodes)
        say(f"bare: {bare.seconds:.0f} s, {bare.tokens_out} tokens")
        await forget_prefixes(engine)
        alone = [
            (await ask_bare(engine, [episode])).seconds
            for episode in episodes[:MEASURED_ONE_BY_ONE]
        ]
        say(f"alone: {alone}")
        few = [episode[:CACHE_REQUESTS] for episode in episodes[:CACHE_EPISODES]]
        await forget_prefixes(engine)
        cached = await ask_bare(engine, few)
        facts = dict(engine.facts)
    finally:
        await engine.stop()
    engine, _ = await started(spec("vllm", model, enable_prefix_caching=False), folder)
    try:
        uncached = await ask_bare(engine, few)
    finally:
        await engine.stop()
    total, could = could_hit(ours.asked, model)
    hits = (after.prefix_hits or 0) - (before.prefix_hits or 0)
    queries = (after.prefix_queries or 0) - (before.prefix_queries or 0)
    one = statistics.mean(alone)
    count = len(episodes)
    people_s, warm_s, ours_s = count * (load_s + one), load_s + count * one, load_s + ours.seconds
    return {
        "engine": facts,
        "requests": len(ours.asked),
        "prompt tokens": total,
        "reply tokens": ours.tokens_out,
        "longest prompt": max(each.tokens_in for each in ours.asked),
        "prefix cache hits": hits,
        "prefix cache queries": queries,
        "could have hit": could,
        "hits over what could hit": round(hits / could, 4),
        "preemptions": (after.preemptions or 0) - (before.preemptions or 0),
        "seconds": round(ours.seconds, 1),
        "seconds of the bare client": round(bare.seconds, 1),
        "tokens a second": round(ours.tokens_out / ours.seconds, 1),
        "tokens a second of the bare client": round(bare.tokens_out / bare.seconds, 1),
        "tokens a second over the bare client's": round(
            (ours.tokens_out / ours.seconds) / (bare.tokens_out / bare.seconds), 3
        ),
        "as people do it": {
            "measured": f"{len(alone)} of {count} runs one by one, scaled",
            "seconds of one load": round(load_s, 1),
            "seconds of one run alone": [round(each, 1) for each in alone],
            "engine-hours": round(people_s / 3600, 3),
            "engine-hours of one worker": round(ours_s / 3600, 3),
            "ratio": round(people_s / ours_s, 2),
            "factor of loading once": round(people_s / warm_s, 2),
            "factor of playing side by side": round(warm_s / ours_s, 2),
            "factor of the prefix cache": round(uncached.seconds / cached.seconds, 2),
            "the prefix cache measured on": (
                f"the first {CACHE_REQUESTS} requests of {len(few)} runs, side by side"
            ),
            "over a warm server with all runs side by side": round(
                (load_s + bare.seconds) / ours_s, 3
            ),
        },
    }


async def _hf(folder: Path, model: Path, options: argparse.Namespace) -> Figures:
    """Without a prefix cache a step reads its whole conversation again: fewer steps."""
    runs = phase(folder, model, episodes=options.episodes, steps=options.hf_steps)
    engine, load_s = await started(spec("hf", model), folder)
    try:
        together = await work(folder / "hf", runs, engine, under_way=options.episodes)
        say(f"hf together: {together.seconds:.0f} s")
        episodes = together.by_episode()
        alone = [
            (await ask_bare(engine, [episode])).seconds
            for episode in episodes[: 4 * MEASURED_ONE_BY_ONE]
        ]
        facts = dict(engine.facts)
    finally:
        await engine.stop()
    one_by_one = statistics.mean(alone) * len(episodes)
    return {
        "engine": facts,
        "seconds of one load": round(load_s, 1),
        "steps": options.hf_steps,
        "requests": len(together.asked),
        "seconds side by side": round(together.seconds, 1),
        "seconds one after another": round(one_by_one, 1),
        "measured one after another": f"{len(alone)} of {len(episodes)} runs, scaled",
        "ratio": round(one_by_one / together.seconds, 2),
    }


async def _numerics(folder: Path, model: Path, options: argparse.Namespace) -> Figures:
    greedy = Sampling(temperature=0.0, max_tokens=32, top_logprobs=1)
    words = ["order", "ship", "wait", "supplier", "budget", "day", "price", "stock", "late", "due"]
    requests = [
        CompletionRequest(prompt=" ".join(words[i % 10 :] * (1 + i % 7)), sampling=greedy, seed=i)
        for i in range(64)
    ]
    replies: dict[str, list[Reply]] = {}
    for backend in ("vllm", "hf"):
        engine, _ = await started(spec(backend, model), folder)
        try:
            replies[backend] = list(await asyncio.gather(*map(engine.answer, requests)))
        finally:
            await engine.stop()
    pairs = list(zip(replies["vllm"], replies["hf"], strict=True))
    differences = [difference for pair in pairs for difference in differences(*pair)]
    return {
        "prompts": len(requests),
        "share of equal replies": round(
            sum(one.text == other.text for one, other in pairs) / len(pairs), 4
        ),
        "tokens compared": len(differences),
        "largest difference of log-probabilities": max(differences),
    }


def differences(one: Reply, other: Reply) -> list[float]:
    """Of the log-probabilities, as far as the two replies have the same tokens."""
    found = []
    for mine, its in zip(
        one.choices[0].logprobs or (), other.choices[0].logprobs or (), strict=False
    ):
        if mine.token != its.token:
            break
        found.append(abs(mine.logprob - its.logprob))
    return found


async def started(wanted: Any, folder: Path) -> tuple[ProcessEngine, float]:
    log = folder / f"engine{len(list(folder.glob('engine*.log')))}.log"
    engine = ProcessEngine(wanted, log=log, said=say)
    began = time.perf_counter()
    await engine.start()
    return engine, time.perf_counter() - began


def _parameters(model: Path) -> int:
    return (model / "model.safetensors").stat().st_size // 4


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def say(text: str) -> None:
    print(f"[bench] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
