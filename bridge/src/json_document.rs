//! References within a JSON schema.
use std::collections::HashMap;

use serde_json::Value as Json;

/// A schema as a whole, which `$ref` points into.
pub struct Document<'a> {
    root: &'a Json,
    anchors: HashMap<&'a str, String>, // to their places
}

impl<'a> Document<'a> {
    pub fn new(root: &'a Json) -> Document<'a> {
        let mut anchors = HashMap::new();
        find_anchors(root, "#", &mut anchors);
        Document { root, anchors }
    }

    /// The place of what is referred to, a JSON pointer as a fragment, and the schema there.
    pub fn resolve(&self, reference: &str) -> Result<(String, &'a Json), String> {
        let fragment = self.fragment(reference).ok_or_else(|| {
            format!("'{reference}' is outside the schema: only references into it are followed")
        })?;
        let place = match self.anchors.get(fragment.as_str()) {
            Some(place) => place.clone(),
            None => format!("#{fragment}"),
        };
        match self.root.pointer(&place[1..]) {
            Some(schema) => Ok((place, schema)),
            None => Err(format!("'{reference}' is not in the schema")),
        }
    }

    fn fragment(&self, reference: &str) -> Option<String> {
        let (base, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let id = self.root.get("$id").and_then(Json::as_str);
        let is_own = base.is_empty() || id.is_some_and(|id| id.trim_end_matches('#') == base);
        if !is_own || reference.is_empty() {
            return None;
        }
        percent_decoded(fragment)
    }
}

/// A place below `place`.
pub fn below(place: &str, key: impl std::fmt::Display) -> String {
    format!("{place}/{}", key.to_string().replace('~', "~0").replace('/', "~1"))
}

fn find_anchors<'a>(value: &'a Json, place: &str, anchors: &mut HashMap<&'a str, String>) {
    match value {
        Json::Object(map) => {
            if let Some(name) = map.get("$anchor").and_then(Json::as_str) {
                anchors.entry(name).or_insert_with(|| place.to_string());
            }
            for (key, inner) in map {
                find_anchors(inner, &below(place, key), anchors);
            }
        }
        Json::Array(items) => {
            for (i, inner) in items.iter().enumerate() {
                find_anchors(inner, &below(place, i), anchors);
            }
        }
        _ => {}
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        if *byte != b'%' {
            bytes.push(*byte);
            rest = tail;
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}
