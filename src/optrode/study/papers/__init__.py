"""One file per paper, each with a `STUDY`."""
