"""Where evidence about two versions comes from: live counters, paired replay, webhooks.

A source is read from a cursor, and the caller commits the new cursor together with what the
reading proved. A source that cannot be read raises `ServingError`: missing data is no evidence,
neither for a version nor against it.
"""
