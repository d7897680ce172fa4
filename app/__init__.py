"""The Gradio front end: words, pictures and buttons around :mod:`core` and :mod:`profiling`.

``app.py`` beside this package starts it. Nothing here imports torch; :mod:`app.service.service`
alone owns loaded models, the thread they run on and the jobs that wait for it.
"""
