"""Token ids <-> text <-> files: tokenizer, prompts, transcripts, word times, exports."""
