"""The speech API without the page: ``python -m app.api``, with ``--help`` for what can be set.

Environment variables set the same and more: docs/deploy.md.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace

# The Hub client reads these when it is imported: nothing is reported to anybody.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["DO_NOT_TRACK"] = "1"

from app.api.asgi import create_api, serve_api
from app.service.batching.beside import start_second_process
from app.service.deployment import read_deployment
from app.service.limits import Limits
from app.service.service import TranscriptionService
from core.background_build import BackgroundBuilds

parser = argparse.ArgumentParser(prog="python -m app.api", description="Granite Speech Lab's API")
parser.add_argument("--host", help="address to listen on (default: this machine only)")
parser.add_argument("--port", type=int, default=8000, help="port (default: 8000; 0: a free one)")
parser.add_argument("--model", help="name, repository id or folder (default: tiny)")
parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")

if __name__ == "__main__":
    chosen = parser.parse_args()
    try:
        here = read_deployment(os.environ)
    except ValueError as error:
        parser.error(str(error))
    here = replace(here, model=chosen.model or here.model, device=chosen.device or here.device)
    service = TranscriptionService(
        model=here.model,
        device=here.device,
        dtype=here.dtype,
        limits=Limits.of(here),
        builds=None if here.no_compile else BackgroundBuilds(),
    )
    service.warm()
    if not here.on_space:
        service.build_package()
    api = create_api(service, here)
    if here.second_process:
        start_second_process(service, api.state.queue)
    try:
        serve_api(api, host=chosen.host, port=chosen.port)
    except ValueError as error:
        parser.error(str(error))
    finally:
        service.close()
