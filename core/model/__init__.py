"""The architectures, in torch alone: no files, no names of Hugging Face."""
