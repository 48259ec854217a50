//! The values of JSON Schema's `format`.

/// What is done about a format.
pub enum Format {
    Native,              // llguidance knows it
    Alias(&'static str), // the strings of a native one
    Pattern(String),     // a regular expression for the whole string
    Unsupported,
    Annotation, // of no meaning to a validator
}

/// Years have four digits and do not begin with 0, so that every library takes them, and a second
/// is never the sixtieth. What a pattern allows may be less than the format does, never more.
pub fn format(name: &str) -> Format {
    const TIME: &str = concat!(
        r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?",
        r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
    );
    const POINTER: &str = r"(?:/(?:[^~/]|~[01])*)*";
    const LABEL: &str = r"[a-z0-9](?:-?[a-z0-9]){0,30}";
    match name {
        "duration" | "email" | "hostname" | "ipv4" | "ipv6" | "uri" | "uuid" => Format::Native,
        "idn-email" => Format::Alias("email"),
        "iri" => Format::Alias("uri"),
        "date" => Format::Pattern(date()),
        "time" => Format::Pattern(TIME.to_string()),
        "date-time" => Format::Pattern(format!("{}T{TIME}", date())),
        "idn-hostname" => Format::Pattern(format!(r"{LABEL}(?:\.{LABEL}){{0,7}}")),
        "iri-reference" | "uri-reference" => Format::Pattern(uri_reference()),
        "json-pointer" => Format::Pattern(POINTER.to_string()),
        "relative-json-pointer" => Format::Pattern(format!("(?:0|[1-9]{{1,4}})(?:#|{POINTER})")),
        "uri-template" => Format::Pattern(
            r"(?:[a-zA-Z0-9\-._~:/?#@!$&*+,;=]|\{[a-zA-Z0-9_]+(?:,[a-zA-Z0-9_]+)*\})*".to_string(),
        ),
        "regex" => Format::Unsupported,
        _ => Format::Annotation,
    }
}

/// Whether no string is of both formats.
pub fn are_disjoint(a: &str, b: &str) -> bool {
    const DISJOINT: [&str; 7] = ["date", "date-time", "time", "uuid", "ipv4", "ipv6", "email"];
    a != b && DISJOINT.contains(&a) && DISJOINT.contains(&b)
}

fn date() -> String {
    const LEAP_YEAR: &str =
        concat!("[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|", "(?:[2468][048]|[13579][26])00");
    const DAY: &str = concat!(
        "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|",
        "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|",
        "02-(?:0[1-9]|1[0-9]|2[0-8])"
    );
    format!("(?:[1-9][0-9]{{3}}-(?:{DAY})|(?:{LEAP_YEAR})-02-29)")
}

fn uri_reference() -> String {
    const SCHEME: &str = r"[a-zA-Z][a-zA-Z0-9+.\-]*";
    const HOST: &str = r"[a-zA-Z0-9\-._~]+(?::[0-9]{1,5})?";
    const CHARACTER: &str = r"(?:[a-zA-Z0-9\-._~!$&'()*+,;=@]|%[0-9a-fA-F]{2})";
    const END: &str = r"(?:[a-zA-Z0-9\-._~!$&'()*+,;=:@/?]|%[0-9a-fA-F]{2})*";
    let segments = format!("(?:/{CHARACTER}*)*");
    let absolute = format!("{SCHEME}:(?://{HOST}{segments}|{CHARACTER}+)");
    let relative = format!("/?(?:{CHARACTER}+{segments})?");
    format!(r"(?:{absolute}|{relative})(?:\?{END})?(?:\#{END})?")
}
