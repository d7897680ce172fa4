"""Granite Speech, native in PyTorch: recordings in, transcripts out.

``core.load(name)`` returns a :class:`core.lab.Lab`; everything else hangs off it. Importing this
package reads no files, touches no device and changes no global setting.
"""

from core.audio.waveform import AudioError
from core.lab import Lab
from core.loading import load
from core.text.transcript import Transcript

__all__ = ["AudioError", "Lab", "Transcript", "load"]
