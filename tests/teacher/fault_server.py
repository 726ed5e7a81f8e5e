"""An OpenAI-compatible server that fails by a schedule: ``python fault_server.py --ledger FILE [--faults SHARE] …``.

It prints its port, and writes each request into its ledger before it replies: what a provider would bill. What it does
to a request follows from seed, request and attempt, and what its reply says from the last problem in the chat alone: it
solves the last ``What is a+b?`` in the form asked for. The server repeats the key wherever it can.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any

from aiohttp import web

FAULTS = ("429", "500", "503", "reset", "cut", "stall", "drip", "error_body", "no_choices", "null_choices", "not_json")
LINE_FAULTS = ("500", "429", "expired", "no_choices")
RETRY_AFTER = ("0", "0.05", "ms", "date", "Thu, 01 Jan 1970 00:00:00 GMT", "-1", "NaN", "inf", "1e9", "soon", "")
BAD_REPLIES = ("truncated", "refusal", "malformed", "empty", "wrong_answer", "400")
_SUM = re.compile(r"What is (\d+) ?\+ ?(\d+)\?")
_NOT_JSON = "<html>Bad gateway</html>"


def request_key(body: Mapping[str, Any]) -> str:
    """What the ledger under test calls the first sample of this request."""
    text = json.dumps({"body": body, "sample": 0}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def bad_reply(body: Mapping[str, Any], seed: int, share: float) -> str | None:
    """What is wrong with every reply to what the user says here, in whatever form; None for good ones."""
    draw = random.Random(f"{seed}|{[message for message in body['messages'] if message['role'] == 'user'][-2:]}")
    return draw.choice(BAD_REPLIES) if draw.random() < share else None


def completion(body: Mapping[str, Any], bad: str | None, said: str) -> dict[str, Any]:
    """A Chat Completions reply; ``said`` is what a careless server lets slip into it."""
    chat = [message["content"] for message in body["messages"] if message["role"] == "user"]
    a, b = _SUM.findall(" ".join(chat).replace("2 + 3", "2+3"))[-1]
    total = str(int(a) + int(b) + (bad == "wrong_answer"))
    step = {"question": "How much do both numbers make together?", "answer": f"{a}+{b}=<<{a}+{b}={total}>>{total}"}
    text = f"Q: {step['question']}\nA: {step['answer']}\n#### {total}"
    form = body.get("response_format")
    if form and '{"sum"' in chat[-1]:
        text = json.dumps({"sum": total})
    elif form:
        schema = form.get("json_schema", {}).get("schema", {"properties": {}})
        thought = {"reasoning": step["answer"]} if "reasoning" in schema["properties"] else {"steps": [step]}
        text = json.dumps({**thought, "answer": total})
    elif chat[-1].startswith("Therefore"):
        text = f"{total}."
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if bad == "truncated":
        message["content"] = text[: len(text) // 2]
    elif bad == "refusal":
        message = {"role": "assistant", "content": None, "refusal": "I would rather not."}
    elif bad == "malformed":
        message["content"] = text[:-3] if form else text.replace("A:", "-")
    elif bad == "empty":
        message["content"] = ""
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "system_fingerprint": said,
        "choices": [{"index": 0, "message": message, "finish_reason": "length" if bad == "truncated" else "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }


class Server:
    """The schedule, the ledger, and the batches."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.attempts: Counter[str] = Counter()
        self.ledger = arguments.ledger.open("ab", buffering=0)
        self.files: dict[str, str] = {}
        self.batches: dict[str, dict[str, Any]] = {}

    def billed(self, request: web.Request, body: Mapping[str, Any], kinds: list[str]) -> tuple[str | None, str | None]:
        """Enter a request into the ledger; the fault of this attempt, and what is wrong with a reply to it."""
        arguments, key = self.arguments, request_key(body)
        self.attempts[key] += 1
        draw = random.Random(f"{arguments.seed}|{key}|{self.attempts[key]}")
        burst = random.Random(f"{arguments.seed}|{key}")
        fault = draw.choice(kinds) if draw.random() < arguments.faults else None
        if burst.random() < arguments.bursts and self.attempts[key] <= burst.randint(2, 4):
            fault = "500"
        fault = arguments.status or fault
        bad = bad_reply(body, arguments.seed, arguments.bad)
        line = {"model": body["model"], "key": key, "fault": fault, "bad": bad, "at": time.time()}
        line["authorized"] = "authorization" in request.headers
        self.ledger.write(json.dumps(line).encode() + b"\n")
        return fault, bad

    def error(self, request: web.Request, status: int, code: str | None = None) -> dict[str, Any]:
        message = f"{status}: no, {request.headers.get('authorization', '')}"
        return {"error": {"message": message, "type": code, "code": code}}

    async def chat(self, request: web.Request) -> web.StreamResponse:
        arguments = self.arguments
        body = await request.json()
        fault, bad = self.billed(request, body, arguments.kinds.split(","))
        await asyncio.sleep(arguments.latency * random.uniform(0.8, 1.2))
        if fault in ("reset", "cut", "drip", "stall"):
            return await self._break_off(request, fault)
        if fault is None and body.get("response_format", {"type": "text"})["type"] not in arguments.forms.split(","):
            fault = "400"
        if fault is None and bad == "400":
            fault = "400"
        said = request.headers.get("authorization", "")
        if fault is None:
            return web.json_response(completion(body, bad, said))
        if fault == "error_body":
            return web.json_response({"error": {"message": f"overloaded, {said}", "code": 502}})
        if fault in ("no_choices", "null_choices"):
            return web.json_response({"id": said, "choices": [] if fault == "no_choices" else None})
        if fault == "not_json":
            return web.Response(text=_NOT_JSON, content_type="text/html")
        code = {"401": "invalid_api_key", "quota": "insufficient_quota"}.get(fault)
        headers = self._retry_after() if fault == "429" else {}
        status = 429 if fault == "quota" else int(fault)
        return web.json_response(self.error(request, status, code), status=status, headers=headers)

    def _retry_after(self) -> dict[str, str]:
        self.attempts["429"] += 1
        text = RETRY_AFTER[self.attempts["429"] % len(RETRY_AFTER)]
        if text == "ms":
            return {"retry-after-ms": "50", "retry-after": "60"}
        return {"retry-after": formatdate(time.time() + 1, usegmt=True) if text == "date" else text}

    async def _break_off(self, request: web.Request, fault: str) -> web.StreamResponse:
        """A reply that never comes to its end."""
        transport = request.transport
        response = web.StreamResponse(headers={"content-type": "application/json", "content-length": "2000"})
        if transport is None:
            return response
        if fault == "reset":
            transport.abort()
            return response
        await response.prepare(request)
        await response.write(b'{"id": "x", "choices": [')
        if fault == "cut":
            transport.close()
        for _ in range(300 if fault == "drip" else 0):
            await response.write(b" ")
            await asyncio.sleep(0.1)
        if fault == "stall":
            await asyncio.sleep(30)
        return response

    async def add_file(self, request: web.Request) -> web.Response:
        form = await request.post()
        field = form["file"]
        assert isinstance(field, web.FileField)
        return web.json_response(self._file(field.file.read().decode()))

    def _file(self, text: str) -> dict[str, Any]:
        name = f"file-{len(self.files)}"
        self.files[name] = text
        return {
            "id": name,
            "object": "file",
            "bytes": len(text),
            "created_at": 0,
            "filename": name,
            "purpose": "batch",
            "status": "processed",
        }

    async def file_content(self, request: web.Request) -> web.Response:
        return web.Response(text=self.files[request.match_info["id"]], content_type="application/jsonl")

    async def add_batch(self, request: web.Request) -> web.StreamResponse:
        """Run a batch; its results show after a while. Some are made and the reply that says so is lost."""
        wanted = await request.json()
        output: list[str] = []
        errors: list[str] = []
        for line in map(json.loads, self.files[wanted["input_file_id"]].splitlines()):
            fault, bad = self.billed(request, line["body"], list(LINE_FAULTS))
            result: dict[str, Any] = {"id": "x", "custom_id": line["custom_id"], "response": None, "error": None}
            if fault == "expired":
                result["error"] = {"code": "batch_expired", "message": "not run in time"}
            else:
                status = int("400" if bad == "400" else fault if fault and fault.isdigit() else "200")
                said = request.headers.get("authorization", "")
                body = {"id": "x", "choices": []} if fault == "no_choices" else completion(line["body"], bad, said)
                if status != 200:
                    body = self.error(request, status)
                result["response"] = {"status_code": status, "request_id": "x", "body": body}
            fails = result["error"] or result["response"]["status_code"] != 200
            (errors if fails else output).append(json.dumps(result))
        name = f"batch-{len(self.batches)}"
        self.batches[name] = {
            "id": name,
            "object": "batch",
            **wanted,
            "status": "in_progress",
            "created_at": 0,
            "output": output,
            "errors_said": errors,
            "ready": time.monotonic() + self.arguments.batch_seconds,
        }
        if random.Random(f"{self.arguments.seed}|{name}").random() < self.arguments.faults:
            return await self._break_off(request, "reset")
        return web.json_response(self._shown(name))

    def _shown(self, name: str) -> dict[str, Any]:
        batch = self.batches[name]
        if batch["status"] == "in_progress" and time.monotonic() >= batch["ready"]:
            batch["status"] = "expired" if "batch_expired" in "".join(batch["errors_said"]) else "completed"
            for file, lines in (("output_file_id", batch["output"]), ("error_file_id", batch["errors_said"])):
                batch[file] = self._file("\n".join(lines))["id"] if lines else None
        return {key: value for key, value in batch.items() if key not in ("output", "errors_said", "ready")}

    async def batch(self, request: web.Request) -> web.Response:
        return web.json_response(self._shown(request.match_info["id"]))

    async def all_batches(self, request: web.Request) -> web.Response:
        """The newest first, page by page."""
        names = list(self.batches)[::-1]
        after = request.query.get("after")
        names = names[names.index(after) + 1 :] if after else names
        page = [self._shown(name) for name in names[: int(request.query.get("limit", 20))]]
        last = page[-1]["id"] if page else None
        return web.json_response({"object": "list", "data": page, "has_more": len(page) < len(names), "last_id": last})


