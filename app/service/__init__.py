"""What the app does, without a page: models, jobs, limits, measurements. Never imports gradio."""
