from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.engines import ROOT, Live, spec_for
from tests.tiny_models import Template, tiny_model

WAREHOUSE = ROOT / "vendomini" / "workloads" / "warehouse" / "prompt.py"
"""With words the agent is told, a tokenizer makes few tokens of them."""


class Models:
    """Tiny models, made when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, template: Template = "plain") -> Path:
        folder = self._folder / template.replace(" ", "-").replace(",", "")
        if folder.exists():
            return folder
        match template:
            case "reasoning" | "reasoning, no system":
                return tiny_model(folder, "qwen3", template=template)
            case "no system":
                return tiny_model(folder, "qwen2", template=template)
            case _:
                return tiny_model(folder, "llama", template=template)

    def unknown_to_vllm(self) -> Path:
        """One whose architecture our transformers have, and those of vLLM's environment do not."""
        folder = self._folder / "internlm3"
        return folder if folder.exists() else tiny_model(folder, "internlm3")

    def warehouse(self) -> Path:
        """One whose window holds the warehouse's prompt and some conversation."""
        folder = self._folder / "warehouse"
        if folder.exists():
            return folder
        return tiny_model(
            folder,
            "llama",
            vocabulary=2048,
            max_position_embeddings=8192,
            text=WAREHOUSE.read_text(),
        )


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture(
    scope="session",
    params=["scripted", "hf", pytest.param("vllm", marks=pytest.mark.vllm)],
)
def live(
    request: pytest.FixtureRequest, models: Models, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    """Each engine with a model whose template knows thoughts, and no system role."""
    spec = spec_for(request.param, models.get("reasoning, no system"))
    with Live(spec, tmp_path_factory.mktemp(f"live-{request.param}")) as opened:
        yield opened
