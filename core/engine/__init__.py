"""A model's stages as callables: eager, compiled, packaged ahead of time, CUDA graphs."""
