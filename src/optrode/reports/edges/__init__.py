"""What the report shows of edges: circuits as interactive graphs, their proofs, scores, and methods compared."""
