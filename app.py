"""Starts the page, as `specdec ui` does.

Environment: GRADIO_SERVER_NAME and GRADIO_SERVER_PORT (where it listens), SPECDEC_PRESET (load this preset at
start and let nobody change it), SPECDEC_LOCK=1 (once a preset is loaded, nobody may replace it),
SPECDEC_PRESETS (a folder with presets of one's own beside those that ship). A Space's own are in
specdec_ui/state/space.py.
"""

import sys

from specdec_ui.command import serve

if __name__ == "__main__":
    sys.exit(serve())
