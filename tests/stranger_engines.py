"""Engines as somebody else would bring them, named by their class."""

from vendomini.engines.vllm import VLLM

FORK = "tests.stranger_engines:Fork"


class Fork(VLLM):
    """A server that is started like vLLM's, from a package of its own."""

    packages = ("fork_of_vllm",)
    install = "pip install fork-of-vllm"
