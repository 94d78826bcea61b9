//! What a schema holds, its references followed: known before anything is checked against it.
//!
//! # Invariants
//! - Ends for every schema, and soon: at a reference that leads back to itself, or at a bound.

use std::collections::HashSet;

use serde_json::Value;

use super::SchemaError;

/// Values within a schema, each reference replaced by what it names.
pub(super) const NODES_MAX: usize = 10_000;
/// Regular expressions of a schema, those that its references bring included.
pub(super) const PATTERNS_MAX: usize = 10;
/// Keywords by which a reference could mean something else than it says.
const UNSUPPORTED: [&str; 7] = [
    "$dynamicRef",
    "$recursiveRef",
    "$dynamicAnchor",
    "$recursiveAnchor",
    "$anchor",
    "$id",
    "id",
];

/// What a schema holds with each reference replaced by what it names.
#[derive(Debug, Clone, Copy, Default)]
pub struct Size {
    pub nodes: usize,
    pub patterns: usize,
}

impl Size {
    /// Both together.
    pub const fn and(self, other: Self) -> Self {
        Self {
            nodes: self.nodes.saturating_add(other.nodes),
            patterns: self.patterns.saturating_add(other.patterns),
        }
    }

    /// Of a schema, if it may be declared.
    pub fn of(schema: &Value) -> Result<Self, SchemaError> {
        let mut size = Self::default();
        let all = (schema, Place::Schema);
        unfold(schema, all, &mut HashSet::new(), &mut size)?;
        Ok(size)
    }
}

/// What stands at a place of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A schema: its names are keywords.
    Schema,
    /// Schemas under names of the user's.
    Names,
    /// A value that data is compared with.
    Data,
}

impl Place {
    /// What stands under a name.
    fn under(self, name: &str) -> Self {
        match (self, name) {
            (Self::Data, _) | (Self::Schema, "const" | "enum" | "default" | "examples") => {
                Self::Data
            }
            (
                Self::Schema,
                "properties" | "patternProperties" | "dependentSchemas" | "dependencies",
            ) => Self::Names,
            _ => Self::Schema,
        }
    }
}

/// Counts what a schema holds with each reference replaced by what it names. `under` are the references that are being
/// followed.
fn unfold<'a>(
    root: &'a Value,
    (at, place): (&'a Value, Place),
    under: &mut HashSet<&'a str>,
    size: &mut Size,
) -> Result<(), SchemaError> {
    size.nodes = size.nodes.saturating_add(1);
    if size.nodes > NODES_MAX {
        return Err(SchemaError::TooLarge);
    }
    if size.patterns > PATTERNS_MAX {
        return Err(SchemaError::TooManyPatterns);
    }
    match at {
        Value::Array(items) => {
            let mut items = items.iter();
            items.try_for_each(|item| unfold(root, (item, place), under, size))
        }
        Value::Object(members) => {
            for (name, value) in members {
                size.patterns = size
                    .patterns
                    .saturating_add(expressions(place, name, value));
                let is_text = value.is_string() || value.is_boolean();
                match (place, name.as_str(), value) {
                    (Place::Schema, "$ref", Value::String(reference)) => {
                        follow(root, reference, under, size)?;
                    }
                    (Place::Schema, name, _) if is_text && UNSUPPORTED.contains(&name) => {
                        return Err(SchemaError::Unsupported(name.to_owned()));
                    }
                    // Counted where they are referred to.
                    (Place::Schema, "$defs" | "definitions", _) => {}
                    _ => unfold(root, (value, place.under(name)), under, size)?,
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Regular expressions that a member brings.
fn expressions(place: Place, name: &str, value: &Value) -> usize {
    match (place, name, value) {
        (Place::Schema, "pattern", Value::String(_)) => 1,
        (Place::Schema, "patternProperties", Value::Object(patterns)) => patterns.len(),
        _ => 0,
    }
}

fn follow<'a>(
    root: &'a Value,
    reference: &'a str,
    under: &mut HashSet<&'a str>,
    size: &mut Size,
) -> Result<(), SchemaError> {
    let foreign = || SchemaError::Foreign(format!("{reference:?}"));
    let pointer = reference.strip_prefix('#').ok_or_else(foreign)?;
    if pointer.contains('%') {
        return Err(foreign());
    }
    let named = root.pointer(pointer).ok_or_else(foreign)?;
    if !under.insert(reference) {
        return Err(SchemaError::Recursive(format!("{reference:?}")));
    }
    unfold(root, (named, Place::Schema), under, size)?;
    under.remove(reference);
    Ok(())
}
