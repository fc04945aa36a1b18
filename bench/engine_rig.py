"""What the benchmark of engines is made of: a model, a phase, a worker that is listened to, and a
bare client that asks the same again."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.tiny_models import tiny_model
from vendomini.chat import (
    Capacity,
    ChatRequest,
    EngineFeatures,
    Load,
    Reply,
    Request,
)
from vendomini.config import expand, load_phase
from vendomini.engines.commands import SERVED_NAME
from vendomini.engines.metrics import Counters, parse_metrics
from vendomini.engines.process import ProcessEngine
from vendomini.engines.protocol import chat_body
from vendomini.engines.scripted import echo
from vendomini.errors import EngineDead
from vendomini.phase import Run, group_key, settings_of
from vendomini.serving import EngineSettings, EngineSpec
from vendomini.store.claims import Watch
from vendomini.store.experiment import Experiment
from vendomini.store.heartbeat import new_incarnation
from vendomini.store.process import this_process
from vendomini.store.records import WorkerRecord
from vendomini.worker.drain import Drain
from vendomini.worker.job import Job
from vendomini.worker.worker import Worker
from vendomini.workloads.registry import workload_named

ROOT = Path(__file__).parent.parent
VLLM_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
WAREHOUSE = workload_named("warehouse")
WINDOW = 16384
KV_CACHE_BYTES = 5 << 30
BLOCK = 32


def phase(
    folder: Path, model: Path | str, *, episodes: int, steps: int, window: int = WINDOW
) -> list[Run]:
    """The runs of a phase of four doses, as a phase file gives them."""
    assert episodes % 4 == 0
    file = folder / "phase.yaml"
    file.write_text(
        json.dumps(
            {
                "inherit": str(ROOT / "configs" / "base.yaml"),
                "experiment": {"name": "bench", "replications": episodes // 4, "seed": 0},
                "agent": {
                    # Short replies: a random model draws every token it may.
                    "interface": {"prediction_format": "minimal"},
                    "kind": "llm",
                    "model": {
                        "name": str(model),
                        "context_length": window,
                        "max_tokens_per_call": 128,
                        "temperature": 0.7,
                    },
                },
                "fixed": {"simulation.max_steps": steps},
                "grid": {"pe_induction.p_shock": [0.0, 0.2, 0.5, 0.8]},
            }
        )
    )
    return expand(load_phase(file, (), workload_named=workload_named))


def bench_model(folder: Path) -> Path:
    """About 20 million parameters, with a tokenizer that knows the warehouse's words."""
    (run, *_) = phase(folder, "none/yet", episodes=4, steps=12)
    settings: Any = settings_of(run.settings, WAREHOUSE.settings_type)
    episode = WAREHOUSE.play(settings, seed=0, replication=0, record=lambda step: None)
    texts: list[str] = []
    asked = next(episode)
    try:
        while True:
            for request in asked:
                assert isinstance(request, ChatRequest)
                texts = [message.content for message in request.messages]
            asked = episode.send(tuple(map(echo, asked)))
    except StopIteration:
        pass
    return tiny_model(
        folder / "model",
        hidden_size=384,
        layers=12,
        heads=12,
        key_value_heads=4,
        intermediate_size=1024,
        vocabulary=4096,
        max_position_embeddings=WINDOW,
        text="\n".join(texts),
    )


def spec(backend: str, model: Path, **changes: Any) -> EngineSpec:
    values: dict[str, Any] = {
        "backend": backend,
        "model": str(model),
        "device": "cpu",
        "dtype": "float32",
        "max_model_len": WINDOW,
        "kv_cache_memory_bytes": KV_CACHE_BYTES,
        "python": str(VLLM_PYTHON) if backend == "vllm" else None,
    }
    settings = {**values, **changes}
    return EngineSpec(model=str(settings.pop("model")), settings=EngineSettings(**settings))


@dataclass(slots=True)
class Asked:
    """One request as it went out: which episode's it was, and what came back."""

    episode: str
    request: ChatRequest
    body: bytes
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0


@dataclass(slots=True)
class Heard:
    """Everything a worker asked, in the order of asking, and how long it took in all."""

    asked: list[Asked] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def tokens_out(self) -> int:
        return sum(each.tokens_out for each in self.asked)

    def by_episode(self) -> list[list[Asked]]:
        found: dict[str, list[Asked]] = {}
        for each in self.asked:
            found.setdefault(each.episode, []).append(each)
        return list(found.values())


