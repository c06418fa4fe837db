"""Says how the transformers of this environment reads a checkpoint: JSON on the last line."""

import json
import sys


def main(folder: str) -> None:
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        chat = [{"role": "user", "content": "what is twelve plus thirty?"}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        words = {"text": text, "ids": ids, "eos": tokenizer.eos_token_id}
    except ValueError as problem:
        words, ids = {"error": str(problem)}, list(range(5, 30))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, dtype="auto"
    )
    dtype = str(model.dtype)
    model = model.to(torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1]
    sys.stdout.write(
        "\n"
        + json.dumps(
            {
                "version": transformers.__version__,
                "dtype": dtype,
                "frequencies": model.model.rotary_emb.inv_freq.tolist(),
                "tokenizer": words,
                "generation_eos": model.generation_config.eos_token_id,
                "logits": logits.tolist(),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
