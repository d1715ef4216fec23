"""The one place where bodies are rewritten, for models whose configuration says so.

Import from the modules: most of them are loaded only where a model has adapters.
"""
