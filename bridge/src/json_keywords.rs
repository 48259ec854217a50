//! What the keywords of a JSON schema may say, each looked at alone.
use serde_json::{Map, Number, Value as Json};

use crate::json_document::below;

/// Where numbers end that 64 bits hold, with a margin for their bounds as doubles.
pub const MAX_INTEGER: f64 = 9e18;
/// Doubles tell integers apart up to here.
const MAX_EXACT: f64 = 9007199254740992.0;

const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];
const UNSUPPORTED: [&str; 12] = [
    "$dynamicRef",
    "$recursiveRef",
    "contains",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "if",
    "not",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
];
const SIZES: [(&str, &str); 3] =
    [("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties")];
const BOUNDS: [&str; 4] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"];

type Schema = Map<String, Json>;

/// An error at a place.
pub fn at(place: &str, message: impl std::fmt::Display) -> String {
    format!("{place}: {message}")
}

/// Refuses, naming the place, what no schema may say and what is not supported.
pub fn check(schema: &Schema, place: &str) -> Result<(), String> {
    check_support(schema, place)?;
    check_kinds(schema, place)?;
    check_type(schema, place)?;
    check_sizes(schema, place)?;
    check_numbers(schema, place)
}

fn check_support(schema: &Schema, place: &str) -> Result<(), String> {
    match UNSUPPORTED.iter().find(|key| schema.contains_key(**key) && !says_nothing(schema, key)) {
        Some(key) => Err(at(&below(place, key), "is not supported")),
        None => Ok(()),
    }
}

/// Whether the schema means the same without the keyword.
fn says_nothing(schema: &Schema, key: &str) -> bool {
    let value = &schema[key];
    let is_empty = value.as_object().is_some_and(Map::is_empty);
    match key {
        "uniqueItems" | "not" => value == false,
        "if" => !schema.contains_key("then") && !schema.contains_key("else"),
        "$dynamicRef" | "$recursiveRef" | "contains" => false,
        "dependencies" | "dependentRequired" | "dependentSchemas" => is_empty,
        _ => value == true || is_empty,
    }
}

fn check_kinds(schema: &Schema, place: &str) -> Result<(), String> {
    type Kind = fn(&Json) -> bool;
    const IS_OBJECT: (Kind, &str) = (Json::is_object, "must be an object");
    const IS_STRING: (Kind, &str) = (Json::is_string, "must be a string");
    const IS_LIST: (Kind, &str) = (is_full_array, "must be an array that is not empty");
    const IS_STRINGS: (Kind, &str) = (is_array_of_strings, "must be an array of strings");
    for (key, (is_right, message)) in [
        ("properties", IS_OBJECT),
        ("patternProperties", IS_OBJECT),
        ("pattern", IS_STRING),
        ("format", IS_STRING),
        ("$ref", IS_STRING),
        ("enum", IS_LIST),
        ("anyOf", IS_LIST),
        ("oneOf", IS_LIST),
        ("allOf", IS_LIST),
        ("prefixItems", IS_LIST),
        ("required", IS_STRINGS),
    ] {
        if schema.get(key).is_some_and(|value| !is_right(value)) {
            return Err(at(&below(place, key), message));
        }
    }
    Ok(())
}

fn is_full_array(value: &Json) -> bool {
    value.as_array().is_some_and(|items| !items.is_empty())
}

fn is_array_of_strings(value: &Json) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(Json::is_string))
}

fn check_type(schema: &Schema, place: &str) -> Result<(), String> {
    let Some(value) = schema.get("type") else {
        return Ok(());
    };
    let names = match value {
        Json::Array(names) if !names.is_empty() => names.as_slice(),
        one => std::slice::from_ref(one),
    };
    match names.iter().find(|name| !TYPES.iter().any(|known| *name == known)) {
        Some(name) => Err(at(&below(place, "type"), format!("{name} is no type"))),
        None => Ok(()),
    }
}

fn check_sizes(schema: &Schema, place: &str) -> Result<(), String> {
    for (least, most) in SIZES {
        for key in [least, most] {
            if schema.get(key).is_some_and(|size| !size.is_u64()) {
                return Err(at(&below(place, key), "must be an integer that is not negative"));
            }
        }
        if let (Some(a), Some(b)) = (schema.get(least), schema.get(most)) {
            if a.as_u64() > b.as_u64() {
                return Err(at(place, format!("{least} ({a}) is greater than {most} ({b})")));
            }
        }
    }
    Ok(())
}

fn check_numbers(schema: &Schema, place: &str) -> Result<(), String> {
    for key in BOUNDS {
        // Draft 4 has booleans.
        let may_be_boolean = key.starts_with("exclusive");
        if schema.get(key).is_some_and(|v| !v.is_number() && !(may_be_boolean && v.is_boolean())) {
            return Err(at(&below(place, key), "must be a number"));
        }
    }
    let step = schema.get("multipleOf");
    if step.is_some_and(|step| !step.as_f64().is_some_and(|step| step > 0.0)) {
        return Err(at(&below(place, "multipleOf"), "must be a number greater than 0"));
    }
    if let (Some(a), Some(b)) = (schema.get("minimum"), schema.get("maximum")) {
        if a.as_f64() > b.as_f64() {
            return Err(at(place, format!("minimum ({a}) is greater than maximum ({b})")));
        }
    }
    Ok(())
}

/// A bound of numbers as a double that lets no other numbers through, and is not beyond
/// MAX_INTEGER.
pub fn bound(key: &str, value: &Json, place: &str) -> Result<Json, String> {
    let Some(number) = value.as_f64().filter(|number| number.abs() > MAX_EXACT) else {
        return Ok(value.clone());
    };
    let is_lower = key.ends_with("inimum");
    if is_lower && number > MAX_INTEGER || !is_lower && number < -MAX_INTEGER {
        return Err(at(&below(place, key), "leaves no number that 64 bits hold"));
    }
    let exact = value.as_number().and_then(Number::as_i128);
    let number = match exact {
        Some(exact) if is_lower && (number as i128) < exact => number.next_up(),
        Some(exact) if !is_lower && number as i128 > exact => number.next_down(),
        _ => number,
    };
    Ok(number.clamp(-MAX_INTEGER, MAX_INTEGER).into())
}

/// Bounds for integers that have none: otherwise their digits may never end.
pub fn default_bounds(schema: &Schema) -> Vec<(&'static str, f64)> {
    let names = match schema.get("type") {
        Some(Json::Array(names)) => names.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let has = |name: &str| names.iter().any(|own| own == name);
    if !has("integer") || has("number") {
        return Vec::new();
    }
    [("minimum", "exclusiveMinimum", -MAX_INTEGER), ("maximum", "exclusiveMaximum", MAX_INTEGER)]
        .into_iter()
        .filter(|(bound, other, _)| !schema.contains_key(*bound) && !schema.contains_key(*other))
        .map(|(bound, _, limit)| (bound, limit))
        .collect()
}

/// Refuses integers, at any depth of a const or an enum, that are no doubles.
pub fn check_value(value: &Json, place: &str) -> Result<(), String> {
    match value {
        Json::Number(n) => match n.as_i128().zip(n.as_f64()) {
            Some((integer, double)) if double as i128 != integer => {
                Err(at(place, format!("{integer} is no double")))
            }
            _ => Ok(()),
        },
        Json::Array(items) => items.iter().try_for_each(|item| check_value(item, place)),
        Json::Object(map) => map.values().try_for_each(|item| check_value(item, place)),
        _ => Ok(()),
    }
}
