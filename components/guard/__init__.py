"""May a quantized checkpoint replace its parent? Judged on the same items; see `verdict`."""
