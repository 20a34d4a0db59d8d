"""Training with gates held: schedules, checkpoints, measures, and what they leave behind."""
