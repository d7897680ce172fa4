"""The encoder's view -> a figure: its log-mel features, and its CTC characters.

In: :class:`core.encoder_view.EncoderView`. Out: ``go.Figure``; time runs along both parts.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from core.encoder_view import EncoderView
from profiling.figures.style import FIRST, dressed, see_through, titled

MAX_COLUMNS, MAX_ROWS = 300, 40  # what a phone can show, and the page can fetch in no time
HEIGHT_PX = 300
# Dark to light in one hue, so that loudness reads the same by day and by night.
COLOURS = [[0.0, "#101418"], [0.5, "#0f62a5"], [0.8, "#5fb3e6"], [1.0, "#fdf6d8"]]


def heard_figure(view: EncoderView) -> go.Figure:
    """Draw log-mel features above, the CTC head's characters and their probability below."""
    mel = shrunk(view.mel, MAX_COLUMNS, MAX_ROWS)
    length_s = view.frame_s * len(view.speech)
    step_s = length_s / mel.shape[0]
    times = [round(step_s * (n + 0.5), 3) for n in range(mel.shape[0])]
    figure = go.Figure(
        [
            go.Heatmap(
                z=mel.T.astype(float).round(2).tolist(),
                x=times,
                colorscale=COLOURS,
                showscale=False,
                hovertemplate="%{x:.2f} s<extra></extra>",
            ),
            go.Scatter(
                x=[round(view.frame_s * n, 2) for n in range(len(view.speech))],
                y=view.speech.astype(float).round(3).tolist(),
                yaxis="y2",
                mode="lines",
                line={"color": FIRST, "width": 1},
                fill="tozeroy",
                fillcolor=see_through(FIRST, 0.2),
                hoverinfo="skip",
            ),
            go.Scatter(
                x=[letter.at_s for letter in view.letters],
                y=[min(1.0, letter.probability) for letter in view.letters],
                text=[letter.text for letter in view.letters],
                yaxis="y2",
                mode="text",
                textposition="top center",
                textfont={"size": 12},
                cliponaxis=False,
                hovertemplate="%{text} at %{x:.2f} s: %{y:.0%}<extra></extra>",
            ),
        ]
    )
    dressed(
        figure,
        height=HEIGHT_PX,
        x=titled("seconds") | {"range": [0, length_s], "anchor": "y2", "zeroline": False},
        y={"domain": [0.46, 1], "showticklabels": False, "showgrid": False, "ticks": ""},
    )
    likely = {"domain": [0, 0.32], "range": [0, 1.15], "tickmode": "array", "tickvals": [0, 1]}
    figure.update_layout(yaxis2=likely | {"ticktext": ["0", "1 "], "fixedrange": True})
    figure.update_layout(yaxis2_automargin=True, yaxis2_ticks="")
    figure.update_layout(yaxis2_gridcolor=figure.layout.yaxis.gridcolor, yaxis2_zeroline=False)
    return figure


def shrunk(mel: NDArray[np.float32], columns: int, rows: int) -> NDArray[np.float32]:
    """Average frames and bands [M, bands] down to at most ``columns`` by ``rows``."""
    for axis, most in ((0, columns), (1, rows)):
        groups = np.array_split(mel, min(most, mel.shape[axis]), axis=axis)
        mel = np.stack([group.mean(axis=axis) for group in groups], axis=axis)
    return mel
