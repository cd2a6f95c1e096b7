"""Model files: where they are, downloads that resume, adapters, and errors that say what to do."""
