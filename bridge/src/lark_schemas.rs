//! The JSON schemas within a grammar in llguidance's Lark dialect.
use serde_json::Value as Json;

/// The grammar with every schema that follows `%json` replaced. An error says where it stands. What
/// is no JSON is left for the grammar's own parser to refuse.
pub fn replace_schemas(
    lark: &str,
    mut replace: impl FnMut(&Json) -> Result<Json, String>,
) -> Result<String, String> {
    const MARK: &str = "%json";
    let mut out = String::with_capacity(lark.len());
    let mut rest = lark;
    while let Some(next) = rest.chars().next() {
        let mut taken = match next {
            '"' => quoted_length(rest, '"'),
            '/' if !rest.starts_with("//") => quoted_length(rest, '/'),
            '/' | '#' => rest.find('\n').unwrap_or(rest.len()),
            _ => next.len_utf8(),
        };
        if rest.starts_with(MARK) {
            let mut values = serde_json::Deserializer::from_str(&rest[MARK.len()..]).into_iter();
            if let Some(Ok(schema @ Json::Object(_))) = values.next() {
                let at = || position(lark, lark.len() - rest.len());
                let prepared = replace(&schema).map_err(|e| format!("at {}: {e}", at()))?;
                out += &format!("{MARK} {prepared}");
                rest = &rest[MARK.len() + values.byte_offset()..];
                continue;
            }
            taken = MARK.len();
        }
        out += &rest[..taken];
        rest = &rest[taken..];
    }
    Ok(out)
}

/// Of a text that begins and ends with `quote`, in which a backslash takes the next character along.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        if c == quote && !is_escaped {
            return i + c.len_utf8();
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    text.len()
}

/// Line and column, from 1.
fn position(text: &str, offset: usize) -> String {
    let before = &text[..offset];
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!("{}({column})", before.matches('\n').count() + 1)
}
