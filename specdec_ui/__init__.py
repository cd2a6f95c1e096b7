"""The page: Gradio components, their handlers and their looks. Knows the engine by its public names only."""
