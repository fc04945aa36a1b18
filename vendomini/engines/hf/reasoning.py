"""Telling a reply's thoughts from its answer. Pure."""

OPEN = "<think>"
CLOSE = "</think>"


def opens_thinking(prompt: str) -> bool:
    """Whether the reply to a rendered prompt begins inside a thought."""
    return prompt.rstrip().endswith(OPEN)


def split_reasoning(text: str, *, opened: bool) -> tuple[str | None, str]:
    """The thoughts (None: there are none) and the answer of a reply.

    Thoughts reach to the first ``</think>``. `opened` says that the prompt had opened them; a
    reply that was cut inside its thoughts has no answer.
    """
    thoughts, closed, answer = text.partition(CLOSE)
    begins = thoughts.lstrip().startswith(OPEN)
    if begins:
        thoughts = thoughts.lstrip().removeprefix(OPEN)
    if closed:
        return thoughts.strip("\n"), answer.lstrip("\n")
    if begins or opened:
        return thoughts.strip("\n"), ""
    return None, text
