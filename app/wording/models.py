"""Sentences about a model: its size, its tasks, its limits.

In: model summaries. Out: plain text, or HTML where the name ends in ``_html``; everything that came
from outside is escaped in it. No Gradio, no torch.
"""

from __future__ import annotations

from html import escape

from app.service.model_summary import ModelSummary
from app.wording.phrases import sentence
from core.checkpoint.catalog import LANGUAGES
from core.units import format_bytes

MODELS_NOTE = (
    "A model is downloaded from Hugging Face the first time it is used. The one the app started "
    "with stays in memory, and beside it the one used last."
)


def language(code: str) -> str:
    """Return the name of a language, or its code if unknown."""
    return LANGUAGES.get(code, code)


def parameters(count: int) -> str:
    """Format a number of parameters in millions or billions."""
    return f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.0f} million"


def model_html(summary: ModelSummary) -> str:
    """Format licence, size and abilities of one model in a few lines."""
    facts = [f"Licence: {summary.licence}"]
    if summary.parameters:
        facts.append(f"{parameters(summary.parameters)} parameters")
    if summary.size_bytes:
        facts.append(f"{format_bytes(summary.size_bytes)} of weights")
    if summary.loaded:
        facts.append(f"loaded ({summary.device}, {summary.dtype})")
    lines = [" ".join(sentence(fact) for fact in facts)]
    lines += [f"Adapters added here: {', '.join(summary.adapters)}."] if summary.adapters else []
    lines += [abilities(summary)] if summary.known else []
    lines += [sentence(summary.notes)] if summary.notes else []
    return "".join(f"<p class='fact'>{escape(line)}</p>" for line in lines)


def licence_html(summary: ModelSummary) -> str:
    """Format what a licence forbids, to be read before the model is downloaded."""
    said = f"{summary.title}: its licence ({summary.licence}) does not allow commercial use."
    return "" if summary.commercial_use else f"<p class='note warning'>{escape(said)}</p>"


def with_size(summary: ModelSummary) -> str:
    """Name a model with the size of its weights."""
    size = f", {format_bytes(summary.size_bytes)}" if summary.size_bytes else ""
    return f"{summary.title}{size}"


def models_html(summaries: list[ModelSummary]) -> str:
    """Format all models, one block each."""
    blocks = (
        f"<li><h2>{escape(summary.title)}</h2><code>{escape(summary.name)}</code>{model_html(summary)}</li>"
        for summary in summaries
    )
    return f"<ul class='models'>{''.join(blocks)}</ul>"


def abilities(summary: ModelSummary) -> str:
    """Say what a model can do, as a sentence."""
    can = [f"transcribes {_listed([language(code) for code in summary.languages])}"]
    if "translate" in summary.tasks and summary.target_languages:
        others = _listed([language(code) for code in summary.target_languages if code != "en"])
        can.append(f"translates between English and {others}")
    can += ["takes keywords"] if summary.keywords else []
    can += ["answers questions about a text"] if summary.text_mode else []
    return sentence("; ".join(can))


def lora_note(summary: ModelSummary) -> str:
    """Say what the LoRA switch does, or why there is none."""
    if summary.adapters:
        own = "the model as it is" if summary.has_adapter is False else "without any adapter"
        return f"On: with the adapter chosen here. Off: {own}."
    if summary.has_adapter is False:
        return "No LoRA switch: this model has no adapter; speech is trained into its weights."
    if summary.has_adapter is None:
        return "On means: with the adapter, where the model turns out to have one."
    return "On: the adapter that teaches the language model to listen. Off: the model without it."


def _listed(names: list[str]) -> str:
    if len(names) < 2:
        return "".join(names) or "what it was trained on"
    return f"{', '.join(names[:-1])} and {names[-1]}"
