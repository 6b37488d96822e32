"""The prompt of a request as a chain of keys, from the bytes of its body: no tokenizer is needed.

Two requests whose prompts begin alike have the same first keys. Everything that a chat template puts before
the messages (model, tools, system prompt), and a `cache_salt` that keeps tenants apart, is in the first key.
"""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.gateway.choosing import Prompt

BLOCK_BYTES: Final = 2048
TOKEN_BYTES: Final = 4  # of one token of a text, about
ANSWER: Final = 512  # tokens that an answer is taken to have when the request does not say

_NONE: Final = msgspec.Raw(b"")


class _Body(msgspec.Struct):
    """What of a body becomes part of a prompt."""

    model: str = ""
    tools: msgspec.Raw = _NONE
    system: msgspec.Raw = _NONE  # Anthropic's
    instructions: msgspec.Raw = _NONE  # of OpenAI's responses
    cache_salt: msgspec.Raw = _NONE
    messages: msgspec.Raw = _NONE
    prompt: msgspec.Raw = _NONE  # of completions
    input: msgspec.Raw = _NONE  # of embeddings and responses
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None


_decode: Final = msgspec.json.Decoder(_Body).decode


def read_prompt(body: bytes | None) -> Prompt:
    """What is not a request to a language model is one long prompt without keys.

    >>> prompt = read_prompt(b'{"model": "m", "prompt": "%b", "max_tokens": 9}' % (b"word " * 1000))
    >>> len(prompt.keys), prompt.tokens, prompt.answer
    (2, 1250, 9)
    """
    if not body:
        return Prompt((), 1, 0)
    try:
        read = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Prompt((), max(1, len(body) // TOKEN_BYTES), 0)
    text = memoryview(bytes(read.messages or read.prompt or read.input))
    head = hash((read.model, *map(bytes, (read.tools, read.system, read.instructions, read.cache_salt))))
    before = len(read.tools) + len(read.system) + len(read.instructions)
    keys = []
    for at in range(0, len(text) - BLOCK_BYTES + 1, BLOCK_BYTES):
        head = hash((head, hash(text[at : at + BLOCK_BYTES])))  # of a view: nothing is copied
        keys.append(head)
    answer = read.max_completion_tokens or read.max_tokens or read.max_output_tokens or ANSWER
    return Prompt(keys, max(1, (before + len(text)) // TOKEN_BYTES), max(1, answer))
