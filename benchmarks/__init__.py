"""One command each (`python -m benchmarks.NAME`); JSON and Markdown out, ratios from one run."""
