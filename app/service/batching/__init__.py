"""Clips of many callers become batches of the model, fair between clients."""
