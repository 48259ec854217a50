"""Schemathesis' valid bodies, made to be answered more often: nothing generated names the model that
is served, and a schema can't say which fields only make sense together."""

import schemathesis
from schemathesis import GenerationMode

CONSTRAINTS = ("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice",
               "guided_grammar", "guided_json_object", "json_schema", "regex", "ebnf", "format",
               "output_config", "output_format", "text")  # fmt: skip
NEEDS = {"stream_options": "stream", "length_penalty": "use_beam_search",
         "early_stopping": "use_beam_search", "top_logprobs": "logprobs",
         "tool_choice": "tools"}  # fmt: skip
NOT_ZERO = ("max_tokens", "max_completion_tokens", "max_output_tokens", "truncate_prompt_tokens",
            "top_p", "repetition_penalty")  # fmt: skip


def reconcile(path, body):
    if not path.startswith("/api/") and isinstance(body.get("model"), str):
        body["model"] = ""
    for name, needed in NEEDS.items():
        if name in body and not body.get(needed):
            del body[name]
    for name in NOT_ZERO:
        if body.get(name) == 0:
            body[name] = 1
    if path == "/generate" and body.get("text") is None and body.get("input_ids") is None:
        body["text"] = "Once"
    if body.get("prompt") == "":
        body["prompt"] = "Once"
    if "input" not in body and "text_1" not in body and path != "/generate":
        present = [name for name in CONSTRAINTS if name in body]
        for name in present[1:]:
            del body[name]


@schemathesis.hook
def before_call(context, case, **kwargs):
    valid = case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE
    if valid and isinstance(case.body, dict):
        reconcile(case.operation.path, case.body)
