"""Panels and fields of the page, and how their handlers are attached."""
