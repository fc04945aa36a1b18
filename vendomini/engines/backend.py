"""The seam to what answers: what VendoMini asks of a kind of engine. Derive from `Backend`.

An entry point of the group ``vendomini.engines`` gives it the name that a phase file writes as
`engine.backend`. See docs/engines.md for one that works.
"""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

from vendomini.chat import Engine
from vendomini.serving import EngineSettings, EngineSpec

Say: TypeAlias = Callable[[str], None]
"""Tells a person one line: on the terminal, or in the worker's log."""

Dialect: TypeAlias = Literal["hf", "vllm", "openai"]
"""Whose server it is: our own, vLLM's, or any that is compatible with OpenAI's."""

ON_EVERY_SERVER = frozenset({"concurrency", "start_timeout_s", "request_timeout_s"})
"""Settings that act wherever requests go over a connection."""


class Backend:
    """A kind of engine. All of it is asked before anything is loaded, so keep imports in `open`.

    `name` is set by the registry. `open` is all that one has to write.
    """

    name: str = ""

    takes: ClassVar[frozenset[str]] = frozenset({"concurrency"})
    """The settings of `engine` that act, by name. What a phase file sets besides is refused."""

    stands_in: ClassVar[bool] = False
    """Whether it takes the place of any other for a try: then settings of others are left alone,
    and the model need not exist."""

    planned_as: ClassVar[Literal["vllm", "hf"] | None] = None
    """Whose memory and speed on GPUs it has, in the planner's eyes. None: it takes no GPU of a
    worker's, and nothing is computed."""

    packages: ClassVar[tuple[str, ...]] = ()
    """What must be importable where its process runs."""

    install: ClassVar[str] = ""
    """How to get these."""

    fallback: ClassVar[str | None] = None
    """The backend that takes its place, on the same GPUs, where it cannot start before a group has
    replies. None: there is none, and the worker ends."""

    def open(self, spec: EngineSpec, *, log: Path, said: Say) -> Engine:
        """The engine that a spec describes, not yet started.

        A process's own output goes to `log`; what a person should know is `said`.
        """
        raise NotImplementedError

    def check(self, settings: EngineSettings) -> None:
        """Raise `ConfigError` for settings that cannot be used with it."""

    def falls_back(self, cause: str) -> tuple[str, ...]:
        """What the worker's log says where its fallback takes its place, line by line."""
        return (
            f"[WARNING] {self.name} initialization failed: {cause}",
            f"[*] Falling back to {self.fallback}",
        )

    def where(self, settings: EngineSettings) -> str:
        """Where it runs if it takes no GPU of a worker's, for the plan's reasons."""
        return "inside the worker"

    def instead(self, setting: str) -> str | None:
        """What to do in place of a setting that does not act; None: nothing special."""
        return None

    def usd(self, settings: EngineSettings, *, tokens_in: float, tokens_out: float) -> float | None:
        """What so many tokens of prompts and replies cost, in US dollars; None: nobody is billed
        for them."""
        return None

    def stages(self, spec: EngineSpec) -> int:
        """How many GPUs in turn compute each token."""
        return spec.settings.pipeline_parallel_size or 1
