"""The speech API as a Ray Serve deployment: ``serve run app.api.serve:deployment model=tiny``.

In: :class:`ServeArguments`, ``key=value`` on the command line or ``args`` of a config file; the
environment variables of docs/deploy.md, on every node. Out: a Serve application with the routes of
:func:`app.api.asgi.create_api`, of which Serve runs as many replicas as there are requests for.

A replica batches with its own queue, not with ``@serve.batch``: that takes whoever came first as
one batch, whatever they ask for and however long their recordings are, ends all of them together,
and cannot free the place of a caller who left.
"""

from __future__ import annotations

import os
from dataclasses import replace
from threading import Event

# The Hub client and Ray read these when they are imported: nothing is reported to anybody.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from app.api.asgi import create_api
from app.service.batching.waiting_line import QueueLimits
from app.service.deployment import read_deployment
from app.service.limits import Limits
from app.service.service import TranscriptionService

LIMITS = QueueLimits()
# Those who wait and those with the model, and room for whoever a replica then turns away: 429 is
# its answer, while requests that Serve holds back would wait unseen.
MOST_ONGOING = 2 * (LIMITS.places + LIMITS.batch)


class ServeArguments(BaseModel):
    """The resources of a replica and their number. num_gpus: 0.25 for four replicas on one GPU."""

    model_config = ConfigDict(extra="forbid")

    model: str = ""
    device: str = ""
    num_cpus: float = Field(default=1, ge=0)
    num_gpus: float = Field(default=0, ge=0)
    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int = Field(default=1, ge=1)


def deployment(arguments: dict[str, str]) -> serve.Application:
    """Return the application that ``serve run`` starts.

    Replicas are added while each has more requests than fill a batch.
    """
    chosen = ServeArguments.model_validate(arguments)

    def build() -> FastAPI:
        return replica_api(chosen)

    speech = serve.deployment(
        serve.ingress(build)(),
        name="speech",
        ray_actor_options={"num_cpus": chosen.num_cpus, "num_gpus": chosen.num_gpus},
        max_ongoing_requests=MOST_ONGOING,
        autoscaling_config={
            "min_replicas": chosen.min_replicas,
            "max_replicas": chosen.max_replicas,
            "target_ongoing_requests": LIMITS.batch,
        },
    )
    return speech.bind()


def replica_api(chosen: ServeArguments) -> FastAPI:
    """Make the API on a replica, with its model in memory: until then Serve sends it nobody."""
    here = read_deployment(os.environ)
    here = replace(here, model=chosen.model or here.model, device=chosen.device or here.device)
    service = TranscriptionService(
        model=here.model, device=here.device, dtype=here.dtype, limits=Limits.of(here)
    )
    service.warm()
    loaded = Event()
    service.worker.submit(loaded.set)
    loaded.wait()
    return create_api(service, here, LIMITS)
