"""Rules that judge a candidate, side by side on the same synthetic traffic."""
