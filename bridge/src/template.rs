//! Chat templates as Hugging Face renders them: Jinja with `trim_blocks` and `lstrip_blocks`,
//! Python's methods and formatting, and the functions and tags that its library adds.
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State};

use crate::python;

const NAME: &str = "chat";

/// A broken-down local time; `strftime_now` formats it. The same struct as in the C header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LocalTime {
    pub year: i32,
    pub month: i32,    // 1 to 12
    pub day: i32,      // 1 to 31
    pub hour: i32,     // 0 to 23
    pub minute: i32,   // 0 to 59
    pub second: i32,   // 0 to 60
    pub weekday: i32,  // 0 is Sunday
    pub year_day: i32, // 1 to 366
}

pub struct Template {
    environment: Environment<'static>,
}

const fn assert_thread_safe<T: Send + Sync>() {}
const _: () = assert_thread_safe::<Template>();

impl Template {
    pub fn new(source: &str, fuel: u64) -> Result<Template, String> {
        let mut environment = Environment::new();
        environment.set_syntax(
            SyntaxConfig::builder()
                .trim_blocks(true)
                .lstrip_blocks(true)
                .build()
                .map_err(describe)?,
        );
        environment.set_fuel(Some(fuel));
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_formatter(write_value);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_filter("string", |value: &Value| python::to_text(value));
        environment.add_function("raise_exception", raise_exception);
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(describe)?;
        Ok(Template { environment })
    }

    pub fn render(&self, context_json: &str, now: LocalTime) -> Result<String, String> {
        let context: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(context_json).map_err(|e| format!("template input: {e}"))?;
        let strftime = Value::from_function(move |format: &str| python::strftime(format, &now));
        let variables = context
            .iter()
            .map(|(name, value)| (name.as_str(), Value::from(Serde(value))))
            .chain([("strftime_now", strftime)]);
        let template = self.environment.get_template(NAME).map_err(describe)?;
        template.render(Value::from_pairs(variables)).map_err(describe)
    }
}

/// The template's own message when it raised one, else what went wrong and where.
fn describe(error: Error) -> String {
    let detail = error.detail().unwrap_or_default().to_string();
    if let Some(message) = detail.strip_prefix(RAISED) {
        return message.to_string();
    }
    let line = error.line().map(|n| format!(" (template line {n})")).unwrap_or_default();
    if detail.is_empty() {
        format!("{}{line}", error.kind())
    } else {
        format!("{}: {detail}{line}", error.kind())
    }
}

/// Tells a message of `raise_exception` from one of the engine.
const RAISED: &str = "\u{1}";

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{message}")))
}

/// `json.dumps`, with Hugging Face's default of leaving non-ASCII as it is.
fn to_json(
    state: &State,
    value: &Value,
    positional: &[Value],
    kwargs: Kwargs,
) -> Result<String, Error> {
    let argument = |index: usize, name: &str| -> Result<Option<Value>, Error> {
        match positional.get(index) {
            Some(value) => Ok(Some(value.clone())),
            None => kwargs.get(name),
        }
    };
    let ascii = argument(0, "ensure_ascii")?;
    let indent = argument(1, "indent")?;
    let separators = argument(2, "separators")?;
    let sort_keys = argument(3, "sort_keys")?;
    kwargs.assert_all_used()?;
    let style = python::JsonStyle::new(ascii, indent, separators, sort_keys)?;
    let text = python::to_json(value, &style)?;
    state.consume_fuel(text.len() as u64 / 4)?;
    Ok(text)
}

/// What `str()` gives in Python, where the two differ: `None`, `True`, floats, lists and dicts.
fn write_value(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::String | ValueKind::Undefined => minijinja::escape_formatter(out, state, value),
        _ => {
            let text = python::to_text(value)?;
            state.consume_fuel(text.len() as u64 / 64)?;
            out.write_str(&text).map_err(Error::from)
        }
    }
}

/// `{% generation %}` marks what an assistant said, for training; here it only groups. It becomes
/// an `if` that keeps the tag's whitespace control.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        let inner = &tag[2..tag.len() - 2];
        let word = inner.trim_matches(['-', '+']).trim();
        match word {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}
