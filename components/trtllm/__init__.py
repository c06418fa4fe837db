"""TensorRT-LLM: what is run to make an engine, what identifies it, where it is kept."""
