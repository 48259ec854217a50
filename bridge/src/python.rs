//! Python's view of values, as templates written for it expect: `str`, `repr`, `json.dumps`,
//! `strftime`.
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};
use serde_json::Value as Json;

use crate::template::LocalTime;

pub struct JsonStyle {
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

impl JsonStyle {
    pub fn new(
        ensure_ascii: Option<Value>,
        indent: Option<Value>,
        separators: Option<Value>,
        sort_keys: Option<Value>,
    ) -> Result<JsonStyle, Error> {
        let is_true = |v: Option<Value>| v.is_some_and(|v| v.is_true());
        let indent = match indent {
            Some(v) if !v.is_none() && !v.is_undefined() => Some(indent_text(&v)?),
            _ => None,
        };
        let (item_separator, key_separator) = match separators {
            Some(v) if !v.is_none() && !v.is_undefined() => separator_pair(&v)?,
            _ => ((if indent.is_some() { "," } else { ", " }).to_string(), ": ".to_string()),
        };
        Ok(JsonStyle {
            ensure_ascii: is_true(ensure_ascii),
            indent,
            item_separator,
            key_separator,
            sort_keys: is_true(sort_keys),
        })
    }
}

fn indent_text(value: &Value) -> Result<String, Error> {
    const MAX_INDENT: usize = 64;
    if let Some(text) = value.as_str() {
        return Ok(text.to_string());
    }
    let width = usize::try_from(value.clone())?;
    if width > MAX_INDENT {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson: indent is too large"));
    }
    Ok(" ".repeat(width))
}

fn separator_pair(value: &Value) -> Result<(String, String), Error> {
    let pair: Vec<Value> = value.try_iter()?.collect();
    match pair.as_slice() {
        [item, key] => Ok((item.to_string(), key.to_string())),
        _ => Err(Error::new(ErrorKind::InvalidOperation, "tojson: separators is not a pair")),
    }
}

pub fn to_json(value: &Value, style: &JsonStyle) -> Result<String, Error> {
    let json = as_json(value)?;
    let mut out = String::new();
    write_json(&json, style, 0, &mut out);
    Ok(out)
}

fn as_json(value: &Value) -> Result<Json, Error> {
    serde_json::to_value(value).map_err(|e| {
        Error::new(ErrorKind::InvalidOperation, "cannot serialize to JSON").with_source(e)
    })
}

fn write_json(json: &Json, style: &JsonStyle, depth: usize, out: &mut String) {
    match json {
        Json::Null => out.push_str("null"),
        Json::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Json::Number(n) => out.push_str(&number(n)),
        Json::String(s) => write_json_string(s, style.ensure_ascii, out),
        Json::Array(items) => {
            let items = items.iter().map(|item| (None, item)).collect();
            write_container(('[', ']'), items, style, depth, out);
        }
        Json::Object(map) => {
            let mut items: Vec<_> = map.iter().map(|(k, v)| (Some(k.as_str()), v)).collect();
            if style.sort_keys {
                items.sort_by_key(|(key, _)| *key);
            }
            write_container(('{', '}'), items, style, depth, out);
        }
    }
}

fn write_container(
    brackets: (char, char),
    items: Vec<(Option<&str>, &Json)>,
    style: &JsonStyle,
    depth: usize,
    out: &mut String,
) {
    let new_line = |depth: usize, out: &mut String| {
        if let Some(indent) = &style.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    };
    out.push(brackets.0);
    let empty = items.is_empty();
    for (index, (key, value)) in items.into_iter().enumerate() {
        if index > 0 {
            out.push_str(&style.item_separator);
        }
        new_line(depth + 1, out);
        if let Some(key) = key {
            write_json_string(key, style.ensure_ascii, out);
            out.push_str(&style.key_separator);
        }
        write_json(value, style, depth + 1, out);
    }
    if !empty {
        new_line(depth, out);
    }
    out.push(brackets.1);
}

fn write_json_string(text: &str, ensure_ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            // Private-use characters stand for text that the caller puts back.
            c if ensure_ascii && !c.is_ascii() && (c as u32) < 0xF0000 => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn number(n: &serde_json::Number) -> String {
    if n.is_i64() || n.is_u64() {
        n.to_string()
    } else {
        float(n.as_f64().unwrap_or(f64::NAN))
    }
}

/// `repr` of a float: Rust's shortest digits with Python's exponent of a sign and two digits.
fn float(value: f64) -> String {
    let text = format!("{value:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{exponent:0>2}")
        }
    }
}

/// `str(value)`.
pub fn to_text(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::String | ValueKind::Undefined => Ok(value.to_string()),
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            let mut out = String::new();
            write_repr(&as_json(value)?, &mut out);
            Ok(out)
        }
        ValueKind::None | ValueKind::Bool | ValueKind::Number => {
            let mut out = String::new();
            write_repr(&as_json(value)?, &mut out);
            Ok(out)
        }
        _ => Ok(value.to_string()),
    }
}

fn write_repr(json: &Json, out: &mut String) {
    match json {
        Json::Null => out.push_str("None"),
        Json::Bool(b) => out.push_str(if *b { "True" } else { "False" }),
        Json::Number(n) => out.push_str(&number(n)),
        Json::String(s) => write_repr_string(s, out),
        Json::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_repr(item, out);
            }
            out.push(']');
        }
        Json::Object(map) => {
            out.push('{');
            for (index, (key, item)) in map.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_repr_string(key, out);
                out.push_str(": ");
                write_repr(item, out);
            }
            out.push('}');
        }
    }
}

fn write_repr_string(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                out.push_str(&format!("\\x{:02x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// The directives of C's `strftime` in the C locale; others stay as they are written.
pub fn strftime(format: &str, now: &LocalTime) -> String {
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            None => out.push('%'),
            Some('-') => match chars.next() {
                Some(directive) => out.push_str(unpadded(&field(directive, now, "%-"))),
                None => out.push_str("%-"),
            },
            Some(directive) => out.push_str(&field(directive, now, "%")),
        }
    }
    out
}

fn unpadded(text: &str) -> &str {
    let trimmed = text.trim_start_matches(['0', ' ']);
    if trimmed.is_empty() {
        "0"
    } else {
        trimmed
    }
}

fn field(directive: char, now: &LocalTime, prefix: &str) -> String {
    const DAYS: [&str; 7] =
        ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let day = DAYS[now.weekday.rem_euclid(7) as usize];
    let month = MONTHS[(now.month - 1).rem_euclid(12) as usize];
    let hour12 = (now.hour + 11) % 12 + 1;
    match directive {
        'Y' => now.year.to_string(),
        'y' => format!("{:02}", now.year.rem_euclid(100)),
        'm' => format!("{:02}", now.month),
        'd' => format!("{:02}", now.day),
        'e' => format!("{:2}", now.day),
        'j' => format!("{:03}", now.year_day),
        'H' => format!("{:02}", now.hour),
        'I' => format!("{hour12:02}"),
        'M' => format!("{:02}", now.minute),
        'S' => format!("{:02}", now.second),
        'p' => (if now.hour < 12 { "AM" } else { "PM" }).to_string(),
        'A' => day.to_string(),
        'a' => day[..3].to_string(),
        'B' => month.to_string(),
        'b' | 'h' => month[..3].to_string(),
        'w' => now.weekday.to_string(),
        'F' => format!("{}-{:02}-{:02}", now.year, now.month, now.day),
        'T' => format!("{:02}:{:02}:{:02}", now.hour, now.minute, now.second),
        '%' => "%".to_string(),
        other => format!("{prefix}{other}"),
    }
}
