"""A loaded checkpoint, ready to transcribe and to chat.

In: a model and the files it came from. Out: an object with ``transcribe``, ``stream`` and ``chat``.
Its weights are shared by all callers and never change while a request runs; everything a request
changes (cache, clock, LoRA switch) is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Unpack

from torch import Tensor

from core import phases
from core.audio.container import Source
from core.engine.stages import Engine
from core.generation.greedy import Hypothesis
from core.generation.sampling import GenerationOptions
from core.memory import run_within_memory, within_memory
from core.phases import PhaseClock
from core.session import ModelSession
from core.text.transcript import Transcript
from core.transcription.chat import stream_chat
from core.transcription.forced_scores import logits_along
from core.transcription.generate_ids import continue_prompts
from core.transcription.long_form import LongJob, seconds_of, stream_long
from core.transcription.options import Event, Finished, OptionFields, TranscribeOptions
from core.transcription.resume import open_journal
from core.transcription.transcribe import stream


class Lab(ModelSession):
    """A loaded checkpoint. Made by :func:`core.load`.

    files, config, model, tokenizer, entry, device and dtype are what was loaded; ``compile_ledger``
    fills as graphs are compiled.
    """

    def check(self, **options: Unpack[OptionFields]) -> TranscribeOptions:
        """The options, if this checkpoint can do what they ask.

        Raises:
            ValueError: an option the model does not have.
            TypeError: an option nobody has.
        """
        chosen = TranscribeOptions(**options)
        self._lora_state(chosen.lora, chosen.adapter)
        self._components.prompts.speech(chosen.request(), 1)
        return chosen

    def transcribe(self, source: Source | Tensor, **options: Unpack[OptionFields]) -> Transcript:
        """Transcribe one recording: a path, bytes, a binary file, or a waveform [N] at 16 kHz.

        Keywords are those of :class:`core.transcription.options.TranscribeOptions`.

        Raises:
            AudioError: not a readable recording.
            ValueError: an option the model does not have.
            TypeError: an option nobody has.
        """
        return self.transcribe_batch([source], **options)[0]

    def transcribe_batch(
        self, sources: Sequence[Source | Tensor], **options: Unpack[OptionFields]
    ) -> list[Transcript]:
        """Transcribe several recordings as one batch; each gets the text it would get alone."""
        events = self.stream_batch(sources, **options)
        return [event.transcript for event in events if isinstance(event, Finished)]

    def stream(
        self,
        source: Source | Tensor,
        *,
        cancelled: Callable[[], bool] = lambda: False,
        clock: PhaseClock | None = None,
        resume: Path | None = None,
        **options: Unpack[OptionFields],
    ) -> Iterator[Event]:
        """Events of one transcription: phases, partial texts, at last the transcript.

        Args:
            source: as for :meth:`transcribe`.
            cancelled: asked after every phase and token; True ends the work with the text so far.
            clock: a fresh clock of the caller's, who then has every span of every phase.
            resume: a folder that remembers the finished parts of long files, so that a run that
                was stopped goes on where it was.
        """
        return self.stream_batch(
            [source], cancelled=cancelled, clock=clock, resume=resume, **options
        )

    def stream_batch(
        self,
        sources: Sequence[Source | Tensor],
        *,
        cancelled: Callable[[], bool] = lambda: False,
        clock: PhaseClock | None = None,
        resume: Path | None = None,
        **options: Unpack[OptionFields],
    ) -> Iterator[Event]:
        """Events of several transcriptions, run as one batch; see :meth:`stream`."""
        if not sources:
            raise ValueError("no recordings came; expected at least one")
        chosen = self.check(**options)  # a wrong request fails before a recording is opened
        lora = self._lora_state(chosen.lora, chosen.adapter)
        adapter = self._adapter(lora, chosen.adapter)
        components, stages = self._components, self.engine(chosen.engine)
        timer = clock or PhaseClock(self.device)
        with timer.mark(phases.DECODE_AUDIO):  # reading a header is part of reading the recording
            lengths = [seconds_of(source) for source in sources]
        longest_s = min(self.model_info.reliable_s, self.max_audio_s)
        if all(length is not None and length <= longest_s for length in lengths):
            events = stream(
                components, stages, sources, chosen, lora=lora, cancelled=cancelled, clock=timer
            )
        else:
            events = self._stream_long(stages, sources, chosen, lora, cancelled, timer, resume)
        return self.adapters.over(adapter, events)

    def _stream_long(
        self,
        stages: Engine,
        sources: Sequence[Source | Tensor],
        options: TranscribeOptions,
        lora: bool | None,
        cancelled: Callable[[], bool],
        clock: PhaseClock,
        resume: Path | None,
    ) -> Iterator[Event]:
        """Recordings that one pass is not trusted with, one after another."""
        longest_s = min(self.model_info.reliable_s, self.max_audio_s)
        identity = self._identity(lora, options.adapter)
        for index, source in enumerate(sources):
            journal = None if resume is None else open_journal(resume, source, identity, options)
            job = LongJob(
                self._components, stages, options, lora, cancelled, clock, longest_s, journal
            )
            yield from stream_long(job, source, index)
            clock = PhaseClock(self.device)

    def chat(
        self,
        message: str | Sequence[Mapping[str, str]],
        *,
        max_new_tokens: int = 200,
        temperature: float = 0.0,
        engine: str = "eager",
    ) -> str:
        """Answer text with text, LoRA off: the second pass of the 3.x two-pass design.

        Args:
            message: one user message, or a conversation of {"role", "content"}.
            max_new_tokens: longest answer.
            temperature: 0 for the likeliest answer, more to sample.
            engine: "eager" or "compile".
        """
        return "".join(
            self.stream_chat(
                message, max_new_tokens=max_new_tokens, temperature=temperature, engine=engine
            )
        )

    def stream_chat(
        self,
        message: str | Sequence[Mapping[str, str]],
        *,
        max_new_tokens: int = 200,
        temperature: float = 0.0,
        engine: str = "eager",
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[str]:
        """:meth:`chat`, piece by piece."""
        if not self.model_info.text_mode:
            raise ValueError(
                f"{self.model_info.title} has no text mode; 3.x models with an adapter do"
            )
        turns = [{"role": "user", "content": message}] if isinstance(message, str) else message
        pieces = stream_chat(
            self._components,
            self.engine(engine),
            turns,
            lora=self._switch(self._lora_state(False), 1),
            options=GenerationOptions(max_new_tokens=max_new_tokens, temperature=temperature),
            cancelled=cancelled,
        )
        return self.adapters.over(None, within_memory(pieces, self.device))

    def logits_along(
        self,
        waveform: Tensor,
        token_ids: Sequence[int],
        *,
        adapter: str | None = None,
        engine: str = "eager",
    ) -> Tensor:
        """Scores [Q, V] that the model gives along a transcript's tokens; Q is one more than these.

        Args:
            waveform: [N] at 16 kHz.
            token_ids: what the model is taken to have written.
            adapter: one that was added, or None for the checkpoint's own.
            engine: "eager" or "compile".
        """
        state = self._lora_state(None, adapter)
        with self.adapters.using(self._adapter(state, adapter)):
            return logits_along(
                self._components,
                self.engine(engine),
                waveform,
                token_ids,
                request=TranscribeOptions().request(),
                lora=self._switch(state, 1),
            )

    def generate_ids(
        self,
        prompt_ids: Sequence[Sequence[int]],
        waveforms: Sequence[Tensor] | None = None,
        *,
        lora: bool | None = None,
        engine: str = "eager",
        options: GenerationOptions | None = None,
    ) -> list[Hypothesis]:
        """Token ids from token ids: no prompt is written, no text is made.

        Args:
            prompt_ids: one prompt per row, with exactly the audio positions its waveform makes.
            waveforms: one [N] at 16 kHz per row, or None for text.
            lora: on, off, or None for on exactly if there is audio and an adapter.
            engine: "eager" or "compile".
            options: how to generate; greedy, 200 tokens, by default.

        Raises:
            ValueError: a prompt's audio positions do not match its waveform.
        """
        spoken = waveforms is not None
        state = self._lora_state(lora if lora is not None or spoken else False)
        stages, chosen = self.engine(engine), options or GenerationOptions()
        with self.adapters.using(self._adapter(state, None)):
            return run_within_memory(
                lambda: continue_prompts(
                    self.model,
                    self.feature_extractor,
                    stages,
                    [list(ids) for ids in prompt_ids],
                    waveforms,
                    lora=self._switch(state, len(prompt_ids)),
                    options=chosen,
                ),
                self.device,
            )
