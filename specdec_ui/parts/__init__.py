"""Components and texts that several tabs share."""
