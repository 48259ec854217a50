//! JSON schemas as llguidance takes them. A schema is rewritten so that what llguidance lacks is
//! said in what it has, and so that an error can name its place:
//!  - references become names in $defs, wherever and however they pointed;
//!  - oneOf becomes anyOf, where it can be proven or made sure that no two branches hold at once;
//!  - formats that llguidance lacks or takes too widely become patterns, and those that are no
//!    validator's business go, as do annotations and unknown keywords;
//!  - integers are those of 64 bits, and bounds beyond them are drawn in;
//!  - the $comment of a schema is its place, a JSON pointer as a fragment.
//! What the result allows, the schema allows.
use std::collections::HashMap;

use serde_json::{json, Map, Value as Json};

use crate::json_document::{below, Document};
use crate::json_formats::{format, Format};
use crate::json_keywords::{at, bound, check, check_value, default_bounds};
use crate::json_proofs::{Conjunction, Proofs};

type Schema = Map<String, Json>;

/// The schema for llguidance. `coerce_one_of`: oneOf is read as anyOf. Fails with a message that
/// begins with a place.
pub fn prepare(schema: &Json, coerce_one_of: bool) -> Result<Json, String> {
    let Json::Object(root) = schema else {
        return Err(at("#", "a schema is an object, or true"));
    };
    let document = Document::new(schema);
    let mut preparer = Preparer::new(&document, coerce_one_of);
    let body = preparer.object(root, "#")?;
    let definitions = preparer.definitions()?;
    let mut out = match preparer.names.get("#") {
        Some(name) => reference_to(name),
        None => body,
    };
    if let Some(draft) = root.get("$schema") {
        out.insert("$schema".to_string(), draft.clone());
    }
    out.insert("$defs".to_string(), definitions.into());
    Ok(out.into())
}

/// The schemas within a prepared one that are not `true` or `false`, in the order of the text.
/// A reference's is the one that it points to.
pub fn inner_schemas<'a>(schema: &'a Json, definitions: &'a Json) -> Vec<&'a Json> {
    let mut found = Vec::new();
    for (key, value) in schema.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("$defs" | "$comment" | "const" | "enum" | "x-guidance", _) => {}
            ("$ref", Json::String(reference)) => {
                let name = reference.trim_start_matches("#/$defs/");
                found.extend(definitions.get(name));
            }
            ("properties" | "patternProperties", Json::Object(map)) => found.extend(map.values()),
            (_, Json::Array(items)) => found.extend(items),
            (_, value) => found.push(value),
        }
    }
    found.retain(|schema| schema.is_object());
    found
}

struct Preparer<'a> {
    document: &'a Document<'a>,
    proofs: Proofs<'a>,
    coerce_one_of: bool,
    names: HashMap<String, String>, // of referenced schemas, by their places
    waiting: Vec<(String, String, &'a Json)>, // their names, places and schemas
}

