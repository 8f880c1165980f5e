"""State, step, parallel execution, optimiser, checkpoints, metrics and the loop."""
