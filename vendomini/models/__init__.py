"""What a model's folder says of it, and what its settings may not ask of it. Loads no model."""

from vendomini.models.facts import ModelFacts, read_model
from vendomini.models.folder import ModelIncomplete, find_folder

__all__ = ["ModelFacts", "ModelIncomplete", "find_folder", "read_model"]
