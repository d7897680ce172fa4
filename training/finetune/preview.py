"""A page that shows and plays what augmentation does to recordings: one file, no network.

In: a manifest. Out: an HTML page with the first clips of different speakers, as recorded and
augmented, each as a picture of its mel spectrogram and as sound. Light and dark follow the
reader's system.

Augmentation works on power mels, from which a waveform has to be guessed: Griffin and Lim's
iterations (1984) over a spectrum that has this mel spectrogram. So that the ear compares like with
like, the recording is played through the same guess, and beside it as it is.

Shapes: N samples, M mel frames at 100 Hz, 80 mels.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from itertools import zip_longest
from pathlib import Path

import av
import soundfile
import torch
import torchaudio
from torch import Tensor

from core.audio.waveform import SAMPLE_RATE
from core.errors import UserError
from core.saving import write_whole
from training.corpus.manifest import ManifestRow, read_manifest
from training.finetune.data import augmented, waveform_of
from training.stages.mels import HOP, NUM_MELS, power_mel

PIXELS = 2  # of a mel and of a frame
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  background: light-dark(#fff, #161616); color: light-dark(#161616, #f4f4f4); }
h2 { margin: 2.5rem 0 0.25rem; }
p { margin: 0.25rem 0 0.75rem; color: light-dark(#525252, #c6c6c6); }
.row { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; padding: 0.75rem; border: 1px solid light-dark(#e0e0e0, #393939);
  border-radius: 0.5rem; max-width: 100%; }
figcaption { margin-bottom: 0.5rem; }
img { display: block; max-width: 100%; height: 160px; image-rendering: pixelated; }
audio { display: block; width: 100%; min-width: 15rem; margin-top: 0.5rem; }
"""


def write_page(
    manifest: Path, out: Path, *, clips: int, versions: int, strength: float, seed: int
) -> Path:
    """Write the page.

    Args:
        manifest: of the recordings.
        out: the page's file.
        clips: how many recordings.
        versions: augmented versions of each.
        strength: of the augmentation, 0 to 1.
        seed: of the augmentation.

    Returns:
        Where the page is.

    Raises:
        ManifestError: the manifest or one of the recordings cannot be used.
        UserError: numbers that make no page.
    """
    if clips < 1 or versions < 1 or not 0.0 <= strength <= 1.0:
        raise UserError(
            f"{clips} clips in {versions} versions at strength {strength:g}; expected at least one "
            "of each, and a strength from 0 to 1"
        )
    rows = several_speakers(read_manifest(manifest), clips)
    parts = [_section(row, versions, strength, f"{seed}/{row.number}") for row in rows]
    title = f"Augmentation at strength {strength:g}: {html.escape(manifest.name)}"
    page = (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n<h1>{title}</h1>\n"
        "<p>Pictures: mel spectrograms, time to the right, frequency upwards, 80 dB from black to "
        "white. Sounds marked as rebuilt are guessed from the picture beside them, and rough for "
        "that reason alone.</p>\n" + "\n".join(parts) + "\n</html>\n"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, page.encode())
    return out


def several_speakers(rows: Sequence[ManifestRow], count: int) -> list[ManifestRow]:
    """Choose ``count`` rows, of as many different speakers as there are."""
    by_speaker: dict[str, list[ManifestRow]] = {}
    for row in rows:
        by_speaker.setdefault(row.speaker, []).append(row)
    turns = zip_longest(*by_speaker.values())
    return [row for turn in turns for row in turn if row is not None][:count]


def _section(row: ManifestRow, versions: int, strength: float, seed: str) -> str:
    """One recording and its versions."""
    samples = waveform_of(row)
    power = power_mel(samples)  # [M, 80]
    figures = [_figure("as recorded", power, samples), _figure("the same, rebuilt", power, None)]
    for number in range(1, versions + 1):
        version = augmented(power, strength, f"{seed}/{number}")
        figures.append(_figure(f"augmented {number}, rebuilt", version, None))
    seconds = samples.shape[0] / SAMPLE_RATE
    details = f"{row.speaker}, {row.language}, {seconds:.1f} s, row {row.number}"
    body = "\n".join(figures)
    return (
        f"<section>\n<h2>{html.escape(row.text)}</h2>\n<p>{html.escape(details)}</p>\n"
        f'<div class="row">\n{body}\n</div>\n</section>'
    )


def _figure(name: str, power: Tensor, samples: Tensor | None) -> str:
    sound = rebuilt(power) if samples is None else samples
    picture, audio = (
        base64.b64encode(data).decode() for data in (picture_of(power), wav_of(sound))
    )
    label = html.escape(name)
    return (
        f"<figure><figcaption>{label}</figcaption>"
        f'<img alt="mel spectrogram, {label}" src="data:image/png;base64,{picture}">'
        f'<audio controls preload="none" src="data:audio/wav;base64,{audio}"></audio></figure>'
    )


def rebuilt(power: Tensor) -> Tensor:
    """Guess a waveform [N] whose power mel is about ``power`` [M, 80]."""
    mel_bank, griffin_lim = _inverse()
    spectrum = torch.linalg.lstsq(mel_bank.T, power.T).solution.clamp(min=0.0)  # [257, M]
    torch.manual_seed(0)  # the phases it begins with
    samples = griffin_lim(spectrum)
    return samples / samples.abs().max().clamp(min=1e-9) * 0.7


@cache
def _inverse() -> tuple[Tensor, torchaudio.transforms.GriffinLim]:
    bank = torchaudio.functional.melscale_fbanks(257, 0.0, 8000.0, NUM_MELS, SAMPLE_RATE)
    lim = torchaudio.transforms.GriffinLim(
        n_fft=512, win_length=400, hop_length=HOP, power=2.0, n_iter=32
    )
    return bank, lim


def wav_of(samples: Tensor) -> bytes:
    """Write samples [N] as a 16-bit WAV file."""
    out = io.BytesIO()
    soundfile.write(out, samples.numpy(), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return out.getvalue()


def picture_of(power: Tensor) -> bytes:
    """Draw a power mel [M, 80] as a grey PNG, low frequencies at the bottom, 80 dB in all."""
    log = power.log10()
    grey = ((log - log.max()) / 8.0 + 1.0).clamp(0.0, 1.0).mul(255).round().to(torch.uint8)
    grey = grey.T.flip(0).repeat_interleave(PIXELS, 0).repeat_interleave(PIXELS, 1)
    frame = av.VideoFrame.from_ndarray(grey.numpy(), format="gray")
    png = av.VideoCodecContext.create("png", "w")
    png.width, png.height, png.pix_fmt = frame.width, frame.height, "gray"
    png.time_base = Fraction(1)
    return b"".join(bytes(packet) for packet in [*png.encode(frame), *png.encode(None)])
