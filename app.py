"""Start the app: ``python app.py [--host H] [--port P] [--share] [--model M] [--device D]``."""

import argparse
import os

# Gradio and the Hub client read these when they are imported: nothing is reported to anybody.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["DO_NOT_TRACK"] = "1"

from app.serving import serve
from app.studio import Studio
from app.ui import build_app

parser = argparse.ArgumentParser(description="Granite Speech Lab")
parser.add_argument("--host", help="address to listen on (default: this machine only)")
parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
parser.add_argument("--share", action="store_true", help="open a public tunnel")
parser.add_argument("--model", default="tiny", help="name, repository id or folder")
parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")

if __name__ == "__main__":
    chosen = parser.parse_args()
    studio = Studio(model=chosen.model, device=chosen.device)
    studio.warm()
    app = build_app(studio)
    serve(app, host=chosen.host, port=chosen.port, share=chosen.share)
