"""The page: a heading and a tab per file. Assembles, nothing else."""

from __future__ import annotations

import gradio as gr

from app.api.endpoints import build_endpoints
from app.api.measure_endpoints import build_measure_endpoints
from app.components.adapters_panel import keep_fresh
from app.components.checked_blocks import CheckedBlocks
from app.components.clip_actions import ClipActions
from app.components.events import session_of
from app.components.kept_settings import keep_settings
from app.service.deployment import Deployment
from app.service.evaluation import EvaluationService
from app.service.measurement import MeasurementService
from app.service.profiles.library import ProfileLibrary
from app.service.profiles.reader import ProfileReader
from app.service.service import TranscriptionService
from app.tabs.compare_tab import build_compare_tab
from app.tabs.evaluate_tab import build_evaluate_tab
from app.tabs.live_tab import TranscribeOutputs, build_live_tab
from app.tabs.models_tab import build_models_tab
from app.tabs.profile_tab import build_profile_tab
from app.tabs.transcribe_tab import build_transcribe_tab, find_again
from app.wording import phrases

UPLOADS_KEPT_S = 3600


def build_app(service: TranscriptionService, deployment: Deployment | None = None) -> gr.Blocks:
    """Build the app around ``service``, ready for :func:`app.serving.serve`.

    Uploads and recordings are deleted an hour after they came. A closed page ends its request.

    Returns:
        The Blocks.
    """
    where = deployment or Deployment(runs=None)
    measuring = MeasurementService(
        service, ProfileLibrary(where.runs), where.no_timing, where.gives_way
    )
    evaluation = EvaluationService(measuring)
    viewer = ProfileReader(measuring.library, measuring.quiet, where.max_trace_bytes)
    with CheckedBlocks(
        title="Granite Speech Lab",
        analytics_enabled=False,
        delete_cache=(UPLOADS_KEPT_S // 6, UPLOADS_KEPT_S),
    ) as app:
        gr.HTML(phrases.HEADING_HTML, elem_id="heading")
        with gr.Tabs(overflow_behavior="wrap") as tabs:
            with gr.Tab("Transcribe", id="transcribe"):
                page = build_transcribe_tab(service, where)
            with gr.Tab("Live", id="live"):
                live = None
                if where.no_live:
                    gr.HTML(phrases.status_html(where.no_live))
                else:
                    onward = TranscribeOutputs(tabs, page.recording, page.result)
                    live = build_live_tab(service, page.settings, onward)
            with gr.Tab("Compare", id="compare"):
                result, settings = page.result, page.settings
                buttons, said = (result.compare, result.profile), result.reference.said
                clip = ClipActions(*buttons, tabs, page.recording, said, settings)
                compared = build_compare_tab(measuring, where, clip)
            with gr.Tab("Evaluate", id="evaluate"):
                build_evaluate_tab(evaluation)
            with gr.Tab("Profile", id="profile") as tab:
                profiled = build_profile_tab(measuring, viewer, clip, where, tab)
            with gr.Tab("Models", id="models") as tab:
                adapters = build_models_tab(service, tab, where)
        build_endpoints(service)
        build_measure_endpoints(measuring, where.max_trace_bytes)

        def left(request: gr.Request) -> None:
            service.leave(session_of(request))
            evaluation.leave(session_of(request))
            measuring.leave(session_of(request))
            if live is not None:
                live.room.leave(session_of(request))

        app.unload(left)
        keep_settings(app, service, page.settings)
        if adapters is not None:
            arms = [compared.a, compared.b] if compared else []
            arms += [profiled.record.arm] if profiled.record else []
            keep_fresh(app, service, adapters, page.settings, arms)
        find_again(app, service, page)
    return app
