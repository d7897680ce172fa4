"""Attaching of handlers: which events wait for the model, and what a stoppable request does.

In: handlers and components. Out: wired events. What runs a model waits in the line of
:mod:`app.service.worker`, which says what runs and how long; only who finds that many waiting, and
as many measuring, waits in Gradio's own queue.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.context import LocalContext
from gradio.events import Dependency

from app.components.failures import Updates, failures_shown
from app.service.worker import CancelToken
from app.wording import phrases

# Each takes a thread of Gradio's 40 while it waits. Measurements take long: they have places of
# their own, so that they leave some to others.
MODEL_EVENT: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 8}
MEASURE_EVENT: dict[str, Any] = {"concurrency_id": "measurement", "concurrency_limit": 4}
PAGE_EVENT: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "api_visibility": "private",
}
# For handlers that may end in a sentence: outside its queue Gradio answers an error with an HTTP
# status that browsers log as one of the page's.
TELLING_EVENT: dict[str, Any] = {
    "concurrency_limit": None,
    "show_progress": "hidden",
    "api_visibility": "private",
}


@dataclass(frozen=True, kw_only=True)
class PageJob:
    """A request to the model that can be stopped: what it does, and where it shows.

    begin: announces the request of a session, so that ``stop`` reaches it while it waits its turn.
    run: a session and the values of ``inputs`` -> updates of ``outputs``.
    stop: ends the session's request; returns whether there was one. stopping: what is said then.
    waiting: updates until its turn comes. failed: updates that show a message. event: whose places
    it takes.
    """

    begin: Callable[[str], None]
    run: Callable[..., Iterator[Updates]]
    stop: Callable[[str], bool]
    stopping: str
    waiting: Callable[[], Updates]
    failed: Callable[[str], Updates]
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    status: gr.HTML
    stop_button: gr.Button
    event: Mapping[str, Any] = field(default_factory=lambda: MODEL_EVENT)


def wire_job(
    job: PageJob, *starts: Callable[..., Dependency], js: str = "() => []"
) -> list[Dependency]:
    """Wire the begin, run, end and stop of a job to the events that start it.

    A recording that the microphone has not finished or sent is waited for.

    Args:
        job: the request.
        starts: events that begin it.
        js: a function that the page calls at a start.

    Returns:
        The runs, one for each of ``starts``.
    """

    def begin(request: gr.Request) -> Updates:
        job.begin(session_of(request))
        return job.waiting() | {job.stop_button: gr.update(interactive=True)}

    def run(request: gr.Request, *values: Any) -> Iterator[Updates]:
        yield from failures_shown(job.failed, job.run, session_of(request), *values)

    def stop(request: gr.Request) -> None:
        job.stop(session_of(request))

    # In the page, before the server hears of it: an answer of its own could come after the end's.
    said = json.dumps(phrases.status_html(job.stopping))
    stopping = f"status => status.includes('<progress') ? {said} : status"
    job.stop_button.click(None, [job.status], [job.status], js=stopping, **PAGE_EVENT)
    job.stop_button.click(stop, None, None, **PAGE_EVENT)
    runs = []
    sent = f"async () => {{ await window.recordingSent?.(); return ({js})(); }}"
    for start in starts:
        begun = start(begin, None, [*job.outputs, job.stop_button], js=sent, **PAGE_EVENT)
        ran = begun.then(
            run,
            job.inputs,
            job.outputs,
            show_progress="full",
            show_progress_on=[job.status],
            api_visibility="private",
            **job.event,
        )
        runs.append(ran)
        after(ran, lambda: gr.update(interactive=False), None, [job.stop_button])
    return runs


def after(
    ran: Dependency, handler: Callable[..., Any], inputs: Sequence[Any] | None, outputs: list[Any]
) -> None:
    """Call a handler when an event has ended, well or not.

    Args:
        ran: the event.
        handler: what to call.
        inputs: components whose values it gets.
        outputs: components that it changes.
    """
    # Gradio 6.31 does not call what follows with `then` after an error, though it says so.
    for ended in (ran.then, ran.failure):
        ended(handler, inputs, outputs, **PAGE_EVENT)


def callers_token() -> CancelToken:
    """Return a token for the call of the API that runs here, cancelled once its caller has left.

    Gradio lets a function run on for nobody; only its queue knows, and has no other way to ask it.
    """
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    event = None if blocks is None else blocks._queue.event_ids_to_events.get(event_id or "")
    return CancelToken() if event is None else CancelToken(lambda: not event.alive)


def session_of(request: gr.Request) -> str:
    """Return the visitor's page: one browser tab, or one API client."""
    return request.session_hash or "nobody"
