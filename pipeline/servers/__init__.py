"""The project's own Prefect server: starting it, serving the flows, the UI."""
