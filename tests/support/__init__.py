"""What several tests share: tiny models, tokenizers, a model hub on this machine, the replayed page."""
