"""The Live tab: the microphone's text while somebody speaks.

In: the service, the settings of the Transcribe tab, and where a finished recording goes. Out:
components, wired. The microphone is ``assets/live.js``: Gradio's own sends ten small pieces a
second and loses what is under way when it is stopped. Each piece of sound is answered with what
there is to show.
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from app.components.events import PAGE_EVENT, TELLING_EVENT, session_of
from app.components.failures import Updates, plain_errors
from app.components.result_panel import ResultPanel
from app.components.settings_panel import SettingsPanel
from app.service.live_sessions import LiveSessions, LiveUpdate
from app.service.service import TranscriptionService
from app.service.user_errors import user_message
from app.wording import live, phrases
from app.wording.progress import ProgressLine
from core.audio.waveform import SAMPLE_RATE, check_rate
from core.checkpoint.catalog import ASSETS
from core.errors import UserError
from core.transcription.streaming import MAX_LIVE_S

SCRIPT = ASSETS / "live.js"


@dataclass(frozen=True)
class LiveTab:
    """Its components. room holds the live sessions; token is the page's own recording."""

    room: LiveSessions
    panel: gr.HTML
    begin: gr.Button
    token: gr.Textbox
    onward: gr.Button


@dataclass(frozen=True)
class TranscribeOutputs:
    """Where a finished recording goes: the Transcribe tab's recording and result."""

    tabs: gr.Tabs
    recording: gr.Audio
    result: ResultPanel


def build_live_tab(
    service: TranscriptionService, settings: SettingsPanel, onward: TranscribeOutputs
) -> LiveTab:
    """Lay the tab out and wire it."""
    room = LiveSessions(service)

    def speak(piece: dict[str, Any]) -> dict[str, Any]:
        return answer(room, piece)

    with gr.Column(elem_id="live"):
        gr.HTML(phrases.aside_html(live.NOTE))
        panel = gr.HTML(
            live.panel_html(),
            js_on_load=SCRIPT.read_text(encoding="utf-8"),
            server_functions=[speak],
            elem_id="live-panel",
        )
        with gr.Column(elem_classes="never-shown"):
            # The script presses this: Gradio alone knows the settings.
            begin = gr.Button("Begin", elem_id="live-begin")
            token = gr.Textbox(label="Recording")
        move = gr.Button("Open in Transcribe", elem_id="live-onward")
    tab = LiveTab(room, panel, begin, token, move)
    _wire(tab, settings, onward)
    return tab


def answer(room: LiveSessions, piece: dict[str, Any]) -> dict[str, Any]:
    """Take one piece of sound and say what there is to show, or why there is nothing.

    Args:
        room: the live sessions.
        piece: token, rate in Hz, sound (base64 of 16-bit samples), the place of its first sample
            in the recording, and whether it is the last.

    Returns:
        JSON types for ``assets/live.js``.
    """
    try:
        samples, rate, place = _sound(piece)
        moment = room.speak(
            str(piece.get("token")), samples, rate, last=bool(piece.get("last")), place=place
        )
    except Exception as error:  # it belongs to the page that speaks
        moment = LiveUpdate(None, stopping=True, full=False, error=user_message(error))
    return {
        "status": live.status_line_html(moment),
        "text": live.text_html(moment.state),
        "numbers": live.numbers_html(moment.state),
        "full": moment.full,
        "over": moment.over,
    }


def _sound(piece: dict[str, Any]) -> tuple[NDArray[np.int16], int, int]:
    """Decode a piece of sound.

    Returns:
        Samples [n], their rate in Hz, and the place of the first.

    Raises:
        UserError: it is no piece of sound.
    """
    try:
        rate, place = int(piece["rate"]), int(piece["place"])
        samples = np.frombuffer(b64decode(piece["sound"], validate=True), dtype="<i2")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError("that was no piece of sound; load the page again") from error
    check_rate("microphone", rate)
    if len(samples) > MAX_LIVE_S * rate:
        raise UserError(f"more than {MAX_LIVE_S:.0f} s of sound came at once; record again")
    return samples, rate, place


def _wire(tab: LiveTab, settings: SettingsPanel, onward: TranscribeOutputs) -> None:
    def start(request: gr.Request, *values: Any) -> str:
        return tab.room.start(session_of(request), settings.read(values))

    def go_on(token: str) -> Updates:
        with plain_errors():
            return onward_updates(tab.room, onward, token)

    begun = tab.begin.click(start, settings.inputs, [tab.token], **PAGE_EVENT)
    begun.then(None, [tab.token], None, js="(token) => graniteLive.begin(token)", **PAGE_EVENT)
    begun.failure(None, None, None, js="() => graniteLive.begin('')", **PAGE_EVENT)
    moved = [onward.tabs, onward.recording, onward.result.reference.said, *onward.result.outputs]
    tab.onward.click(go_on, [tab.token], moved, **TELLING_EVENT)


def onward_updates(room: LiveSessions, onward: TranscribeOutputs, token: str) -> Updates:
    """Move the recording and its text to the Transcribe tab.

    Returns:
        The changes.

    Raises:
        UserError: nothing was said.
    """
    made = room.result(token) if token else None
    if made is None:
        raise UserError("nothing was said yet; press Record and speak")
    outcome, samples = made
    changes = onward.result.shown(outcome, ProgressLine("eager"))
    return changes | {
        onward.tabs: gr.Tabs(selected="transcribe"),
        onward.recording: (SAMPLE_RATE, samples),
        onward.result.reference.said: "",
    }
