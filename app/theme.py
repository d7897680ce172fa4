"""Colours and type, light and dark, from what Gradio ships: nothing is fetched from elsewhere.

Out: :func:`theme` for ``launch(theme=...)``; the rest of the looks is ``assets/style.css``.
"""

from __future__ import annotations

import gradio as gr
from gradio.themes.utils import sizes
from gradio.themes.utils.colors import Color
from gradio.themes.utils.fonts import LocalFont

# Gradio 6.31 bundles a semi-bold that lacks most letters; the bold is whole.
WEIGHTS = (400, 700)

# IBM's blue and grey (Carbon), ten steps each from light to dark.
BLUE = Color(
    "#edf5ff", "#d0e2ff", "#a6c8ff", "#78a9ff", "#4589ff",
    "#0f62fe", "#0043ce", "#002d9c", "#001d6c", "#001141", "#000b2e",
    name="ibm-blue",
)  # fmt: skip
GREY = Color(
    "#f7f8fa", "#eff1f4", "#dde1e6", "#c1c7cd", "#8d949c",
    "#697077", "#4d5358", "#343a3f", "#21272a", "#16191d", "#0e1013",
    name="ibm-grey",
)  # fmt: skip


def theme() -> gr.themes.Base:
    """Build the theme: IBM Plex from Gradio's bundle, blue for what can be done, quiet grounds."""
    base = gr.themes.Base(
        primary_hue=BLUE,
        secondary_hue=BLUE,
        neutral_hue=GREY,
        font=(LocalFont("IBM Plex Sans", WEIGHTS), "system-ui", "sans-serif"),
        font_mono=(LocalFont("IBM Plex Mono", WEIGHTS), "ui-monospace", "monospace"),
        radius_size=sizes.radius_sm,
    )
    return base.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_300",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_700",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_600",
        block_title_text_color_dark="*neutral_200",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_300",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_800",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_600",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_300",
        button_primary_background_fill="*primary_500",
        button_primary_background_fill_dark="*primary_500",
        button_primary_background_fill_hover="*primary_600",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        button_secondary_background_fill="*neutral_100",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover="*neutral_200",
        button_secondary_background_fill_hover_dark="*neutral_700",
        checkbox_background_color="white",
        checkbox_background_color_dark="*neutral_900",
        checkbox_border_color="*neutral_400",
        checkbox_border_color_dark="*neutral_400",
        checkbox_label_background_fill_selected="*primary_50",
        checkbox_label_background_fill_selected_dark="*primary_900",
        checkbox_label_text_color_selected="*primary_700",
        checkbox_label_text_color_selected_dark="*primary_100",
    )
