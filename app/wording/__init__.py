"""Every word a person reads. Never imports gradio."""
