"""Public endpoints for `gradio_client`."""
