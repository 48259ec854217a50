//! Proofs that no value satisfies several JSON schemas at once. A schema that is not understood
//! counts as satisfied, so that a proof is never wrong; many true statements have none.
use std::cell::Cell;

use serde_json::{Map, Value as Json};

use crate::json_document::Document;
use crate::json_formats::are_disjoint;

/// Schemas that all proofs about a document may look at. Without fuel nothing more is proven.
const FUEL: usize = 2_000_000;
/// Those of one proof.
const FUEL_OF_A_PROOF: usize = 20_000;
/// References that are followed, one to the next.
const MAX_DEPTH: u32 = 32;
/// Items that are looked at, from the first.
const MAX_ITEMS: usize = 8;

// Types as a set of bits. A number is an integer or has a fraction.
const TYPES: [(&str, u8); 7] = [
    ("null", 1),
    ("boolean", 2),
    ("integer", 4),
    ("number", 4 | 8),
    ("string", 16),
    ("array", 32),
    ("object", 64),
];
const ALL_TYPES: u8 = 127;

pub struct Proofs<'a> {
    document: &'a Document<'a>,
    fuel: Cell<usize>,
    proof_fuel: Cell<usize>,
}

/// Schemas that all hold.
pub type Conjunction<'a> = Vec<Part<'a>>;

#[derive(Clone, Copy)]
pub struct Part<'a> {
    schema: &'a Map<String, Json>,
    with_branches: bool, // anyOf and oneOf are looked at
}

