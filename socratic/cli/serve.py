"""`socratic serve`: a solver over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from socratic.cli.shared import (
    QA,
    QG,
    BatchSize,
    Calculator,
    Device,
    Dtype,
    Planner,
    Seed,
    Settings,
    Single,
    SolverOption,
    Temperature,
    err,
    make_solving,
)
from socratic.types import UserError


def serve(
    solver: SolverOption = "socratic",
    qg: QG = None,
    qa: QA = None,
    lm: Single = None,
    planner: Planner = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the server.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(envvar="SOCRATIC_API_KEY", help="Answer only requests that bring this key.")
    ] = None,
    calculator: Calculator = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    device: Device = None,
    dtype: Dtype = "auto",
    setting: Settings = None,
) -> None:
    """Serve the solver as one model of an OpenAI-compatible chat API, until Ctrl-C."""
    try:
        from socratic.serve import Service
        from socratic.serve import serve as serve_app
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        raise UserError("serve needs aiohttp; install it with: pip install '.[serve]' in the clone") from None
    if api_key is not None and not api_key.strip():
        raise UserError(
            "--api-key (or SOCRATIC_API_KEY) is empty, which would let everyone in; give a key, or unset it"
        )
    solving = make_solving(solver, qg, qa, lm, calculator, temperature, seed, device, dtype, setting, "local", planner)
    service = Service(solving, batch_size, api_key)

    def ready(url: str) -> None:
        err.print(f"{service.name} at {url}; Ctrl-C ends it", soft_wrap=True)
        if api_key is None and host not in ("127.0.0.1", "::1", "localhost"):
            err.print("other machines may ask it without a key; --api-key asks for one", soft_wrap=True)

    serve_app(service, host, port, ready)
