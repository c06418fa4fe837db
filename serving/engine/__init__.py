"""The CPU engine: an OpenAI-compatible server on transformers continuous batching.

`loading` opens a checkpoint or refuses it, `batcher` turns requests into streams of tokens,
`sampler` chooses the tokens, `answers` turns tokens into text, and `server` speaks HTTP. Nothing
here starts a thread at import, so that a warm parent process can import everything once and fork a
replica per server.

Whoever starts the process sets `OMP_NUM_THREADS=1`, `OMP_WAIT_POLICY=PASSIVE` and
`GOMP_SPINCOUNT=0`: spinning OpenMP threads on an oversubscribed host cost up to ten times the work
itself, and they are read before torch is imported.
"""