impl<'a> Proofs<'a> {
    pub fn new(document: &'a Document<'a>) -> Proofs<'a> {
        Proofs { document, fuel: Cell::new(FUEL), proof_fuel: Cell::new(0) }
    }

    /// `schema` without its own anyOf and oneOf.
    pub fn base(&self, schema: &'a Map<String, Json>) -> Conjunction<'a> {
        let mut parts = vec![Part { schema, with_branches: false }];
        self.proof_fuel.set(FUEL_OF_A_PROOF.min(self.fuel.get()));
        self.add_referred(schema, &mut parts, 0);
        parts
    }

    /// What holds where `base` and all of `schemas` do; nothing where one of them is `false`.
    pub fn all(
        &self,
        base: &Conjunction<'a>,
        schemas: impl IntoIterator<Item = &'a Json>,
    ) -> Option<Conjunction<'a>> {
        let mut parts = base.clone();
        schemas.into_iter().all(|schema| self.add(schema, &mut parts, 0)).then_some(parts)
    }

    /// Whether it is proven that nothing satisfies `base` and all of `schemas`.
    pub fn nothing_satisfies(
        &self,
        base: &Conjunction<'a>,
        schemas: impl IntoIterator<Item = &'a Json>,
    ) -> bool {
        self.proof_fuel.set(FUEL_OF_A_PROOF.min(self.fuel.get()));
        self.all(base, schemas).is_none_or(|parts| self.is_empty(&parts))
    }

    /// Whether there was fuel for `schemas` more.
    fn may_look_at(&self, schemas: usize) -> bool {
        let is_enough = self.proof_fuel.get() > schemas;
        self.fuel.set(self.fuel.get().saturating_sub(schemas));
        self.proof_fuel.set(self.proof_fuel.get().saturating_sub(schemas));
        is_enough
    }

    /// The properties that an object which satisfies them must have.
    pub fn required(parts: &Conjunction<'a>) -> Vec<&'a str> {
        parts.iter().flat_map(|part| strings(part.schema.get("required"))).collect()
    }

    /// False when nothing satisfies `schema`.
    fn add(&self, schema: &'a Json, parts: &mut Conjunction<'a>, depth: u32) -> bool {
        match schema {
            Json::Bool(holds) => *holds,
            Json::Object(map) => self.add_object(map, parts, depth),
            _ => true,
        }
    }

    fn add_object(
        &self,
        schema: &'a Map<String, Json>,
        parts: &mut Conjunction<'a>,
        depth: u32,
    ) -> bool {
        let is_known = parts.iter().any(|part| std::ptr::eq(part.schema, schema));
        if is_known || depth == MAX_DEPTH || !self.may_look_at(parts.len() + 1) {
            return true;
        }
        parts.push(Part { schema, with_branches: true });
        self.add_referred(schema, parts, depth)
    }

    /// What the schema's $ref and allOf say.
    fn add_referred(
        &self,
        schema: &'a Map<String, Json>,
        parts: &mut Conjunction<'a>,
        depth: u32,
    ) -> bool {
        let reference = schema.get("$ref").and_then(Json::as_str);
        let target = reference.and_then(|r| self.document.resolve(r).ok());
        target.is_none_or(|(_, target)| self.add(target, parts, depth + 1))
            && list(schema.get("allOf")).iter().all(|item| self.add(item, parts, depth + 1))
    }

    fn is_empty(&self, parts: &Conjunction<'a>) -> bool {
        if !self.may_look_at(parts.len() + 1) {
            return false;
        }
        no_value_is_left(parts)
            || self.no_type_is_left(parts)
            || (0..parts.len()).any(|i| self.no_branch_is_left(parts, i))
    }

    fn no_type_is_left(&self, parts: &Conjunction<'a>) -> bool {
        let types = parts.iter().fold(ALL_TYPES, |types, part| types & types_of(part.schema));
        types & (1 | 2) == 0
            && (types & (4 | 8) == 0 || range_is_empty(parts))
            && (types & 16 == 0 || no_string_is_left(parts))
            && (types & 32 == 0 || self.no_array_is_left(parts))
            && (types & 64 == 0 || self.no_object_is_left(parts))
    }

    fn no_branch_is_left(&self, parts: &Conjunction<'a>, at: usize) -> bool {
        if !parts[at].with_branches {
            return false;
        }
        let mut rest = parts.clone();
        rest[at].with_branches = false;
        ["anyOf", "oneOf"].iter().any(|key| {
            let options = list(parts[at].schema.get(*key));
            !options.is_empty()
                && options.iter().all(|option| {
                    self.all(&rest, [option]).is_none_or(|parts| self.is_empty(&parts))
                })
        })
    }

    fn no_array_is_left(&self, parts: &Conjunction<'a>) -> bool {
        let (least, most) = sizes(parts, "minItems", "maxItems");
        least > most
            || (0..MAX_ITEMS.min(least as usize)).any(|i| {
                let schemas = parts.iter().filter_map(|part| item_schema(part.schema, i));
                self.all(&Vec::new(), schemas).is_none_or(|parts| self.is_empty(&parts))
            })
    }

    fn no_object_is_left(&self, parts: &Conjunction<'a>) -> bool {
        let (least, most) = sizes(parts, "minProperties", "maxProperties");
        least > most
            || Self::required(parts).iter().any(|name| {
                if !self.may_look_at(parts.len()) {
                    return false;
                }
                let schemas = parts.iter().filter_map(|part| property_schema(part.schema, name));
                self.all(&Vec::new(), schemas).is_none_or(|parts| self.is_empty(&parts))
            })
    }
}

fn no_value_is_left(parts: &Conjunction) -> bool {
    let Some(values) = parts.iter().find_map(|part| values_of(part.schema)) else {
        return false;
    };
    !values.iter().any(|value| parts.iter().all(|part| may_hold(part.schema, value)))
}

fn range_is_empty(parts: &Conjunction) -> bool {
    let bound = |key: &str, better: fn(f64, f64) -> f64, none: f64| {
        let numbers = parts.iter().filter_map(|part| part.schema.get(key).and_then(Json::as_f64));
        numbers.fold(none, better)
    };
    let least = bound("minimum", f64::max, f64::NEG_INFINITY);
    let most = bound("maximum", f64::min, f64::INFINITY);
    let above = bound("exclusiveMinimum", f64::max, f64::NEG_INFINITY);
    let under = bound("exclusiveMaximum", f64::min, f64::INFINITY);
    least.max(above) > most.min(under) || above >= most || under <= least || above >= under
}

