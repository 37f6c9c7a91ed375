"""Image definition -> content key -> environment: a venv made by uv, and the layer with the runtime's own packages."""
