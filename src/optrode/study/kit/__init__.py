"""What several studies share: tasks, tiny models, and ways to look at them."""