fn no_string_is_left(parts: &Conjunction) -> bool {
    let (least, most) = sizes(parts, "minLength", "maxLength");
    let formats: Vec<&str> =
        parts.iter().filter_map(|part| part.schema.get("format").and_then(Json::as_str)).collect();
    least > most || formats.iter().any(|a| formats.iter().any(|b| are_disjoint(a, b)))
}

/// The greatest lower and the least upper bound.
fn sizes(parts: &Conjunction, least: &str, most: &str) -> (u64, u64) {
    let all = |key: &str| -> Vec<u64> {
        parts.iter().filter_map(|part| part.schema.get(key).and_then(Json::as_u64)).collect()
    };
    let greatest = all(least).into_iter().max().unwrap_or(0);
    (greatest, all(most).into_iter().min().unwrap_or(u64::MAX))
}

fn item_schema(schema: &Map<String, Json>, index: usize) -> Option<&Json> {
    let first = schema.get("prefixItems").or(schema.get("items").filter(|items| items.is_array()));
    if let Some(item) = list(first).get(index) {
        return Some(item);
    }
    schema.get("items").filter(|items| !items.is_array())
}

fn property_schema<'a>(schema: &'a Map<String, Json>, name: &str) -> Option<&'a Json> {
    if let Some(own) = schema.get("properties").and_then(|properties| properties.get(name)) {
        return Some(own);
    }
    if schema.contains_key("patternProperties") {
        return None; // whether one matches is not looked at
    }
    schema.get("additionalProperties")
}

fn types_of(schema: &Map<String, Json>) -> u8 {
    let bits = |name: &str| TYPES.iter().find(|(n, _)| *n == name).map_or(0, |(_, bits)| *bits);
    match schema.get("type") {
        Some(Json::String(name)) => bits(name),
        Some(Json::Array(_)) => {
            strings(schema.get("type")).into_iter().fold(0, |types, name| types | bits(name))
        }
        _ => ALL_TYPES,
    }
}

fn type_of(value: &Json) -> u8 {
    match value {
        Json::Null => 1,
        Json::Bool(_) => 2,
        Json::Number(n) if n.as_f64().is_some_and(|n| n.fract() != 0.0) => 8,
        Json::Number(_) => 4,
        Json::String(_) => 16,
        Json::Array(_) => 32,
        Json::Object(_) => 64,
    }
}

fn values_of(schema: &Map<String, Json>) -> Option<&[Json]> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => Some(std::slice::from_ref(value)),
        (None, Some(Json::Array(values))) => Some(values),
        _ => None,
    }
}

fn may_hold(schema: &Map<String, Json>, value: &Json) -> bool {
    let is_listed = || values_of(schema).is_none_or(|all| all.iter().any(|v| equal(v, value)));
    types_of(schema) & type_of(value) != 0 && is_listed() && is_in_bounds(schema, value)
}

fn is_in_bounds(schema: &Map<String, Json>, value: &Json) -> bool {
    let holds = |key: &str, test: &dyn Fn(f64) -> bool| {
        schema.get(key).and_then(Json::as_f64).is_none_or(test)
    };
    match value {
        Json::Number(n) => n.as_f64().is_none_or(|n| {
            holds("minimum", &|bound| n >= bound)
                && holds("maximum", &|bound| n <= bound)
                && holds("exclusiveMinimum", &|bound| n > bound)
                && holds("exclusiveMaximum", &|bound| n < bound)
        }),
        Json::String(text) => {
            let length = text.chars().count() as f64;
            holds("minLength", &|bound| length >= bound)
                && holds("maxLength", &|bound| length <= bound)
        }
        _ => true,
    }
}

/// As JSON Schema compares: 1 is 1.0.
fn equal(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| equal(value, other)))
        }
        _ => a == b,
    }
}

fn list(value: Option<&Json>) -> &[Json] {
    value.and_then(Json::as_array).map_or(&[], Vec::as_slice)
}

fn strings(value: Option<&Json>) -> Vec<&str> {
    list(value).iter().filter_map(Json::as_str).collect()
}
