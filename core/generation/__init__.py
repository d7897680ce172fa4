"""Prompts -> token ids: greedy, sampled, beams, exact and lossy drafts."""