class Shared:
    """An engine that outlives workers, and remembers what they ask of it."""

    def __init__(self, engine: ProcessEngine) -> None:
        self.engine = engine
        self.heard = Heard()

    @property
    def features(self) -> EngineFeatures:
        return self.engine.features

    @property
    def capacity(self) -> Capacity:
        return self.engine.capacity

    @property
    def facts(self) -> Mapping[str, str]:
        return self.engine.facts

    async def start(self) -> None:
        """It has started."""

    async def answer(self, request: Request) -> Reply:
        assert isinstance(request, ChatRequest)
        task = asyncio.current_task()
        assert task is not None
        noted = Asked(
            episode=task.get_name(),
            request=request,
            body=chat_body(request, model=SERVED_NAME, dialect="vllm"),
        )
        self.heard.began = self.heard.began or time.perf_counter()
        self.heard.asked.append(noted)
        reply = await self.engine.answer(request)
        self.heard.ended = time.perf_counter()
        noted.tokens_in, noted.tokens_out = reply.tokens_in, reply.tokens_out
        noted.tokens_cached = reply.tokens_cached
        return reply

    async def load(self) -> Load | None:
        return await self.engine.load()

    async def died(self) -> EngineDead:
        return await self.engine.died()

    async def stop(self) -> None:
        """It goes on."""


async def work(
    folder: Path,
    runs: Sequence[Run],
    engine: ProcessEngine,
    *,
    under_way: int,
    seconds: float | None = None,
) -> Heard:
    """Let a worker play the runs, `under_way` at a time, on an engine that has started; after so
    many seconds no further."""
    experiment = Experiment(folder)
    experiment.extend("phase: bench", list(runs))
    shared = Shared(engine)
    job = Job(
        experiment=str(experiment.folder.absolute()),
        submission="bench",
        group=group_key(runs[0], "script"),
        pin_key="bench",
        engine=engine.spec,
        concurrency=under_way,
        workers=1,
    )
    identity = WorkerRecord(
        incarnation=new_incarnation(),
        beat=0,
        state="starting",
        process=this_process(),
        submission="bench",
        group=job.group,
        started="",
    )
    worker = Worker(
        experiment,
        job,
        identity=identity,
        workload=WAREHOUSE,
        engine=shared,
        watch=Watch(experiment, dead_after_s=180),
        drain=Drain(deadline=None, drain_s=10),
        said=lambda text: None,
    )
    try:
        ended = await asyncio.wait_for(worker.work(), seconds)
    except TimeoutError:
        return shared.heard
    assert ended.problem is None, ended.problem
    assert ended.failed == 0
    return shared.heard


async def ask_bare(engine: ProcessEngine, episodes: Sequence[Sequence[Asked]]) -> Heard:
    """The same requests by nothing but an HTTP client: each episode's one after another, the
    episodes side by side."""
    heard = Heard()
    socket, key = engine.address
    connector = aiohttp.UnixConnector(path=str(socket), limit=0)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def play(episode: Sequence[Asked]) -> None:
            for each in episode:
                async with session.post(
                    "http://engine/v1/chat/completions",
                    data=each.body,
                    timeout=aiohttp.ClientTimeout(total=None),
                ) as answer:
                    usage = (await answer.json())["usage"]
                heard.asked.append(
                    Asked(
                        episode=each.episode,
                        request=each.request,
                        body=b"",
                        tokens_in=usage["prompt_tokens"],
                        tokens_out=usage["completion_tokens"],
                    )
                )

        heard.began = time.perf_counter()
        await asyncio.gather(*map(play, episodes))
        heard.ended = time.perf_counter()
    return heard


async def counters(engine: ProcessEngine) -> Counters:
    return parse_metrics(await _call(engine, "GET", "/metrics"))


async def forget_prefixes(engine: ProcessEngine) -> None:
    """vLLM offers this only to those who start it with VLLM_SERVER_DEV_MODE=1."""
    await _call(engine, "POST", "/reset_prefix_cache")


async def _call(engine: ProcessEngine, method: str, path: str) -> bytes:
    socket, key = engine.address
    connector = aiohttp.UnixConnector(path=str(socket))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(
            method, f"http://engine{path}", headers={"Authorization": f"Bearer {key}"}
        ) as answer,
    ):
        answer.raise_for_status()
        return await answer.read()


def could_hit(asked: Sequence[Asked], model: Path) -> tuple[int, int]:
    """Tokens asked, and of them those that an endless prefix cache would have found.

    For each prompt the longest prefix in whole blocks that an earlier prompt begins with too;
    never all of it, because the last token has to be computed for its logits.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    seen: set[int] = set()
    total = could = 0
    for each in asked:
        messages = [
            {"role": message.role, "content": message.content} for message in each.request.messages
        ]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        total += len(tokens)
        chain, is_known = 0, True
        for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
            chain = hash((chain, *tokens[start : start + BLOCK]))
            is_known = is_known and chain in seen and start + BLOCK < len(tokens)
            could += BLOCK if is_known else 0
            seen.add(chain)
    return total, could
