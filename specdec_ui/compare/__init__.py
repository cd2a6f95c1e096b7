"""The Compare tab: one prompt decoded with and without drafts."""
