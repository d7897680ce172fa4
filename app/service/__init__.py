"""The app without its page: models, jobs, limits, measurements. Never imports gradio."""
