"""What a server does with every reply, found out by its first ones.

One odd reply among others is no verdict: it is handed on, for whoever asked to judge. A server that
has never once done what it was asked for does not do it: that ends the worker, by `EngineLacks`,
before runs are spent.
"""

from collections.abc import Callable, Mapping

from vendomini.engines.words import beginning
from vendomini.errors import EngineError, EngineLacks

FIRST = 3
"""So many first replies that all lack the same are a habit."""

FIRST_EMPTY = 20
"""So it is with empty ones, which have many causes."""

WHICH = "use a server that can, such as vLLM, or do not ask for it"


class Habits:
    """Of one server. `where` names it; what a person should know is `said`, once."""

    def __init__(self, where: str, said: Callable[[str], None]) -> None:
        self._where = where
        self._say = said
        self._facts: dict[str, str] = {}
        self._missed: dict[str, int] = {}
        self._did: set[str] = set()

    @property
    def facts(self) -> Mapping[str, str]:
        """What was learned, for the worker's file."""
        return self._facts

    def formed(self, text: str, *, is_json: bool) -> None:
        """A reply under a schema that has ended by itself. Raises `EngineLacks`."""
        is_empty = not text.strip()
        first = FIRST_EMPTY if is_empty else FIRST
        if self._does("schema", is_json, tells="empty" if is_empty else "", first=first):
            return
        gave = beginning(text.encode(errors="replace"))
        raise EngineLacks(
            f"{self._where} does not constrain its replies: under a schema its first {first} were "
            + ("empty" if is_empty else f"no JSON; it gave {gave}"),
            hint="use reply_format `text`, or a server that can, such as vLLM",
        )

    def chose(self, count: int, *, asked: int) -> None:
        """A reply with `count` choices. Raises `EngineLacks`."""
        if not self._does("choices", count > 0):
            raise EngineLacks(
                f"{self._where} answers without any reply (`choices`), {FIRST} times of {FIRST}",
                hint="is `engine.base_url` right? its own log may say why",
            )
        if asked == 1 or count == 0:
            return
        if count >= asked:
            self._did.add("several")
        elif count == 1 and "several" not in self._did:  # the first such reply tells
            raise lacks("several choices", f"asked for {asked}, it gives {count}")

    def gave(self, feature: str, sign: str, *, is_there: bool) -> None:
        """A reply that was to have something, such as log-probabilities. Raises `EngineLacks`
        where none has had it, and `EngineError` where others had."""
        if is_there:
            self._did.add(feature)
        elif feature in self._did:
            raise EngineError(
                f"{self._where} gave no {feature} this time: {sign}", hint="its own log may say why"
            )
        else:
            raise lacks(feature, sign)

    def counted(self, is_counted: bool) -> None:
        """A reply with its tokens counted, or not."""
        if not is_counted and "tokens" not in self._facts:
            self._facts["tokens"] = "not counted by the server"
            self._say(
                f"{self._where} does not count tokens (`usage`): they are 0 in tables, and lengths "
                "are estimated"
            )

    def _does(self, what: str, does: bool, *, tells: str = "", first: int = FIRST) -> bool:
        """False as soon as it has missed that in all of the first replies, of those that `tells`
        names."""
        if does:
            self._did.add(what)
        if what in self._did:
            return True
        missed = f"{what} {tells}"
        self._missed[missed] = self._missed.get(missed, 0) + 1
        return self._missed[missed] < first


def lacks(feature: str, sign: str) -> EngineLacks:
    """The error of a server that was asked for something and silently did not do it."""
    return EngineLacks(f"the server does not give {feature}: {sign}", hint=WHICH)
