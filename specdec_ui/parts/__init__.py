"""Parts that several tabs share. They hold no state of a visitor."""
