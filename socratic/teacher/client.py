"""One request to an OpenAI-compatible endpoint, once: what came back, or what kind of failure it was."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from socratic.types import UserError

_POOL = 16
_BROKEN_OFF = ("error", "abort")
"""As OpenRouter and vLLM call it where the server did not write to the end."""

Outcome = Literal["reply", "retry", "overloaded", "refused", "denied", "stop"]
"""``retry`` may succeed another time and ``refused`` will not; ``denied`` (as for an unknown model) and ``stop`` (key,
quota) are about the endpoint, not about the request."""


@dataclass(frozen=True)
class Received:
    """``raw`` is the body of a reply and ``tokens`` its prompt's and its own; ``reason`` tells a failure's kind."""

    outcome: Outcome
    raw: str = ""
    tokens: tuple[int, int] = (0, 0)
    reason: str = ""
    detail: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Endpoint:
    """Chat Completions at ``base_url``, without the SDK's own retries, ``concurrency`` requests at once at most.

    The connections are in several small pools, as a pool looks through all of its own for each request. The key comes
    from ``OPENAI_API_KEY`` and lives in the header alone: `redact` takes it out of whatever is kept.
    """

    def __init__(self, base_url: str | None, concurrency: int, timeout: float) -> None:
        import httpx2
        import openai

        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not key:
            raise UserError("the endpoint needs a key: set OPENAI_API_KEY (any text for a local server)")
        if not (key.isascii() and key.isprintable()):
            raise UserError("OPENAI_API_KEY holds a character that is in no key, such as a line break; set it anew")
        limits = httpx2.Limits(max_connections=_POOL, max_keepalive_connections=_POOL)
        trusted = httpx2.create_ssl_context()
        self._clients: list[openai.AsyncOpenAI] = []
        try:
            for _ in range(-(-concurrency // _POOL)):
                http = httpx2.AsyncClient(limits=limits, timeout=timeout, verify=trusted)
                how: dict[str, Any] = {"max_retries": 0, "timeout": timeout, "http_client": http}
                self._clients.append(openai.AsyncOpenAI(api_key=key, base_url=base_url, **how))
        except httpx2.InvalidURL as error:
            raise UserError(f"{_shown(base_url)} is no address ({error}); correct --base-url") from None
        self._free = [client for client in self._clients for _ in range(_POOL)]
        self.client = self._clients[0]
        url = httpx2.URL(str(self.client.base_url))
        if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > 65535:
            raise UserError(
                f"{_shown(str(url))} is no address; give --base-url, or in a recipe NAME@URL, such as http://localhost:8000/v1"
            )
        self.url = str(url.copy_with(userinfo=b"", query=None))
        self._secrets = _secrets(key, url.username, url.password)
        self._timeout = timeout

    async def send(self, body: Mapping[str, Any], sample: int) -> Received:
        """Ask once, for ``timeout`` seconds altogether; which ``sample`` it is does not reach the endpoint."""
        import httpx2
        import openai

        client = self._free.pop()  # the one used last, whose connections are open
        failed: openai.APIStatusError | openai.APIConnectionError
        try:
            async with asyncio.timeout(self._timeout):
                got = await client.post("/chat/completions", body=body, cast_to=httpx2.Response)
            return self.checked(got.text, got.headers)
        except UnicodeEncodeError:
            return Received("refused", reason="not_utf8", detail="the request has half of a surrogate pair in it")
        except (TimeoutError, openai.APITimeoutError):
            return Received("retry", reason="deadline", detail=f"no whole reply within {self._timeout:g} s")
        except (openai.APIStatusError, openai.APIConnectionError) as error:
            failed = error  # read outside, as it may hold the key, and a traceback from here would show it
        finally:
            self._free.append(client)
        if isinstance(failed, openai.APIStatusError):
            return self._refusal(failed)
        return Received("retry", reason="connection", detail=self._detail(repr(failed.__cause__ or failed)))

    def redact(self, text: str) -> str:
        """``text`` without the key, its start, and a password in the address.

        Words, and short keys, which stand in for none, stay.
        """
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        return text.encode("utf-8", "replace").decode()  # lone surrogates cannot be stored

    def _detail(self, text: str) -> str:
        return self.redact(text)[:300]

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            await client.close()

    def checked(self, text: str, headers: Mapping[str, str]) -> Received:
        """A reply, unless what the server calls one holds no choice."""
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            return Received("retry", reason="not_json", detail=self._detail(text), headers=headers)
        if not isinstance(body, dict):
            return Received("retry", reason="error_body", detail=self._detail(text), headers=headers)
        choices = body.get("choices")
        fault = ""
        if body.get("error"):
            fault = "error_body"
        elif not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            fault = "no_choices"
        elif choices[0].get("finish_reason") in _BROKEN_OFF:
            fault = "broken_off"
        if fault:
            return Received("retry", tokens=_tokens(body), reason=fault, detail=self._detail(text), headers=headers)
        try:
            raw = text if self.redact(text) == text else json.dumps(self._redacted(body))
        except RecursionError:
            return Received("retry", reason="not_json", detail=self._detail(text), headers=headers)
        return Received("reply", raw=raw, tokens=_tokens(body), headers=headers)

    def _redacted(self, value: Any) -> Any:
        """JSON with `redact` done to its texts alone, so that it stays JSON."""
        if isinstance(value, dict):
            return {self.redact(name): self._redacted(part) for name, part in value.items()}
        if isinstance(value, list):
            return [self._redacted(part) for part in value]
        return self.redact(value) if isinstance(value, str) else value

    def _refusal(self, error: Any) -> Received:
        status, headers = error.status_code, error.response.headers
        said = error.message.removeprefix(f"Error code: {status}").removeprefix(" - ") or error.response.text
        detail = self._detail(f"{status}: {said}")
        if status == 401:
            return Received("stop", reason="refuses the key", detail=detail)
        if status == 429 and "insufficient_quota" in (error.code, error.type):
            return Received("stop", reason="has no quota left", detail=detail)
        if status in (429, 503):
            return Received("overloaded", reason=f"status_{status}", detail=detail, headers=headers)
        if status in (408, 409) or status >= 500:
            return Received("retry", reason=f"status_{status}", detail=detail, headers=headers)
        outcome: Outcome = "refused" if status in (400, 413, 422) else "denied"
        return Received(outcome, reason=f"status_{status}", detail=detail, headers=headers)


def _shown(address: str | None) -> str:
    """An address that cannot be read, without a login."""
    return repr(str(address).rpartition("@")[2])


def _secrets(key: str, user: str, password: str) -> list[str]:
    """What must not be kept, as it may stand in a reply; short texts are ordinary words."""
    login = base64.b64encode(f"{user}:{password}".encode()).decode() if password else ""
    starts = [key] if len(key) >= 20 or any(map(str.isdigit, key)) else []  # else a word for none
    starts += [key[:8]] if len(key) >= 20 and not (key[:8].isalpha() and key[:8].islower()) else []  # a word
    return [secret for secret in (*starts, login, password) if len(secret) >= 8]


def _tokens(body: Mapping[str, Any]) -> tuple[int, int]:
    """Prompt and completion tokens that a reply states; 0 for what it does not."""
    usage = body.get("usage")
    stated = usage if isinstance(usage, dict) else {}
    first, second = (stated.get(name) for name in ("prompt_tokens", "completion_tokens"))
    return _count(first), _count(second)


def _count(stated: object) -> int:
    return stated if type(stated) is int and 0 <= stated < 2**31 else 0