@web.middleware
async def forgiving(request: web.Request, handler: Any) -> web.StreamResponse:
    """Say nothing where who asked has gone away."""
    try:
        return await handler(request)  # type: ignore[no-any-return]
    except ConnectionError:
        return web.Response()


async def serve(arguments: argparse.Namespace) -> None:
    """Until whoever started it is gone."""
    parent = os.getppid()
    server = Server(arguments)
    app = web.Application(client_max_size=1 << 28, middlewares=[forgiving])
    app.router.add_post("/v1/chat/completions", server.chat)
    app.router.add_post("/v1/files", server.add_file)
    app.router.add_get("/v1/files/{id}/content", server.file_content)
    app.router.add_post("/v1/batches", server.add_batch)
    app.router.add_get("/v1/batches", server.all_batches)
    app.router.add_get("/v1/batches/{id}", server.batch)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    while os.getppid() == parent:
        await asyncio.sleep(0.5)


def main() -> None:
    """Parse and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=float, default=0.0, help="share of attempts that fail")
    parser.add_argument("--kinds", default=",".join(FAULTS), help="how they fail")
    parser.add_argument("--bursts", type=float, default=0.0, help="share of requests whose first attempts all get 500")
    parser.add_argument("--bad", type=float, default=0.0, help="share of requests whose reply is no chain")
    parser.add_argument("--status", default="", help="what every request gets: a status, quota, or another fault")
    parser.add_argument("--forms", default="text,json_object,json_schema", help="forms of reply that it knows")
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--batch-seconds", type=float, default=0.0, help="until a batch is done")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
