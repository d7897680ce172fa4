"""The launch settings of the app: looks, limits and privacy, in one place.

In: the built Blocks, where to listen. Out: a running server. Nothing is sent anywhere: no
analytics, no run history in the visitor's browser, fonts and scripts from Gradio's own bundle.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from hmac import compare_digest
from importlib.util import find_spec

import gradio as gr
from fastapi.exceptions import RequestValidationError
from starlette.routing import BaseRoute

from app.components.checked_blocks import refuse_body
from app.service.deployment import Deployment
from app.service.examples import FOLDER
from app.theme import theme
from core.checkpoint.catalog import ASSETS
from core.errors import UserError

NO_MCP = (
    "MCP needs a package more: pip install 'gradio[mcp]'. It asks for an older pydantic than the "
    "rest of this app is tested with, which is why it is not installed with it"
)
PASSWORD = "Any user name, and the password of this server."
SCRIPT = ASSETS / "page.js"  # before Gradio's fields see a file
TABLES = ASSETS / "report" / "tables.js"  # of reports too
# On a phone Gradio hides the link to the API and leaves the dot behind it. Not in style.css: there
# every rule is meant for the page above the footer.
HEAD = "<style>@media (max-width: 640px) { footer .divider { display: none !important; } }</style>"
MAX_WAITING = 64  # requests in the queue; the next is told to come back


def serve(
    app: gr.Blocks,
    *,
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    block: bool = True,
    deployment: Deployment | None = None,
    routes: Sequence[BaseRoute] = (),
) -> str:
    """Start the server.

    Args:
        app: what :func:`app.ui.build_app` made.
        host: address to listen on; None means GRADIO_SERVER_NAME, else this machine only.
        port: None means GRADIO_SERVER_PORT, else the first free one from 7860.
        share: open a public tunnel through gradio.live.
        block: wait until the server is stopped.
        deployment: limits on uploads, the password, and whether the API is also offered as MCP
            tools.
        routes: of another app at the page's address; they come before the page's own.

    Returns:
        The server's address.

    Raises:
        UserError: MCP was asked for, but what it needs is not installed; the port is taken.
    """
    where = deployment or Deployment()
    if where.mcp and find_spec("mcp") is None:
        raise UserError(NO_MCP)
    if port is not None and _is_taken(host, port):
        raise UserError(f"port {port} is taken; choose another with --port, or leave it out")
    app.queue(default_concurrency_limit=None, max_size=MAX_WAITING)
    _, local, _ = app.launch(
        server_name=host,
        server_port=port,
        share=share,
        auth=None if where.password is None else _asks_for(where.password),
        auth_message=PASSWORD,
        prevent_thread_lock=not block,
        theme=theme(),
        css_paths=[ASSETS / "style.css", ASSETS / "measure.css"],
        head=HEAD,
        js=page_script(),
        footer_links=["api", "settings"],
        run_history=False,
        enable_monitoring=False,
        max_file_size=f"{where.max_upload_mb}mb",
        allowed_paths=[str(FOLDER)],
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=where.mcp,
        app_kwargs={
            "routes": list(routes),
            "exception_handlers": {RequestValidationError: refuse_body},
        },
    )
    return local


def page_script() -> str:
    """Return the function that runs once the page is loaded."""
    script, tables = (file.read_text(encoding="utf-8") for file in (SCRIPT, TABLES))
    about, opening, body = script.partition("() => {\n")
    return f"{about}{opening}{tables}{body}"


def _asks_for(password: str) -> Callable[[str, str], bool]:
    """Return what tells whether somebody may come in: whoever has the password."""
    return lambda _, given: compare_digest(given.encode(), password.encode())


def _is_taken(host: str | None, port: int) -> bool:
    """Return whether another program listens there."""
    with socket.socket() as caller:
        caller.settimeout(1)
        return (
            caller.connect_ex((host if host not in (None, "0.0.0.0") else "127.0.0.1", port)) == 0
        )
