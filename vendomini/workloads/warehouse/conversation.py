"""The main conversation: it only grows, until the oldest steps leave in one block.

*The message prefix law*: the messages of a request begin with those of the request before,
except at a truncation. So a server finds all that was computed before in its prefix cache,
and loses it once a truncation, not once a step.

Lengths are the engine's own counts. What is not asked yet is estimated, from the tokens a
character has taken so far, and corrected by the next reply's count.
"""

from dataclasses import dataclass, field

from vendomini.chat import Message, Reply
from vendomini.workloads.warehouse.agent import Seen
from vendomini.workloads.warehouse.ledger import Call, Ledger
from vendomini.workloads.warehouse.settings import LEAVING_SHARE

FIRST_TOKENS_PER_CHARACTER = 0.33  # before the engine has counted anything
MESSAGE_TOKENS = 16  # that a chat template may put round a message
MARGIN = 1.1  # of an estimate: the next text may take more tokens a character than any before
MEASURED_CHARACTERS = 100  # a shorter message says little about tokens per character


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One step: what the agent saw, the messages of it, and the call it came to."""

    seen: Seen
    messages: list[Message]
    tokens: int
    call: Call | None = None  # None: none could be read (yet)


@dataclass(slots=True, kw_only=True)
class Conversation:
    """System message, ledger and steps of one run. Lengths in tokens.

    `window` is the longest a request and its reply may be together, `reply_tokens` the
    longest reply.
    """

    system: Message
    window: int
    reply_tokens: int
    ledger: Ledger
    tokens: int = 0  # of all messages, as well as it is known
    _exchanges: list[Exchange] = field(default_factory=list)
    _ledger_text: str = ""  # empty: nothing has left
    _tokens_per_character: float = FIRST_TOKENS_PER_CHARACTER
    _is_counted: bool = False  # whether `tokens` was the engine's when the last message came
    _has_measured: bool = False

    def __post_init__(self) -> None:
        self.tokens = self._estimate(self.system.content)

    @property
    def messages(self) -> tuple[Message, ...]:
        """What the next request says; the ledger leads the first user message."""
        said = [message for exchange in self._exchanges for message in exchange.messages]
        if self._ledger_text:
            content = f"{self._ledger_text}\n\n{said[0].content}"
            said[0] = Message(role="user", content=content)
        return (self.system, *said)

    @property
    def is_empty(self) -> bool:
        """Whether no step has begun."""
        return not self._exchanges

    def begin(self, seen: Seen, content: str) -> None:
        """A new step, with its user message."""
        self._exchanges.append(Exchange(seen=seen, messages=[], tokens=0))
        self.say(content)

    def say(self, content: str) -> None:
        """A further user message of the step."""
        self._append(Message(role="user", content=content), self._estimate(content))

    def answered(self, reply: Reply, content: str) -> None:
        """The assistant's message, which may be less than the reply's text."""
        exchange = self._exchanges[-1]
        if reply.tokens_in:  # 0: the engine does not count
            self._count(exchange, reply.tokens_in)
        choice = reply.choices[0]
        is_whole = content == choice.text and not choice.reasoning
        taken = reply.tokens_out
        if not taken or not is_whole:
            taken = self._estimate(content)
        self._append(Message(role="assistant", content=content), taken)
        self._is_counted = bool(reply.tokens_in) and is_whole

    def called(self, call: Call) -> None:
        """The step's call, for the ledger."""
        self._exchanges[-1].call = call

    def make_room(self) -> None:
        """Let a block of the oldest steps leave if the next reply might not fit."""
        overflow = self.tokens + self.reply_tokens - self.window
        if overflow > 0:
            self.truncate(overflow)

    def truncate(self, overflow: int = 0) -> bool:
        """Let the oldest steps leave: a quarter of the window or `overflow`, whichever is more.

        The step under way stays; if it is the only one, the replies of it that could not be
        read leave. Returns whether anything has left.
        """
        wanted = max(overflow, -(-self.window // LEAVING_SHARE))
        left = 0
        while len(self._exchanges) > 1 and left < wanted:
            left += self._leave()
        if left == 0 and len(self._exchanges[0].messages) == 1:
            return False
        if left == 0:
            return self._forget_failures()
        self._replace(left)
        return True

    def forget(self) -> None:
        """Let every step but the newest leave, however short they are."""
        left = 0
        while len(self._exchanges) > 1:
            left += self._leave()
        if left:
            self._replace(left)

    def _leave(self) -> int:
        """The tokens of the oldest step, which the ledger has learnt."""
        exchange = self._exchanges.pop(0)
        self.ledger.learn(exchange.seen, exchange.call)
        return exchange.tokens

    def _replace(self, left: int) -> None:
        """Tell the ledger anew, in the place of steps of so many tokens."""
        before, self._ledger_text = self._ledger_text, self.ledger.text()
        self.tokens += self._estimate(self._ledger_text) - (self._estimate(before) if before else 0)
        self.tokens = max(0, self.tokens - left)
        self._is_counted = False

    def _forget_failures(self) -> bool:
        exchange = self._exchanges[0]
        for message in exchange.messages[1:]:
            self.tokens -= self._estimate(message.content)
        del exchange.messages[1:]
        self._is_counted = False
        return True

    def _append(self, message: Message, tokens: int) -> None:
        exchange = self._exchanges[-1]
        exchange.messages.append(message)
        exchange.tokens += tokens
        self.tokens += tokens

    def _count(self, exchange: Exchange, tokens_in: int) -> None:
        """Take the engine's count of the messages asked with."""
        said = exchange.messages[-1].content
        if self._is_counted:
            # All that is new since the last count is the last message, and its estimate was off.
            off = tokens_in - self.tokens
            taken = max(1, self._estimate(said) + off)
            exchange.tokens = max(1, exchange.tokens + off)
            if len(said) >= MEASURED_CHARACTERS:
                self._measure(taken - MESSAGE_TOKENS, len(said))
        else:
            self._measure(tokens_in, sum(len(message.content) for message in self.messages))
        self.tokens = tokens_in

    def _measure(self, tokens: int, characters: int) -> None:
        measured = tokens / characters
        if self._has_measured:
            measured = max(measured, self._tokens_per_character)
        self._tokens_per_character = measured
        self._has_measured = True

    def _estimate(self, content: str) -> int:
        return MESSAGE_TOKENS + int(MARGIN * self._tokens_per_character * len(content)) + 1
