"""What a model is and can do, in words.

In: model cards. Out: plain text, or HTML where the name ends in ``_html``; everything that came
from outside is escaped in it. No Gradio, no torch.
"""

from __future__ import annotations

from html import escape

from app.service.model_card import ModelCard
from app.wording.phrases import num_bytes, sentence
from core.checkpoint.catalog import LANGUAGES

MODELS_NOTE = (
    "A model is downloaded from Hugging Face the first time it is used. The one the app started "
    "with stays in memory, and beside it the one used last."
)


def language(code: str) -> str:
    """The name of a language, or its code where we know no name."""
    return LANGUAGES.get(code, code)


def parameters(count: int) -> str:
    """A number of parameters in millions or billions."""
    return f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.0f} million"


def model_html(card: ModelCard) -> str:
    """Licence, size and abilities of one model in a few lines."""
    facts = [f"Licence: {card.licence}"]
    if card.parameters:
        facts.append(f"{parameters(card.parameters)} parameters")
    if card.size_bytes:
        facts.append(f"{num_bytes(card.size_bytes)} of weights")
    if card.loaded:
        facts.append(f"loaded ({card.device}, {card.dtype})")
    lines = [" ".join(sentence(fact) for fact in facts)]
    lines += [f"Adapters added here: {', '.join(card.adapters)}."] if card.adapters else []
    lines += [abilities(card)] if card.known else []
    lines += [sentence(card.notes)] if card.notes else []
    return "".join(f"<p class='fact'>{escape(line)}</p>" for line in lines)


def models_html(cards: list[ModelCard]) -> str:
    """All models, one block each."""
    blocks = (
        f"<li><h2>{escape(card.title)}</h2><code>{escape(card.name)}</code>{model_html(card)}</li>"
        for card in cards
    )
    return f"<ul class='models'>{''.join(blocks)}</ul>"


def abilities(card: ModelCard) -> str:
    """What a model can do, as a sentence."""
    can = [f"transcribes {_listed([language(code) for code in card.languages])}"]
    if "translate" in card.tasks and card.target_languages:
        others = _listed([language(code) for code in card.target_languages if code != "en"])
        can.append(f"translates between English and {others}")
    can += ["takes keywords"] if card.keywords else []
    can += ["answers questions about a text"] if card.text_mode else []
    return sentence("; ".join(can))


def lora_note(card: ModelCard) -> str:
    """Why there is no LoRA switch, or what it does."""
    if card.adapters:
        own = "the model as it is" if card.has_adapter is False else "without any adapter"
        return f"On: with the adapter chosen here. Off: {own}."
    if card.has_adapter is False:
        return "No LoRA switch: this model has no adapter; speech is trained into its weights."
    if card.has_adapter is None:
        return "On means: with the adapter, where the model turns out to have one."
    return "On: the adapter that teaches the language model to listen. Off: the model without it."


def _listed(names: list[str]) -> str:
    if len(names) < 2:
        return "".join(names) or "what it was trained on"
    return f"{', '.join(names[:-1])} and {names[-1]}"
