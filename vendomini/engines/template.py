"""What a model's chat template takes, found by asking the server to tokenize. Pure.

Some templates take no system message: they raise, or leave it out and say nothing. Then its text
goes before the first user message.
"""

import msgspec

from vendomini.chat import Message

_USER = Message(role="user", content="hello")

PLAIN = (_USER,)
"""What every chat template takes."""

WITH_SYSTEM = (
    (Message(role="system", content="apple"), _USER),
    (Message(role="system", content="seven ships sail"), _USER),
)
"""Two conversations that differ in their system message alone: a template that gives the same
tokens for both leaves it out. One alone would not tell, since some templates have a system
message of their own for when there is none."""


def tokenize_chat_body(messages: tuple[Message, ...], *, model: str) -> bytes:
    """The body of ``/tokenize`` for a conversation."""
    return msgspec.json.encode(
        {"model": model, "messages": messages, "add_generation_prompt": True}
    )


EMPTY = "(an empty reply)"
"""What an empty message of the assistant says where a server takes none."""


def alternating(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The conversation with messages of one speaker in a row as one.

    For templates that want user and assistant to take turns. Calls of tools and their results
    stay as they are.
    """
    kept: list[Message] = []
    for message in messages:
        is_text = not message.tool_calls and message.role != "tool"
        if kept and is_text and kept[-1].role == message.role and not kept[-1].tool_calls:
            content = f"{kept[-1].content}\n\n{message.content}"
            kept[-1] = Message(role=message.role, content=content)
        else:
            kept.append(message)
    return tuple(kept)


def filled(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The conversation in which each empty message of the assistant says that it was empty."""
    return tuple(
        Message(role="assistant", content=EMPTY)
        if message.role == "assistant" and not message.content.strip() and not message.tool_calls
        else message
        for message in messages
    )


def folded(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The conversation without system messages: their texts lead the next user message.

    For templates without a system role. Roles stay in turn.
    """
    kept: list[Message] = []
    texts: list[str] = []
    for message in messages:
        if message.role == "system":
            texts.append(message.content)
        elif message.role == "user" and texts:
            kept.append(Message(role="user", content="\n\n".join([*texts, message.content])))
            texts = []
        else:
            kept.append(message)
    if texts:
        kept.append(Message(role="user", content="\n\n".join(texts)))
    return tuple(kept)
