"""Where a body is parsed: at once, in a thread, or in a process of its own."""
