"""The agent whose calls a model makes: one conversation, one user message a step.

A reply that cannot be read is answered by a short message that says what is wrong, at most
twice; then the day is idle. It stays in the conversation, which only grows: the first
`KEPT_OF_UNREADABLE` characters of it, so that a model that never ends does not fill its own
window. A reply that can be read stays exactly as it came, without the reasoning apart from it.

The belief question is asked beside a day's first request, in the same ask: places, seeds and
messages of all other requests are the same with and without it.
"""

from vendomini.chat import (
    TEXT,
    ChatRequest,
    Episode,
    Message,
    Reply,
    ReplyFormat,
    Sampling,
    ask_all,
)
from vendomini.errors import ConfigError
from vendomini.workloads.warehouse.agent import Believed, Briefing, Decision, Seen
from vendomini.workloads.warehouse.beliefs import is_asked, question_beside, read_belief
from vendomini.workloads.warehouse.conversation import (
    FIRST_TOKENS_PER_CHARACTER,
    Conversation,
)
from vendomini.workloads.warehouse.ledger import Ledger
from vendomini.workloads.warehouse.prompt import morning_text, re_ask_text, system_text
from vendomini.workloads.warehouse.reading import FormatFailure, Reader
from vendomini.workloads.warehouse.recovery import RESET
from vendomini.workloads.warehouse.reply_schema import reply_schema
from vendomini.workloads.warehouse.settings import AgentSettings

MOST_RE_ASKS = 2
KEPT_OF_UNREADABLE = 600  # characters
CUT = " [...]"
RESULT_CHARACTERS_PER_TOKEN = 0.75  # of the window, for one result: a fifth to a quarter of it
LONGEST_RESULT = 20_000  # characters, however long the window
# One part in so many of what a day may take beside the rules and its reply.
RESULT_SHARE, LEDGER_SHARE = 2, 3
LEAST_CHARACTERS = 200  # of a result; a window that has no room for them is refused when it is full


class Llm:
    """Plays one run."""

    __slots__ = (
        "_beliefs_every",
        "_conversation",
        "_model",
        "_reader",
        "_reply_format",
        "_result_limit",
        "_wants_reset",
    )

    def __init__(self, briefing: Briefing, agent: AgentSettings) -> None:
        """Raises `ConfigError` if the window is not known."""
        window, interface = agent.model.context_length, agent.interface
        if not isinstance(window, int):
            raise ConfigError(
                f"`agent.model.context_length` is `{window}`, and nothing has decided it",
                hint="set `agent.model.context_length` to a number of tokens, such as 32000",
            )
        self._model = agent.model
        self._beliefs_every = interface.beliefs_every
        self._reader = Reader(interface, {tool.name for tool in briefing.tools})
        self._reply_format = TEXT
        if interface.reply_format == "schema":
            schema = reply_schema(briefing.tools, interface)
            self._reply_format = ReplyFormat(kind="schema", json_schema=schema)
        self._wants_reset = False  # by its last call
        system = system_text(briefing, interface)
        room = int((window - agent.model.max_tokens_per_call) / FIRST_TOKENS_PER_CHARACTER)
        room = max(room - len(system), RESULT_SHARE * LEAST_CHARACTERS)
        self._result_limit = min(
            LONGEST_RESULT, int(RESULT_CHARACTERS_PER_TOKEN * window), room // RESULT_SHARE
        )
        self._conversation = Conversation(
            system=Message(role="system", content=system),
            window=window,
            reply_tokens=agent.model.max_tokens_per_call,
            ledger=Ledger(
                expire_after_days=briefing.expire_after_days, longest=room // LEDGER_SHARE
            ),
        )

    def ask(self, seen: Seen) -> Episode[Decision]:
        """Raises `ConfigError` if the window is too small for a single step."""
        conversation = self._conversation
        if self._wants_reset and seen.last_result is not None and seen.last_result["success"]:
            conversation.forget()
        self._wants_reset = False
        conversation.begin(
            seen,
            morning_text(seen, is_first=conversation.is_empty, result_limit=self._result_limit),
        )
        reply, believed = yield from self._reply(
            with_question=is_asked(seen.day, self._beliefs_every)
        )
        re_asks = 0
        while True:
            choice = reply.choices[0]
            said = self._reader.read(choice.text, choice.finish_reason)
            if not isinstance(said, FormatFailure):
                conversation.answered(reply, _sendable(choice.text))
                conversation.called((said.tool, said.arguments))
                self._wants_reset = said.tool == RESET
                return Decision(
                    tool=said.tool,
                    arguments=said.arguments,
                    card=said.card,
                    re_asks=re_asks,
                    believed=believed,
                )
            conversation.answered(reply, _cut(_sendable(choice.text)))
            if re_asks == MOST_RE_ASKS:
                return Decision(parse_status="failed", re_asks=re_asks, believed=believed)
            re_asks += 1
            conversation.say(re_ask_text(said.why))
            reply, _ = yield from self._reply(with_question=False)

    def _reply(self, *, with_question: bool) -> Episode[tuple[Reply, Believed | None]]:
        """The reply to the conversation as it is, after truncations if it is too long.

        With it what was answered to the belief question; None if it was not asked.
        """
        conversation, model = self._conversation, self._model
        conversation.make_room()
        while True:
            request = ChatRequest(
                messages=conversation.messages,
                sampling=Sampling(
                    temperature=model.temperature,
                    top_p=model.top_p,
                    max_tokens=model.max_tokens_per_call,
                ),
                reply_format=self._reply_format,
                thinking=model.thinking,
            )
            asked = (request, question_beside(request)) if with_question else (request,)
            reply, *answers = yield from ask_all(asked)
            if reply.choices[0].finish_reason != "context":
                return reply, read_belief(answers[0]) if answers else None
            if not conversation.truncate():
                raise ConfigError(
                    "the rules, one day and its reply do not fit the window: "
                    f"`agent.model.context_length` is `{model.context_length}` tokens, "
                    f"`agent.model.max_tokens_per_call` `{model.max_tokens_per_call}`",
                    hint="raise `agent.model.context_length`, or lower "
                    "`agent.model.max_tokens_per_call`",
                )


def _sendable(text: str) -> str:
    """The text as it came, unless it holds half characters that no request can carry."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _cut(text: str) -> str:
    return text if len(text) <= KEPT_OF_UNREADABLE else text[:KEPT_OF_UNREADABLE] + CUT
