"""Schemas as grammars: which next tokens keep a reply inside its schema. By xgrammar."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from vendomini.errors import EngineError

FORMATS = frozenset(
    {
        *("email", "date", "time", "date-time", "duration", "ipv4", "ipv6", "hostname", "uuid"),
        *("uri", "uri-reference", "uri-template", "json-pointer", "relative-json-pointer"),
    }
)
"""Of strings, as far as xgrammar knows them."""

VALUES = ("enum", "const", "default", "examples")
"""Keywords whose values are data, not schemas."""

COMPACT = (",", ":")
"""Between the parts of a reply under a schema; vLLM's, where white space is not free."""

LENGTHS = ("minLength", "maxLength")


class Grammars:
    """Compiles schemas, each text once. Safe to use from several threads."""

    def __init__(self, tokenizer: Any, *, vocabulary: int, end_ids: Sequence[int]) -> None:
        import xgrammar

        self.vocabulary = vocabulary
        self._info = xgrammar.TokenizerInfo.from_huggingface(
            tokenizer, vocab_size=vocabulary, stop_token_ids=list(end_ids) or None
        )
        self._compiler = xgrammar.GrammarCompiler(self._info, max_threads=4)
        self._compiled: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._ends = bool(end_ids)

    def compile(self, schema: str) -> Any:
        """The grammar of a JSON schema's text. Raises `EngineError` if xgrammar cannot do it."""
        with self._lock:
            if schema not in self._compiled:
                ignored = unsupported(msgspec.json.decode(schema))
                if ignored is not None:
                    raise EngineError(f"xgrammar cannot keep a reply to {ignored}: {schema}")
                try:
                    self._compiled[schema] = self._compiler.compile_json_schema(
                        schema, any_whitespace=False, separators=COMPACT
                    )
                except (RuntimeError, ValueError) as error:
                    reason = " ".join(str(error).split())
                    raise EngineError(
                        f"xgrammar cannot do this schema: {schema} ({reason})"
                    ) from error
            return self._compiled[schema]

    def matcher(self, grammar: Any) -> Any:
        """A reply's place in its grammar, at the beginning."""
        import xgrammar

        # A model without an end token could not say that it is done.
        return xgrammar.GrammarMatcher(grammar, terminate_without_stop_token=not self._ends)


def keep_to_grammar(scores: Any, matchers: Mapping[int, Any]) -> None:
    """Set the scores (rows, vocabulary) of impossible tokens to -inf, in each row of `matchers`."""
    import xgrammar

    rows = list(matchers)
    bits = xgrammar.allocate_token_bitmask(*scores.shape)
    filler = xgrammar.BatchGrammarMatcher()
    filler.batch_fill_next_token_bitmask(list(matchers.values()), bits, rows)
    bits = bits.to(scores.device, non_blocking=True)
    xgrammar.apply_token_bitmask_inplace(scores, bits, indices=rows)


def unsupported(schema: Any) -> str | None:
    """The first keyword of a schema that xgrammar would quietly leave out; None if there is none.

    After vLLM 0.32's list (`backend_xgrammar.has_xgrammar_unsupported_json_features`), a little
    stricter with the names of properties.
    """
    if isinstance(schema, list):
        return next((found for item in schema if (found := unsupported(item))), None)
    if not isinstance(schema, dict):
        return None
    kinds = schema.get("type")
    kinds = {kinds} if isinstance(kinds, str) else set(kinds) if isinstance(kinds, list) else set()
    if kinds & {"integer", "number"} and "multipleOf" in schema:
        return "`multipleOf`"
    if "array" in kinds:
        for word in ("uniqueItems", "contains", "minContains", "maxContains"):
            if word in schema:
                return f"`{word}`"
    if "string" in kinds:
        if schema.get("format", "email") not in FORMATS:
            return f"`format` `{schema['format']}`"
        if ("pattern" in schema or "format" in schema) and any(word in schema for word in LENGTHS):
            return "a pattern or format together with a length"
    for word in ("patternProperties", "propertyNames"):
        if "object" in kinds and word in schema:
            return f"`{word}`"
    below = (value for word, value in schema.items() if word not in VALUES)
    return next((found for value in below if (found := unsupported(value))), None)
