"""The routes: OpenAI's protocol as vLLM speaks it, in front of the batcher."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import jinja2
import msgspec
import transformers
from aiohttp import web

from vendomini.engines.hf import protocol
from vendomini.engines.hf.batching import Batcher
from vendomini.engines.hf.loading import Loaded
from vendomini.engines.hf.protocol import Asked, Chat, Completion, Refused, Tokenize
from vendomini.engines.hf.sampling import Aborted, Drawing, Row
from vendomini.errors import EngineError
from vendomini.thoughts import Marks, opened_by, split

MOST_BODY_BYTES = 1 << 28

COMPLETION_TOKENS = 16
"""A completion's `max_tokens` where none is given; OpenAI's."""

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prompt:
    ids: list[int]
    opened: Marks | None = None  # of the thought that it ends inside of


class Server:
    """Answers for one model. `preparing` is one thread: tokenizers are not made for several."""

    def __init__(self, loaded: Loaded, batcher: Batcher, *, name: str, key: str) -> None:
        self.loaded = loaded
        self.batcher = batcher
        self.name = name
        self._key = f"Bearer {key}".encode()
        self._preparing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="preparing")

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MOST_BODY_BYTES, middlewares=[self._guarded])
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/version", self._version)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the key, and turn what goes wrong into an error body."""
        try:
            sent = request.headers.get("Authorization", "").encode()
            if request.path != "/health" and not hmac.compare_digest(sent, self._key):
                raise Refused("the key is wrong", status=401)
            return await handler(request)
        except Refused as refusal:
            return _json(refusal.body(), status=refusal.status)
        except web.HTTPException as error:
            return _json(Refused(error.reason, status=error.status).body(), status=error.status)
        except Aborted as error:
            return _json(Refused(str(error), status=503).body(), status=503)
        except Exception as error:  # of a batch: that batch's, and the server lives on
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            print(f"[!] a request failed: {reason}", flush=True)
            return _json(Refused(reason, status=500).body(), status=500)

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()  # the socket opens when the model is loaded

    async def _models(self, request: web.Request) -> web.Response:
        model = {
            "id": self.name,
            "object": "model",
            "owned_by": "vendomini",
            "max_model_len": self.loaded.max_model_len,
        }
        return _json({"object": "list", "data": [model]})

    async def _version(self, request: web.Request) -> web.Response:
        return _json({"version": f"transformers {transformers.__version__}"})

    async def _metrics(self, request: web.Request) -> web.Response:
        counters, loaded = self.batcher.generation.counters, self.loaded
        values = {
            "num_requests_running": self.batcher.running,
            "num_requests_waiting": self.batcher.waiting,
            "num_preemptions_total": counters.preemptions,
            "prompt_tokens_total": counters.prompt_tokens,
            "generation_tokens_total": counters.generated_tokens,
            "prefix_cache_queries_total": counters.prompt_tokens,
            "prefix_cache_hits_total": counters.kept_tokens,
            "passes_total": counters.passes,
        }
        lines = [f"vendomini:{name} {value}" for name, value in values.items()]
        labels = {
            "attention": loaded.attention,
            "block_size": 1,
            "device": loaded.device,
            "dtype": loaded.dtype,
            # Half of it: what rests stays beside the rows of those under way.
            "kv_cache_size_tokens": loaded.kv_tokens // (1 if loaded.reader is None else 2),
        }
        shown = ",".join(f'{name}="{value}"' for name, value in labels.items())
        lines.append(f"vendomini:cache_config_info{{{shown}}} 1")
        return web.Response(text="\n".join(lines) + "\n")

    async def _tokenize(self, request: web.Request) -> web.Response:
        asked: Tokenize = protocol.read_body(await request.read(), Tokenize)
        if (asked.prompt is None) == (asked.messages is None):
            raise Refused("either `prompt` or `messages` is needed")

        def prepare() -> list[int]:
            special = asked.add_special_tokens
            if asked.messages is None:
                return self._ids_of(asked.prompt or "", special=special is not False)
            text = self._render(
                asked.messages,
                asked.chat_template_kwargs,
                add_generation_prompt=asked.add_generation_prompt,
            )
            return self._ids_of(text, special=special is True)

        ids = await self._prepared(prepare)
        return _json({"count": len(ids), "max_model_len": self.loaded.max_model_len, "tokens": ids})

    async def _chat(self, request: web.Request) -> web.Response:
        asked: Chat = protocol.read_body(await request.read(), Chat)
        self._check_model(asked)
        if not asked.messages:
            raise Refused("`messages` is empty", param="messages")

        def prepare() -> tuple[_Prompt, list[Row]]:
            text = self._render(asked.messages, asked.chat_template_kwargs)
            prompt = _Prompt(ids=self._ids_of(text, special=False), opened=opened_by(text))
            asks = any(asked.chat_template_kwargs.get(k) for k in ("enable_thinking", "thinking"))
            thinks = prompt.opened is not None or (asks and self.loaded.thinks)
            top = asked.top_logprobs if asked.logprobs else None
            return prompt, self._rows(asked, prompt.ids, top=top, thinks=thinks)

        prompt, rows = await self._prepared(prepare)
        drawn = await self.batcher.answer(rows)
        most = None if asked.logprob_token_ids else asked.top_logprobs
        choices = []
        for index, each in enumerate(drawn):
            text = self._text(each, thoughts=True)
            reasoning, content = split(text, opened=prompt.opened)
            choices.append(
                {
                    "index": index,
                    "message": {"role": "assistant", "content": content, "reasoning": reasoning},
                    "finish_reason": "stop" if each.stopped else "length",
                    "logprobs": None
                    if each.row.top_logprobs is None
                    else protocol.chat_logprobs(each.logprobs, self.loaded.decode, most=most),
                }
            )
        return self._reply("chat.completion", choices, prompt.ids, drawn)

    async def _completions(self, request: web.Request) -> web.Response:
        asked: Completion = protocol.read_body(await request.read(), Completion)
        self._check_model(asked)

        def prepare() -> list[Row]:
            ids = asked.prompt
            if isinstance(ids, str):
                ids = self._ids_of(ids, special=asked.add_special_tokens)
            self._check_ids(ids)
            return self._rows(asked, ids, top=asked.logprobs, scored=asked.prompt_logprobs)

        rows = await self._prepared(prepare)
        drawn = await self.batcher.answer(rows)
        decode = self.loaded.decode
        choices = [
            {
                "index": index,
                "text": self._text(each),
                "finish_reason": "stop" if each.stopped else "length",
                "logprobs": None
                if each.row.top_logprobs is None
                else protocol.completion_logprobs(
                    each.logprobs, decode, by_id=asked.return_tokens_as_token_ids
                ),
                "prompt_logprobs": None
                if each.row.prompt_logprobs is None
                else protocol.prompt_logprobs(each.prompt_scores, decode),
            }
            for index, each in enumerate(drawn)
        ]
        return self._reply("text_completion", choices, rows[0].prompt, drawn)

    def _reply(
        self, kind: str, choices: list[dict[str, Any]], prompt: list[int], drawn: list[Drawing]
    ) -> web.Response:
        usage = protocol.usage(len(prompt), drawn)
        return _json({"object": kind, "model": self.name, "choices": choices, "usage": usage})

    async def _prepared(self, prepare: Callable[[], T]) -> T:
        """Off the event loop: templates, tokenizers and grammars take their time."""
        return await asyncio.get_running_loop().run_in_executor(self._preparing, prepare)

    def _rows(
        self,
        asked: Asked,
        prompt: list[int],
        *,
        top: int | None,
        scored: int | None = None,
        thinks: bool = False,
    ) -> list[Row]:
        """One row a choice. Raises `Refused`."""
        window = self.loaded.max_model_len
        left = window - len(prompt)
        wanted = asked.max_tokens
        if wanted is None:
            wanted = COMPLETION_TOKENS if isinstance(asked, Completion) else max(left, 1)
        if wanted > left:
            raise Refused(
                f"This model's maximum context length is {window} tokens, but the prompt has "
                f"{len(prompt)} and {wanted} new ones were asked for",
                param="context_length",
            )
        if not prompt:
            raise Refused("the prompt is empty", param="prompt")
        self._check_ids(asked.logprob_token_ids)
        stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop
        return [
            Row(
                prompt=prompt,
                max_tokens=wanted,
                temperature=asked.temperature,
                top_p=asked.top_p,
                seed=None if asked.seed is None else asked.seed + sample,
                stop=tuple(text for text in stop if text),
                top_logprobs=top,
                logprob_ids=tuple(asked.logprob_token_ids),
                prompt_logprobs=scored,
                grammar=self._grammar(asked),
                think_end=self.loaded.think_end if thinks else None,
                ends=not asked.ignore_eos,
            )
            for sample in range(asked.n)
        ]

    def _grammar(self, asked: Asked) -> Any:
        form = asked.response_format
        if form.type == "text":
            return None
        if form.json_schema is None:
            raise Refused("`response_format` lacks its `json_schema`", param="response_format")
        try:
            return self.loaded.grammars.compile(
                msgspec.json.encode(form.json_schema.schema).decode()
            )
        except EngineError as error:
            raise Refused(str(error), param="response_format") from error

    def _text(self, drawn: Drawing, *, thoughts: bool = False) -> str:
        """Up to the first stop string. `thoughts` keeps the marks of thoughts."""
        row, tokens = drawn.row, drawn.tokens
        if row.ends and tokens and tokens[-1] in self.loaded.end_ids:
            tokens = tokens[:-1]
        text = self.loaded.text_of(tokens, thoughts=thoughts)
        ends = [place for place in (text.find(stop) for stop in row.stop) if place >= 0]
        return text[: min(ends)] if ends else text

    def _render(
        self,
        messages: list[protocol.Message],
        arguments: dict[str, Any],
        *,
        add_generation_prompt: bool = True,
    ) -> str:
        """By the model's own template. Raises `Refused` where it has none, or objects."""
        tokenizer = self.loaded.tokenizer
        if not tokenizer.chat_template:
            raise Refused("the model has no chat template: it cannot chat", param="messages")
        try:
            rendered = tokenizer.apply_chat_template(
                [{"role": message.role, "content": message.content} for message in messages],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **arguments,
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise Refused(f"the chat template refused: {error}", param="messages") from error
        return str(rendered)

    def _ids_of(self, text: str, *, special: bool) -> list[int]:
        return list(self.loaded.tokenizer(text, add_special_tokens=special)["input_ids"])

    def _check_model(self, asked: Asked) -> None:
        if asked.model != self.name:
            raise Refused(
                f"the model `{asked.model}` does not exist: `{self.name}` is served",
                status=404,
                param="model",
            )

    def _check_ids(self, ids: list[int]) -> None:
        wrong = [token for token in ids if not 0 <= token < self.loaded.vocabulary]
        if wrong:
            raise Refused(f"token id {wrong[0]} is out of the vocabulary")


def _json(body: Any, *, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json"
    )
