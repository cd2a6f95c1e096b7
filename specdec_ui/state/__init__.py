"""State of the page: the loaded engine, visitors, their conversations, the queue, ZeroGPU."""
