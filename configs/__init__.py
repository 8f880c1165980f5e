"""One runnable experiment a file."""
