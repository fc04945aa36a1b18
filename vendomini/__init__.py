"""VendoMini: grids of LLM-agent experiments, planned, played on shared engines, never lost."""

__version__ = "0.1.0"
