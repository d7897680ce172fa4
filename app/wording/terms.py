"""Terms of the field, each explained once, behind a "?" beside where it is first met.

In: a key of :data:`TERMS`. Out: HTML. No Gradio, no torch.
"""

from __future__ import annotations

from html import escape

TERMS = {
    "rtf": (
        "Real-time factor (RTF)",
        "Processing time divided by audio length. 0.1 means that 10 s of audio take 1 s; below 1 "
        "is faster than real time. RTFx is its inverse.",
    ),
    "prefill": (
        "Prefill and decode",
        "The prefill runs the decoder over the whole prompt at once, audio embeddings included, "
        "fills the KV cache and gives the first token. Decode then makes one token a step.",
    ),
    "roofline": (
        "Roofline",
        "The least time that a phase can take here: its bytes over the machine's memory bandwidth, "
        "or its FLOPs over the peak throughput, whichever is longer. Achieved is that time over "
        "the measured one.",
    ),
    "aa": (
        "A/A test",
        "A measured against itself, in the same blocks as B. Whatever difference it shows is noise "
        "of the machine, and a difference between A and B counts only beyond that.",
    ),
}


def term_html(key: str) -> str:
    """Format the "?" that opens the explanation of a term; each stands once on the page."""
    title, meaning = TERMS[key]
    return (
        f"<button type='button' class='term' popovertarget='term-{key}' "
        f"aria-label='What is {escape(title)}?'>?</button>"
        f"<span popover id='term-{key}' class='meaning'><b>{escape(title)}</b> "
        f"{escape(meaning)}</span>"
    )
