"""Schemathesis' generated bodies, made to be answered more often: nothing generated names the model
that is served, and most ask for several constraints at once."""

import schemathesis

CONSTRAINTS = ("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice",
               "guided_grammar", "guided_json_object", "json_schema", "regex", "ebnf", "format",
               "output_config", "output_format", "text")  # fmt: skip


@schemathesis.hook
def map_body(context, body):
    if context.operation.path.startswith("/api/") or not isinstance(body, dict):
        return body
    if isinstance(body.get("model"), str):
        body["model"] = ""
    if "input" not in body and "text_1" not in body and context.operation.path != "/generate":
        present = [name for name in CONSTRAINTS if name in body]
        for name in present[1:]:
            del body[name]
    return body
