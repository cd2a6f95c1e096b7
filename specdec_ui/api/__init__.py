"""The endpoints that `gradio_client` calls."""
