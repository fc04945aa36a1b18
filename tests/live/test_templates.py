"""Models whose tokenizers differ in what they offer, on a real engine."""

from pathlib import Path

import pytest

from tests.live.conftest import Models
from tests.live.engines import Live, spec_for
from vendomini.chat import ChatRequest, CompletionRequest, Message, Sampling
from vendomini.errors import EngineError

GREEDY = Sampling(temperature=0.0, max_tokens=4)


def test_a_model_without_a_chat_template_completes_but_refuses_to_chat_by_name(
    models: Models, tmp_path: Path
) -> None:
    with Live(spec_for("hf", models.get("none")), tmp_path) as live:
        assert "chat" not in live.engine.features.kinds
        assert live.ask(CompletionRequest(prompt="The quick", sampling=GREEDY, seed=1)).text
        asked = ChatRequest(messages=(Message(role="user", content="hi"),), sampling=GREEDY)
        with pytest.raises(EngineError, match="chat template"):
            live.ask(asked)


def test_a_model_with_a_system_role_gets_its_system_message(models: Models, tmp_path: Path) -> None:
    user = Message(role="user", content="hi")
    system = Message(role="system", content="You run a warehouse.")
    with Live(spec_for("hf", models.get("plain")), tmp_path) as live:
        with_system = live.ask(ChatRequest(messages=(system, user), sampling=GREEDY, seed=1))
        without = live.ask(ChatRequest(messages=(user,), sampling=GREEDY, seed=1))
        folded = ChatRequest(
            messages=(Message(role="user", content="You run a warehouse.\n\nhi"),),
            sampling=GREEDY,
            seed=1,
        )
        assert with_system.tokens_in > without.tokens_in
        assert with_system.text != live.ask(folded).text  # its own role, not a part of the user's
