"""Sequence logos (Schneider and Stephens 1990, Nucleic Acids Res 18:6097): letters as high as their share of what a
position tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.report import plots
from genodl_spark.report.content import escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = (2, 0, 4, 1)  # of A, C, G, T, by number of `plots`: green, blue, ochre, orange


def heights(probabilities: np.ndarray) -> np.ndarray:
    """Bits of each base, float64 (W, 4), of shares (W, 4)."""
    logs = np.log2(np.where(probabilities > 0, probabilities, 1))
    bits: np.ndarray = probabilities * np.maximum(2 + (probabilities * logs).sum(1, keepdims=True), 0)
    return bits


def figure(probabilities: np.ndarray) -> Figure:
    """The logo of shares of A, C, G, T, (W, 4)."""
    from matplotlib.patches import PathPatch
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    bits = heights(probabilities)
    made, axes = plots._figure(max(1.6, 0.28 * len(bits) + 0.7), 1.5)
    glyphs = [TextPath((0, 0), base, size=1) for base in "ACGT"]
    for place, column in enumerate(bits):
        bottom = 0.0
        for base in np.argsort(column, kind="stable"):
            height, box = float(column[base]), glyphs[base].get_extents()
            if height < 0.01:  # too low to be seen
                continue
            fitted = (
                Affine2D()
                .translate(-box.x0, -box.y0)
                .scale(0.94 / box.width, height / box.height)
                .translate(place + 0.53, bottom)
            )
            patch = PathPatch(fitted.transform_path(glyphs[base]), facecolor=plots._SERIES[_COLOURS[base]], linewidth=0)
            axes.add_patch(patch)
            bottom += height
    axes.set(xlim=(0.5, len(bits) + 0.5), ylim=(0, 2), ylabel="Bits")
    axes.set_xticks(range(1, len(bits) + 1) if len(bits) <= 12 else range(5, len(bits) + 1, 5))
    axes.set_yticks([0, 1, 2])
    return made


def document(probabilities: np.ndarray, caption: str) -> str:
    """The logo as an SVG file of its own, with colours for light paper."""
    picture = plots.svg(lambda: figure(probabilities), caption, "")
    style = f"color:#1a1a1a;background:#fff;--faint:#ccc;--paper:#fff;{plots.variables(plots.LIGHT)}"
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" style="{style}"'
    titled = f"{picture.partition('>')[0].replace('<svg', opening, 1)}><title>{escape(caption)}</title>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{titled}{picture.partition(">")[2]}\n'
