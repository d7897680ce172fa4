"""Granite Speech, native in PyTorch: recordings in, transcripts out.

``core.load(name)`` returns a :class:`core.transcribe.Lab`; everything else hangs off it. Importing
this package reads no files, touches no device and changes no global setting.
"""

from __future__ import annotations
