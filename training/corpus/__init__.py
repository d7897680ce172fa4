"""Texts, voices and recordings -> corpora and manifests."""
