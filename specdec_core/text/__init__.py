"""Text in and out: chat templates, prompts, and detokenization of a stream."""
