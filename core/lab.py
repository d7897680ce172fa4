"""A loaded checkpoint, ready to transcribe and to chat.

In: a session. Out: an object with ``transcribe``, ``stream`` and ``chat``. Everything a request
changes (cache, clock, LoRA switch) is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Unpack

from torch import Tensor

from core import phases
from core.audio.container import Source
from core.audio.decode import decode_channels
from core.audio.waveform import RecordingTooLong
from core.engine.stages import Engine
from core.errors import UserError
from core.generation.greedy import Hypothesis
from core.generation.sampling import GenerationOptions
from core.memory import run_within_memory, within_memory
from core.model.features import LogMel
from core.phases import PhaseClock
from core.session import ModelSession
from core.text.transcript import Transcript
from core.transcription.autoregressive import AutoregressiveRecognizer
from core.transcription.channels import stream_channels
from core.transcription.chat import stream_chat
from core.transcription.forced_scores import logits_along
from core.transcription.generate_ids import continue_prompts
from core.transcription.long_form import LongJob, seconds_of, stream_long
from core.transcription.options import (
    SPEAKERS,
    Event,
    Finished,
    OptionFields,
    TranscribeOptions,
)
from core.transcription.resume import open_journal
from core.transcription.transcribe import stream


class Lab:
    """A loaded checkpoint. Made by :func:`core.load`.

    Attributes:
        session: the checkpoint's state: adapters, LoRA, recognizer.
        files, config, model, report, tokenizer, model_info, device, dtype: what was loaded.
        compile_ledger: fills as graphs are compiled.
    """

    def __init__(self, session: ModelSession) -> None:
        self.session, checkpoint = session, session.checkpoint
        self.files, self.report = checkpoint.files, checkpoint.report
        self.config, self.model = checkpoint.config, checkpoint.model
        self.tokenizer, self.model_info = checkpoint.tokenizer, checkpoint.model_info
        self.device, self.dtype = checkpoint.device, checkpoint.dtype
        self.compile_ledger, self.adapters = checkpoint.ledger, session.adapters
        self.load_ms, self.quantize = session.load_ms, session.quantize

    @property
    def has_adapter(self) -> bool:
        """Return whether the checkpoint came with an adapter; ``adapters`` has those added."""
        return self.session.has_adapter

    @property
    def max_audio_s(self) -> float:
        """Return the longest recording one pass takes, in seconds."""
        return self.session.recognizer.max_audio_s

    @property
    def autoregressive(self) -> AutoregressiveRecognizer:
        """Return the recognizer of a model with a decoder.

        Raises:
            UserError: this model has none.
        """
        found = self.session.recognizer
        if not isinstance(found, AutoregressiveRecognizer):
            raise UserError(
                f"{self.model_info.title} has no decoder that writes token by token; expected a "
                "model of the family granite_speech"
            )
        return found

    @property
    def feature_extractor(self) -> LogMel:
        """Return the log-mel front end of a model with a decoder."""
        return self.autoregressive.feature_extractor

    def engine(self, name: str) -> Engine:
        """Return the eager or the compiled stages of a model with a decoder.

        Raises:
            UserError: no such engine, or another family.
        """
        return self.autoregressive.engine(name)

    def merge_adapter(self, adapter: str | None = None) -> None:
        """Fold LoRA into the weights; see :meth:`core.session.ModelSession.merge_adapter`."""
        self.session.merge_adapter(adapter)

    def unmerge_adapter(self) -> None:
        """Restore the base weights exactly; LoRA can be switched per request again."""
        self.session.unmerge_adapter()

    def add_adapter(self, name: str, folder: str | Path) -> None:
        """Take in one more adapter; see :meth:`core.session.ModelSession.add_adapter`."""
        self.session.add_adapter(name, folder)

    def remove_adapter(self, name: str) -> None:
        """Forget an adapter that was added."""
        self.session.remove_adapter(name)

    def warm_up(self, *, batches: bool = False) -> None:
        """Compile every graph that single clips meet (with ``batches`` also several at once)."""
        self.session.recognizer.warm_up(batches=batches)

    def prompt_ids(self, num_frames: int) -> list[int]:
        """Return the ids of the prompt that asks for a transcript of ``num_frames`` frames."""
        request = TranscribeOptions().request()
        return self.autoregressive.components.prompt(request, num_frames)

    def check(self, **options: Unpack[OptionFields]) -> TranscribeOptions:
        """Check that this checkpoint can do what the options ask.

        Returns:
            The options.

        Raises:
            UserError: an option the model does not have.
            TypeError: an option nobody has.
        """
        chosen = TranscribeOptions(**options)
        self.session.lora_state(chosen.lora, chosen.adapter)
        self.session.recognizer.check(chosen)
        return chosen

    def longest_pass_s(self, **options: Unpack[OptionFields]) -> float:
        """Return how long a recording one pass is trusted with under these options, in seconds."""
        request = self.session.request(TranscribeOptions(**options))
        return request.recognizer.longest_pass_s(request.options)

    def transcribe(self, source: Source | Tensor, **options: Unpack[OptionFields]) -> Transcript:
        """Transcribe one recording: a path, bytes, a binary file, or a waveform [N] at 16 kHz.

        Keywords are those of :class:`core.transcription.options.TranscribeOptions`.

        Returns:
            Text, words, times and what they cost.

        Raises:
            AudioError: not a readable recording.
            UserError: an option the model does not have.
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
        """Stream one transcription: phases, partial texts, at last the transcript.

        Args:
            source: as for :meth:`transcribe`.
            cancelled: asked after every phase and token; True ends the work with the text so far.
            clock: a fresh clock of the caller's, who then has every span of every phase.
            resume: a folder that remembers the finished parts of long files, so that a run that
                was stopped goes on where it was.
            options: as for :meth:`transcribe`.

        Returns:
            Events as they come.
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
        """Stream several transcriptions as one batch; Args: and Returns: as of :meth:`stream`."""
        if not sources:
            raise UserError("no recordings came; expected at least one")
        # A wrong request fails before a recording is opened.
        request = self.session.request(TranscribeOptions(**options))
        adapter = self.session.adapter_for(request.lora, request.options.adapter)
        timer = clock or PhaseClock(self.device)
        if request.options.channels == SPEAKERS:
            if resume is not None:
                raise UserError(
                    "resume came with channels 'speakers', which keeps no journal; leave it out"
                )
            return self._stream_channels(sources, cancelled, timer, options)
        with timer.mark(phases.DECODE_AUDIO):  # reading a header is part of reading the recording
            lengths = [seconds_of(source) for source in sources]
        longest_s = request.recognizer.longest_pass_s(request.options)
        job = LongJob(request, cancelled, timer, longest_s)
        if all(length is not None and length <= longest_s for length in lengths):
            events = self._stream_short(sources, job, resume)
        else:
            events = self._stream_long(sources, job, resume)
        return self.adapters.over(adapter, events)

    def _stream_short(
        self, sources: Sequence[Source | Tensor], job: LongJob, resume: Path | None
    ) -> Iterator[Event]:
        """Run one pass; what is longer than its header says, as decoding shows, is cut after all.

        Yields:
            Events.
        """
        try:
            yield from stream(sources, job.request, cancelled=job.cancelled, clock=job.clock)
        except RecordingTooLong:
            yield from self._stream_long(sources, job, resume)

    def _stream_channels(
        self,
        sources: Sequence[Source | Tensor],
        cancelled: Callable[[], bool],
        clock: PhaseClock,
        options: OptionFields,
    ) -> Iterator[Event]:
        """Stereo recordings, one after another; ``clock`` is the first one's."""
        each: OptionFields = {**options, "channels": "mixed"}
        for index, source in enumerate(sources):
            if isinstance(source, Tensor):
                raise UserError("channels is 'speakers'; expected a recording, and got a waveform")
            timer = clock if index == 0 else PhaseClock(self.device)
            with timer.mark(phases.DECODE_AUDIO):
                both = decode_channels(source)

            def transcribe(channel: Tensor, timer: PhaseClock = timer) -> Iterator[Event]:
                return self.stream(channel, cancelled=cancelled, clock=timer, **each)

            name = str(source) if isinstance(source, str | Path) else ""
            yield from stream_channels(name, both, transcribe, index)

    def _stream_long(
        self,
        sources: Sequence[Source | Tensor],
        job: LongJob,
        resume: Path | None,
    ) -> Iterator[Event]:
        """Recordings that one pass is not trusted with, one after another; ``job`` is the first."""
        request = job.request
        if request.options.prefix_text:
            raise UserError(
                "prefix_text came with a recording that may be longer than "
                f"{job.longest_s:.0f} s, which takes several passes; expected a shorter one"
            )
        identity = self.session.identity(request.lora, request.options.adapter)
        for index, source in enumerate(sources):
            journal = (
                None if resume is None else open_journal(resume, source, identity, request.options)
            )
            clock = job.clock if index == 0 else PhaseClock(self.device)
            one = LongJob(request, job.cancelled, clock, job.longest_s, journal)
            yield from stream_long(one, source, index)

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

        Returns:
            The answer.
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
        """Stream what :meth:`chat` returns, piece by piece; its Args: hold here too."""
        if not self.model_info.text_mode:
            raise UserError(
                f"{self.model_info.title} has no text mode; 3.x models with an adapter do"
            )
        turns = [{"role": "user", "content": message}] if isinstance(message, str) else message
        pieces = stream_chat(
            self.autoregressive.components,
            self.engine(engine),
            turns,
            lora=self.session.checkpoint.lora_switch(self.session.lora_state(False), 1),
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
        """Compute teacher-forced logits [Q, V] of a transcript's tokens; Q is one more than these.

        Args:
            waveform: [N] at 16 kHz.
            token_ids: what the model is taken to have written.
            adapter: one that was added, or None for the checkpoint's own.
            engine: "eager" or "compile".

        Returns:
            Logits of every step.
        """
        state = self.session.lora_state(None, adapter)
        with self.adapters.using(self.session.adapter_for(state, adapter)):
            return logits_along(
                self.autoregressive.components,
                self.engine(engine),
                waveform,
                token_ids,
                request=TranscribeOptions().request(),
                lora=self.session.checkpoint.lora_switch(state, 1),
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
        """Continue token ids with token ids: no prompt is written, no text is made.

        Args:
            prompt_ids: one prompt per row, with exactly the audio positions its waveform makes.
            waveforms: one [N] at 16 kHz per row, or None for text.
            lora: on, off, or None for on exactly if there is audio and an adapter.
            engine: "eager" or "compile".
            options: how to generate; greedy, 200 tokens, by default.

        Returns:
            One finished hypothesis per prompt.

        Raises:
            ValueError: a prompt's audio positions do not match its waveform.
        """
        spoken = waveforms is not None
        state = self.session.lora_state(lora if lora is not None or spoken else False)
        stages, chosen = self.engine(engine), options or GenerationOptions()
        with self.adapters.using(self.session.adapter_for(state, None)):
            return run_within_memory(
                lambda: continue_prompts(
                    self.model,
                    self.feature_extractor,
                    stages,
                    [list(ids) for ids in prompt_ids],
                    waveforms,
                    lora=self.session.checkpoint.lora_switch(state, len(prompt_ids)),
                    options=chosen,
                ),
                self.device,
            )
