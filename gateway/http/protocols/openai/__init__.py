"""OpenAI's routes over agents and chat models: its clients work with a `base_url` alone."""
