"""Commands that steer a model: fit, try, evaluate, export, serve."""
