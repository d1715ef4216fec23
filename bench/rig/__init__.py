"""What the scripts beside this folder share: an engine, a load, a gateway in its own process, charts."""
