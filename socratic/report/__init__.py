"""Tables and pages over finished runs; runs no model."""

from __future__ import annotations

import re

_UNSAFE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """``text`` from a model or a file with all that could steer a terminal shown escaped, such as ``\\x1b``.

    Escaped are C0 and C1 controls except newline, DEL, line and paragraph separators, bidirectional controls and lone
    surrogates. Works character by character, so pieces of a stream may be passed one at a time.
    """
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
