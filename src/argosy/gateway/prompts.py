"""The prompt of a request as a chain of keys, from the bytes of its body: no tokenizer is needed.

Two requests whose prompts begin alike have the same first keys. Everything that a chat template puts before
the messages (model, tools, system prompt), and a `cache_salt` that keeps tenants apart, is in the first key.

Of the first blocks a key takes every byte, of each later one the last quarter. Prompts that differ deep
inside, and nowhere else, by texts of the same length may so have the same keys: that only misleads the choice
of a replica for them, as any two prompts do that happen to have one key.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from argosy.gateway.choosing import Prompt
from argosy.gateway.usage import ModelRequest, parse_model_request

BLOCK_BYTES: Final = 2048
WHOLE: Final = 8  # so many blocks are read whole
_WHOLE_BYTES: Final = WHOLE * BLOCK_BYTES
_READ: Final = BLOCK_BYTES // 4  # of each later one
TOKEN_BYTES: Final = 4  # of one token of a text, about
ANSWER: Final = 512  # tokens that an answer is taken to have when the request does not say


def read_prompt(body: bytes | None, asked: object = None) -> Prompt:
    """`asked`: the body, where it was read before. What is not a request to a language model is one long
    prompt without keys.

    >>> prompt = read_prompt(b'{"model": "m", "prompt": "%b", "max_tokens": 9}' % (b"word " * 1000))
    >>> len(prompt.keys), prompt.tokens, prompt.answer
    (2, 1250, 9)
    """
    if not body:
        return Prompt((), 1, 0)
    try:
        read = asked if isinstance(asked, ModelRequest) else parse_model_request(body)
    except ValueError:
        return Prompt((), max(1, len(body) // TOKEN_BYTES), 0)
    text = memoryview(read.messages or read.prompt or read.input)
    before = len(read.tools) + len(read.system) + len(read.instructions)
    told = map(bytes, (read.tools, read.system, read.instructions, read.cache_salt))
    first = hash((read.model, *told)) if before or read.cache_salt else hash(read.model)
    key, keys = first & 0xFFFF_FFFF, []
    for end in range(BLOCK_BYTES, min(len(text), _WHOLE_BYTES) + 1, BLOCK_BYTES):
        key = crc32(text[end - BLOCK_BYTES : end], key)  # it goes on from the blocks before
        keys.append(key)
    for end in range(_WHOLE_BYTES + BLOCK_BYTES, len(text) + 1, BLOCK_BYTES):
        key = crc32(text[end - _READ : end], key)
        keys.append(key)
    answer = read.most_tokens or ANSWER
    return Prompt(keys, max(1, (before + len(text)) // TOKEN_BYTES), max(1, answer))
