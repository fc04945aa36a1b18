"""The `hf` engine's own process: an OpenAI server on transformers that keeps what it has read.

    python -m vendomini.engines.hf --model PATH_OR_ID --served-model-name NAME --uds PATH

Nothing is imported here: only the server's process loads torch and transformers.
"""
