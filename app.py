"""Start the app: ``python app.py``, with ``--help`` for what can be set.

Environment variables set the same and more: docs/deploy.md.
"""

import argparse
import os
from dataclasses import replace

# Gradio and the Hub client read these when they are imported: nothing is reported to anybody.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["DO_NOT_TRACK"] = "1"

# Only there on Spaces; on ZeroGPU it must come before whatever imports torch.
try:
    import spaces
except ImportError:
    spaces = None

from app.api.asgi import create_api, routes_into, serve_api
from app.service.batching.beside import start_second_process
from app.service.deployment import read_deployment
from app.service.limits import Limits
from app.service.service import TranscriptionService
from app.serving import serve
from app.ui import build_app
from core.background_build import BackgroundBuilds
from core.errors import UserError

parser = argparse.ArgumentParser(description="Granite Speech Lab")
parser.add_argument("--host", help="address to listen on (default: this machine only)")
parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
parser.add_argument("--share", action="store_true", help="open a public tunnel")
parser.add_argument("--model", help="name, repository id or folder (default: tiny)")
parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
parser.add_argument("--no-compile", action="store_true", help="eager only, nothing is compiled")
parser.add_argument("--mcp", action="store_true", help="offer the API as MCP tools too")
parser.add_argument("--api-only", action="store_true", help="only /v1/audio/..., no page")

if __name__ == "__main__":
    chosen = parser.parse_args()
    try:
        here = read_deployment(os.environ)
    except UserError as error:
        parser.error(str(error))
    here = replace(
        here,
        model=chosen.model or here.model,
        device=chosen.device or here.device,
        mcp=chosen.mcp or here.mcp,
        compiles=here.compiles and not chosen.no_compile,
    )
    service = TranscriptionService(
        model=here.model,
        device=here.device,
        dtype=here.dtype,
        limits=Limits.of(here),
        borrow=spaces.GPU if here.zero_gpu and spaces is not None else None,
        builds=None if here.no_compile else BackgroundBuilds(),
    )
    service.warm()
    api = create_api(service, here)
    try:
        if chosen.api_only:
            if not here.on_space:
                service.build_package()
            if here.second_process:
                start_second_process(service, api.state.queue)
            serve_api(api, host=chosen.host, port=chosen.port)
        else:
            page = build_app(service, here)
            serve(
                page,
                host=chosen.host,
                port=chosen.port,
                share=chosen.share,
                deployment=here,
                block=False,
                routes=() if here.zero_gpu else routes_into(api),  # a lent GPU takes no batches
            )
            if not here.on_space:
                service.build_package()  # the page is up by now
            page.block_thread()
    except UserError as error:
        parser.error(str(error))
    finally:
        service.close()
