"""Complete, runnable examples."""
