"""The button that opens a trace in Perfetto, and why it may be off.

In: the address of Perfetto's page, the run that is shown. Out: HTML; ``assets/perfetto.js`` does
the rest. No Gradio, no torch.
"""

from __future__ import annotations

from html import escape

NOTE = (
    "Opens {host} in a new window. The trace goes from this page to that window inside your own "
    "browser, and nowhere else; until you press, nothing is asked of {host}."
)
SWITCHED_OFF = "Switched off where this app runs (GSL_PERFETTO)."
NO_TRACE = "Nothing to open: what is shown has no trace."


def perfetto_html(address: str | None, run: str, *, has_trace: bool) -> str:
    """Format the button and the remark beside it; a reason takes the remark's place.

    Args:
        address: of the Perfetto UI, None where it is switched off.
        run: the key of what is shown.
        has_trace: whether there is a trace to open.

    Returns:
        HTML.
    """
    host = (address or "").partition("://")[2]
    off = SWITCHED_OFF if address is None else "" if has_trace else NO_TRACE
    note = NOTE.format(host=host)
    values = {"address": address or "", "run": run, "off": off, "note": note}
    data = " ".join(f"data-{key}='{escape(value, quote=True)}'" for key, value in values.items())
    disabled = " disabled" if off else ""
    return (
        f"<button type='button' class='outside' {data}{disabled}>Open in Perfetto</button>"
        f"<span class='note'>{escape(off or note)}</span>"
    )
