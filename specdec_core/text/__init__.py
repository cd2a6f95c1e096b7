"""Text to token ids and back: prompts, chat templates, incremental detokenization."""
