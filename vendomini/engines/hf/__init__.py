"""The `hf` engine's own process: an OpenAI-protocol server on transformers' `generate`.

    python -m vendomini.engines.hf --model PATH_OR_ID --served-model-name NAME --uds PATH

Nothing is imported here: only the server's process loads torch and transformers.
"""
