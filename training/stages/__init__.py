"""The stages that make the bundled checkpoint, and its evaluation."""
