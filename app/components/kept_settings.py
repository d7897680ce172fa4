"""Settings that stay: in the visitor's browser, and in a link that can be passed on.

In: a settings panel. Out: its values kept under one key of the browser's storage whenever they
change; put back when the page is loaded. A link's values go before kept ones. Values that this app
does not offer are left out without a word: links and browsers may be older than the app.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from app.components.events import PAGE_EVENT
from app.components.failures import Updates
from app.components.loading_fields import device_choices, dtype_choices, int8_choices
from app.components.settings_panel import (
    FIELDS,
    MAX_BEAMS,
    MAX_NEW_TOKENS,
    SettingsPanel,
)
from app.components.task_fields import languages_of, targets_of, tasks_of
from app.service.model_summary import ModelSummary
from app.service.service import TranscriptionService
from app.wording import phrases
from core.errors import UserError
from core.transcription.options import MOST_EDIT_ROUNDS

STORAGE_KEY = "granite-speech-lab-settings"
OF_ONE_RECORDING = ("prefix", "split")  # neither kept nor told
STORAGE_WORD = "settings"  # Gradio scrambles what it keeps; a fixed word survives a restart
LONGEST_TEXT = 2000
NUMBERS = {
    "beams": (2, MAX_BEAMS),
    "temperature": (0.1, 2.0),
    "max_tokens": (10, MAX_NEW_TOKENS),
    "rounds": (0, MOST_EDIT_ROUNDS),
}

_OBJECT = (
    f"Object.fromEntries({list(FIELDS)!r}.map((name, i) => [name, values[i]])"
    f".filter(([name]) => !{list(OF_ONE_RECORDING)!r}.includes(name)))"
)
_KEEP = f"(...values) => {_OBJECT}"
_LINK = f"""(...values) => {{
  const chosen = {_OBJECT};
  const said = Object.entries(chosen).filter(([_, value]) => value !== null && value !== "");
  return location.origin + location.pathname + "?" + new URLSearchParams(said);
}}"""


def build_link(panel: SettingsPanel) -> None:
    """Build a button that writes the link, inside the current column."""
    make = gr.Button("Make a link to these settings", size="sm", elem_id="make-link")
    link = gr.Textbox(
        label="Link to these settings",
        info="Opens the page with the same choices. It holds no recording and no text.",
        interactive=False,
        visible=False,
        buttons=["copy"],
        elem_id="link",
    )
    shown = make.click(lambda: gr.update(visible=True), None, [link], **PAGE_EVENT)
    shown.then(None, panel.inputs, [link], js=_LINK, **PAGE_EVENT)


def keep_settings(app: gr.Blocks, service: TranscriptionService, panel: SettingsPanel) -> None:
    """Keep what is chosen in the browser and put it back when the page is loaded."""
    kept = gr.BrowserState({}, storage_key=STORAGE_KEY, secret=STORAGE_WORD)

    def restore(request: gr.Request, before: dict[str, Any] | None) -> Updates:
        linked = dict(request.query_params)
        wanted = linked if set(linked) & set(FIELDS) else before or {}
        if not wanted:
            return panel.adapters.fit(service.summary(service.model))  # added since the app started
        return restored(service, panel, wanted)

    app.load(restore, [kept], panel.outputs, **PAGE_EVENT)
    changes = [component.change for component in panel.inputs]
    gr.on(changes, None, panel.inputs, [kept], js=_KEEP, **PAGE_EVENT)


def restored(
    service: TranscriptionService, panel: SettingsPanel, wanted: Mapping[str, Any]
) -> Updates:
    """Restore every value that this app still offers, and what depends on it."""
    model = _model(service, str(wanted.get("model") or "")[:LONGEST_TEXT])
    summary = service.summary(model)
    values = {"model": model} | accepted(summary, wanted)
    if service.limits.no_compile is not None:
        values.pop("engine", None)
    task = str(values.get("task", summary.tasks[0]))
    changes = panel.fit(summary, task, str(values.get("decoding", "")))
    for name, value in values.items():
        field = panel.field(name)
        changes[field] = _with_value(changes.get(field), value)
    return changes


def accepted(summary: ModelSummary, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return those wanted values that can be chosen for this model on this machine."""
    device = str(wanted.get("device") or "")
    known = [value for _, value in device_choices()]
    device = device if device in known else ""
    task = wanted.get("task") if wanted.get("task") in summary.tasks else summary.tasks[0]
    choices = {
        "engine": list(phrases.ENGINES),
        "adapter": ["", *summary.adapters],
        "task": [value for _, value in tasks_of(summary)],
        "language": [value for _, value in languages_of(summary)],
        "target": [value for _, value in targets_of(summary)],
        "decoding": list(summary.decodings_of(str(task))),
        "device": known,
        "dtype": [value for _, value in dtype_choices(device)],
        "quantize": [value for _, value in int8_choices(device)],
    }
    values = {
        name: wanted[name] for name, offered in choices.items() if wanted.get(name) in offered
    }
    if "lora" in wanted:
        values["lora"] = str(wanted["lora"]).lower() in ("true", "on", "1")
    for name in ("keywords", "instruction"):
        if isinstance(wanted.get(name), str):
            values[name] = wanted[name][:LONGEST_TEXT]
    for name, (least, most) in NUMBERS.items():
        number = _number(wanted.get(name))
        if number is not None:
            value = min(max(number, least), most)
            values[name] = value if name == "temperature" else round(value)
    return values


def _model(service: TranscriptionService, name: str) -> str:
    """Return the model if it is run here, else the one the app started with."""
    try:
        service.limits.check_model(name)
    except UserError:
        return service.model
    return name


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) < float("inf") else None  # NaN compares false


def _with_value(change: Any, value: Any) -> Any:
    return (change if isinstance(change, dict) else gr.update()) | {"value": value}
