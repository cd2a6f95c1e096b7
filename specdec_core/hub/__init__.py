"""Model files from the Hugging Face Hub or local folders: configuration, tokenizer, weights, adapters."""