impl<'a> Preparer<'a> {
    fn new(document: &'a Document<'a>, coerce_one_of: bool) -> Preparer<'a> {
        let proofs = Proofs::new(document);
        Preparer { document, proofs, coerce_one_of, names: HashMap::new(), waiting: Vec::new() }
    }

    /// All that references, those in definitions too, have led to.
    fn definitions(&mut self) -> Result<Schema, String> {
        let mut definitions = Map::new();
        while let Some((name, place, schema)) = self.waiting.pop() {
            definitions.insert(name, self.schema(schema, &place)?);
        }
        Ok(definitions)
    }

    fn schema(&mut self, schema: &'a Json, place: &str) -> Result<Json, String> {
        match schema {
            Json::Bool(_) => Ok(schema.clone()),
            Json::Object(map) => Ok(self.object(map, place)?.into()),
            _ => Err(at(place, "a schema is an object, true or false")),
        }
    }

    fn object(&mut self, schema: &'a Schema, place: &str) -> Result<Schema, String> {
        check(schema, place)?;
        let mut out = Map::new();
        let mut more = Vec::new(); // schemas that must hold as well
        for (key, value) in schema {
            let here = below(place, key);
            let prepared = match key.as_str() {
                "$ref" => self.reference(value, &here)?,
                "properties" | "patternProperties" => self.map(value, &here)?,
                "allOf" | "anyOf" | "prefixItems" => self.list(value, &here)?,
                "items" if value.is_array() => self.list(value, &here)?,
                "additionalItems" | "additionalProperties" | "items" => {
                    self.schema(value, &here)?
                }
                "oneOf" => {
                    more.push(json!({"anyOf": self.one_of(schema, &here)?}));
                    continue;
                }
                "format" => {
                    more.extend(format_schema(schema, &here)?);
                    continue;
                }
                "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                    bound(key, value, place)?
                }
                "const" | "enum" => check_value(value, &here).map(|()| value.clone())?,
                "type" | "required" | "pattern" | "multipleOf" | "minLength" | "maxLength"
                | "minItems" | "maxItems" | "minProperties" | "maxProperties" => value.clone(),
                _ => continue,
            };
            out.insert(key.clone(), prepared);
        }
        for (key, limit) in default_bounds(schema) {
            out.insert(key.to_string(), limit.into());
        }
        more.into_iter().for_each(|schema| require(&mut out, schema));
        out.insert("$comment".to_string(), place.into());
        Ok(out)
    }

    fn map(&mut self, schemas: &'a Json, place: &str) -> Result<Json, String> {
        let mut out = Map::new();
        for (key, schema) in schemas.as_object().into_iter().flatten() {
            out.insert(key.clone(), self.schema(schema, &below(place, key))?);
        }
        Ok(out.into())
    }

    fn list(&mut self, schemas: &'a Json, place: &str) -> Result<Json, String> {
        let schemas = schemas.as_array().into_iter().flatten().enumerate();
        schemas.map(|(i, schema)| self.schema(schema, &below(place, i))).collect()
    }

    fn reference(&mut self, reference: &Json, place: &str) -> Result<Json, String> {
        let reference = reference.as_str().unwrap_or_default();
        let (target, schema) = self.document.resolve(reference).map_err(|e| at(place, e))?;
        if !self.names.contains_key(&target) {
            // llguidance splits names at slashes.
            let name = format!("{}{}", self.names.len(), target.replace('/', "."));
            self.names.insert(target.clone(), name.clone());
            self.waiting.push((name, target.clone(), schema));
        }
        Ok(reference_to(&self.names[&target])["$ref"].clone())
    }

    /// The branches of `schema`'s oneOf, each so that where it holds no other one does.
    fn one_of(&mut self, schema: &'a Schema, place: &str) -> Result<Json, String> {
        let branches = schema["oneOf"].as_array().map_or(&[][..], Vec::as_slice);
        let base = self.proofs.base(schema);
        let mut forbidden: Vec<Vec<&str>> = vec![Vec::new(); branches.len()];
        for b in 1..branches.len() {
            for a in 0..b {
                let (not_in_a, not_in_b) =
                    self.told_apart(&base, &branches[a], &branches[b]).ok_or_else(|| {
                        at(place, format!("branches {a} and {b} may hold at the same time"))
                    })?;
                forbidden[a].extend(not_in_a);
                forbidden[b].extend(not_in_b);
            }
        }
        let Json::Array(mut prepared) = self.list(&schema["oneOf"], place)? else {
            return Err(at(place, "must be an array"));
        };
        for (branch, names) in prepared.iter_mut().zip(&forbidden) {
            if let (Json::Object(branch), false) = (branch, names.is_empty()) {
                require(branch, without_properties(names));
            }
        }
        Ok(prepared.into())
    }

    /// What the first and what the second must not have, so that not both branches hold: nothing
    /// where they never do, otherwise a property that the other requires. None where neither is
    /// known to help.
    fn told_apart(
        &self,
        base: &Conjunction<'a>,
        a: &'a Json,
        b: &'a Json,
    ) -> Option<(Option<&'a str>, Option<&'a str>)> {
        if self.coerce_one_of || self.proofs.nothing_satisfies(base, [a, b]) {
            return Some((None, None));
        }
        let required_in_a = Proofs::required(&self.proofs.all(base, [a])?);
        let required_in_b = Proofs::required(&self.proofs.all(base, [b])?);
        let not_in_a = required_in_b.iter().find(|name| !required_in_a.contains(name))?;
        let not_in_b = required_in_a.iter().find(|name| !required_in_b.contains(name))?;
        let is_enough = |name: &str| {
            let without = without_properties(&[name]);
            self.proofs.nothing_satisfies(base, [a, b, &without])
        };
        (is_enough(not_in_a) && is_enough(not_in_b)).then_some((Some(*not_in_a), Some(*not_in_b)))
    }
}

fn reference_to(name: &str) -> Schema {
    Map::from_iter([("$ref".to_string(), format!("#/$defs/{name}").into())])
}

fn without_properties(names: &[&str]) -> Json {
    let properties: Schema = names.iter().map(|name| (name.to_string(), false.into())).collect();
    json!({"properties": properties})
}

/// Makes `schema` hold as well: by its keywords where they are free, otherwise by allOf.
fn require(out: &mut Schema, schema: Json) {
    let Json::Object(map) = schema else {
        return;
    };
    if map.keys().all(|key| !out.contains_key(key)) {
        out.extend(map);
    } else if let Some(Json::Array(all)) = out.get_mut("allOf") {
        all.push(map.into());
    } else {
        out.insert("allOf".to_string(), json!([map]));
    }
}

/// What a schema's format asks for, as a schema, where it asks for anything.
fn format_schema(schema: &Schema, place: &str) -> Result<Option<Json>, String> {
    let name = schema["format"].as_str().unwrap_or_default();
    let types = schema.get("type");
    let is_of_strings = types.is_none_or(|types| {
        types == "string" || types.as_array().is_some_and(|types| types.contains(&"string".into()))
    });
    let keyword = match format(name) {
        _ if !is_of_strings => return Ok(None),
        Format::Unsupported => return Err(at(place, format!("{name} is not supported"))),
        Format::Annotation => return Ok(None),
        Format::Native => json!({"format": name}),
        Format::Alias(native) => json!({"format": native}),
        Format::Pattern(pattern) => json!({"pattern": format!("^(?:{pattern})$")}),
    };
    Ok(Some(keyword))
}
