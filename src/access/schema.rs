//! JSON Schemas that tenants declare for their events' data.
//!
//! # Invariants
//! - A schema comes from somebody who shares the server with others: it fetches nothing, its patterns are matched in linear
//!   time, and what a check may cost is known before it is made. So it may not refer to itself, and what its references
//!   unfold to is bounded: 30 definitions that each name the one before twice took 44 s to check one string.
//! - An answer says where data breaks its schema and how, and never shows the data.

mod size;

use std::thread::available_parallelism;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

pub(super) use size::Size;

/// Bytes of a schema.
pub const SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// Values of a schema times values of the data it is asked about: what a check may cost, some 100 ms.
/// If several schemas apply, their costs together.
pub(super) const COST_MAX: usize = 2_000_000;
/// Bytes that a regular expression may take when it is compiled: few if that is enough, so that it is known what it takes.
const PATTERN_BYTES: [usize; 2] = [16 * 1024, 128 * 1024];
/// Bytes of what is remembered while an expression is matched, in each direction. With eight times as much it is not faster.
const MATCHING_BYTES: usize = 16 * 1024;
/// What that comes to for each thread that has matched it: measured, 34 kB.
const MATCHED_BYTES: usize = 40 * 1024;
/// What a byte of text costs for each expression, as values: an expression may be matched slowly.
const PATTERN_COST: usize = 4;
/// Bytes that a value of a schema takes: measured, up to 380.
const NODE_BYTES: usize = 400;
/// Bytes that any schema takes.
const SCHEMA_BYTES: usize = 4 * 1024;
/// Faults that are told of.
const FAULTS_MAX: usize = 10;

/// Why a text is no schema that can be declared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// Too long.
    #[error("is longer than {SCHEMA_BYTES_MAX} bytes")]
    TooLong,
    /// Refers to itself, at the root or below.
    #[error("{0} leads back to itself, which is not supported: a check might not end")]
    Recursive(String),
    /// Refers to something elsewhere.
    #[error(
        "{0} names something that is not within the schema: a reference must begin with #/ or be #"
    )]
    Foreign(String),
    /// `$dynamicRef`, `$recursiveRef`, `$id` or `$anchor`.
    #[error("{0} is not supported: write references as {{\"$ref\": \"#/…\"}}")]
    Unsupported(String),
    /// Too many regular expressions.
    #[error(
        "has more than {} regular expressions, those that its references bring included",
        size::PATTERNS_MAX
    )]
    TooManyPatterns,
    /// Unfolds to too much.
    #[error(
        "is too large: with its references it holds more than {} values",
        size::NODES_MAX
    )]
    TooLarge,
    /// Not a schema.
    #[error("is no JSON Schema: {0}")]
    Invalid(String),
}

/// Where data breaks its schema, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// A JSON pointer into the data; empty for all of it.
    pub pointer: String,
    /// In words, without the data.
    pub reason: String,
}

/// A schema that can be asked.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    size: Size,
    /// What each of its expressions was allowed to take.
    pattern_bytes: usize,
}

impl Schema {
    /// Makes one ready.
    ///
    /// # Errors
    /// If it is none, or might cost too much.
    pub fn new(schema: &Value) -> Result<Self, SchemaError> {
        let size = Size::of(schema)?;
        let [small, large] = PATTERN_BYTES;
        let (validator, pattern_bytes) = match compile(schema, small) {
            Err(_) if size.patterns > 0 => (compile(schema, large)?, large),
            compiled => (compiled?, small),
        };
        Ok(Self {
            validator,
            size,
            pattern_bytes,
        })
    }

    /// Bytes that it takes, from above: its expressions as they are when every thread has matched them.
    #[must_use]
    pub fn weight(&self) -> usize {
        let processors = available_parallelism().map_or(1, usize::from);
        // Those that serve, and those for what takes long.
        let threads = processors.saturating_add(processors.div_ceil(2));
        let matched = threads.saturating_mul(MATCHED_BYTES);
        let pattern = self.pattern_bytes.saturating_add(matched);
        let values = self.size.nodes.saturating_mul(NODE_BYTES);
        let patterns = self.size.patterns.saturating_mul(pattern);
        values.saturating_add(patterns).saturating_add(SCHEMA_BYTES)
    }

    /// What it holds.
    pub(super) const fn size(&self) -> Size {
        self.size
    }

    /// What a check of so much data may cost.
    pub(super) const fn cost(&self, data: Amount) -> usize {
        let expressions = self.size.patterns.saturating_mul(PATTERN_COST);
        let texts = expressions.saturating_mul(data.bytes);
        self.size
            .nodes
            .saturating_mul(data.values)
            .saturating_add(texts)
    }

    /// Whether data is as it should be.
    ///
    /// # Errors
    /// The first of its faults.
    pub fn check(&self, data: &Value) -> Result<(), Vec<Fault>> {
        if self.cost(Amount::of(data)) > COST_MAX {
            return Err(too_much());
        }
        let faults: Vec<Fault> = self
            .validator
            .iter_errors(data)
            .take(FAULTS_MAX)
            .map(|error| Fault {
                pointer: error.instance_path().to_string(),
                reason: error.masked().to_string(),
            })
            .collect();
        if faults.is_empty() {
            Ok(())
        } else {
            Err(faults)
        }
    }
}

fn compile(schema: &Value, pattern_bytes: usize) -> Result<Validator, SchemaError> {
    let expressions = PatternOptions::regex()
        .size_limit(pattern_bytes)
        .dfa_size_limit(MATCHING_BYTES);
    jsonschema::options()
        .with_pattern_options(expressions)
        // Some drafts would have data compiled as expressions.
        .should_validate_formats(false)
        .build(schema)
        .map_err(|error| SchemaError::Invalid(error.to_string()))
}

/// Why data that costs too much is refused.
pub(super) fn too_much() -> Vec<Fault> {
    vec![Fault {
        pointer: String::new(),
        reason:
            "holds too many values, or texts that are too long, to be compared with this schema"
                .into(),
    }]
}

/// How much data is to be checked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Amount {
    /// Values.
    pub(super) values: usize,
    /// Bytes of texts and names.
    pub(super) bytes: usize,
}

impl Amount {
    /// Of this data.
    pub(super) fn of(data: &Value) -> Self {
        let inner = match data {
            Value::Array(items) => items.iter().map(Self::of).fold(Self::default(), Self::and),
            Value::Object(members) => members
                .iter()
                .map(|(name, value)| {
                    Self::of(value).and(Self {
                        values: 0,
                        bytes: name.len(),
                    })
                })
                .fold(Self::default(), Self::and),
            Value::String(text) => Self {
                values: 0,
                bytes: text.len(),
            },
            _ => Self::default(),
        };
        inner.and(Self {
            values: 1,
            bytes: 0,
        })
    }

    /// At most, of JSON of this length: between two values there is a comma or a colon.
    pub(super) const fn within(length: usize) -> Self {
        Self {
            values: (length / 2).saturating_add(1),
            bytes: length,
        }
    }

    const fn and(self, other: Self) -> Self {
        Self {
            values: self.values.saturating_add(other.values),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::size::PATTERNS_MAX;
    use super::*;
    use serde_json::json;

    fn refused(schema: &Value) -> SchemaError {
        Schema::new(schema)
            .err()
            .unwrap_or_else(|| panic!("{schema}"))
    }

    #[test]
    fn data_is_checked_and_not_shown() {
        let schema = Schema::new(&json!({
            "$defs": {"money": {"type": "number", "minimum": 0}},
            "type": "object", "required": ["amount"], "additionalProperties": false,
            "properties": {"amount": {"$ref": "#/$defs/money"}, "name": {"type": "string", "pattern": "^[a-z]+$"}},
        }))
        .unwrap();
        assert_eq!(schema.check(&json!({"amount": 1, "name": "a"})), Ok(()));
        let faults = schema
            .check(&json!({"amount": -77, "name": "SECRET"}))
            .unwrap_err();
        let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["/amount", "/name"]);
        let text = format!("{faults:?}");
        assert!(!text.contains("SECRET") && !text.contains("77"), "{text}");
        let text = format!("{:?}", schema.check(&json!({"amount": 1, "x": 2})));
        assert!(text.contains("dditional"), "{text}");
        assert!(schema.check(&json!([])).is_err());
        // What only looks like a keyword is none.
        let names = json!({"properties": {"id": {"default": {"id": "x", "$ref": "#"}}, "$ref": {"const": {"$id": "a"}}}});
        assert_eq!(
            Schema::new(&names).unwrap().check(&json!({"id": 1})),
            Ok(())
        );
    }

    #[test]
    fn what_might_not_end_is_refused() {
        let diamonds = |depth: usize| {
            let mut definitions = json!({"d0": {"type": "number"}});
            for level in 1..depth {
                let below = json!({"$ref": format!("#/$defs/d{}", level - 1)});
                definitions[format!("d{level}")] = json!({"anyOf": [below, below]});
            }
            json!({"$defs": definitions, "$ref": format!("#/$defs/d{}", depth - 1)})
        };
        assert_eq!(refused(&diamonds(30)), SchemaError::TooLarge);
        assert!(Schema::new(&diamonds(5)).is_ok());
        for recursive in [
            json!({"$ref": "#"}),
            json!({"properties": {"a": {"$ref": "#"}}}),
            json!({"$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
            json!({"properties": {"default": {"$ref": "#"}}}),
            json!({"default": {"items": {"$ref": "#/default"}}, "$ref": "#/default"}),
        ] {
            assert!(
                matches!(refused(&recursive), SchemaError::Recursive(_)),
                "{recursive}"
            );
        }
        for foreign in [
            "http://127.0.0.1:1/x",
            "file:///etc/passwd",
            "#/nowhere",
            "other.json",
            "#%2F$defs",
        ] {
            let schema = json!({"$ref": foreign});
            assert!(
                matches!(refused(&schema), SchemaError::Foreign(_)),
                "{foreign}"
            );
        }
        for name in ["$dynamicRef", "$recursiveRef", "$anchor", "$id"] {
            let schema = json!({"properties": {"a": {name: "#x"}}});
            assert!(
                matches!(refused(&schema), SchemaError::Unsupported(_)),
                "{name}"
            );
        }
        for invalid in [
            json!({"type": "nothing"}),
            json!(1),
            json!({"pattern": "("}),
            json!({"pattern": "((a{1000}){1000}){9}"}),
        ] {
            assert!(
                matches!(refused(&invalid), SchemaError::Invalid(_)),
                "{invalid}"
            );
        }
    }

    #[test]
    fn a_check_has_a_bound() {
        let alternatives: Vec<Value> = (0..1_000).map(|n| json!({"const": n})).collect();
        let schema = Schema::new(&json!({"items": {"anyOf": alternatives}})).unwrap();
        assert_eq!(schema.check(&json!([1, 2, 3])), Ok(()));
        let many = Value::from(vec!["x"; 100_000]);
        let faults = schema.check(&many).unwrap_err();
        assert!(faults[0].reason.contains("too many"), "{faults:?}");
    }

    #[test]
    fn expressions_are_few_and_what_they_cost_is_counted() {
        let many: Vec<Value> = (0..=PATTERNS_MAX)
            .map(|n| json!({"pattern": format!("a{n}")}))
            .collect();
        assert_eq!(
            refused(&json!({ "allOf": many })),
            SchemaError::TooManyPatterns
        );
        let names: serde_json::Map<String, Value> = (0..=PATTERNS_MAX)
            .map(|n| (format!("a{n}"), json!(true)))
            .collect();
        assert_eq!(
            refused(&json!({"patternProperties": names, "items": {}})),
            SchemaError::TooManyPatterns
        );
        let twice: Vec<Value> = vec![json!({"$ref": "#/$defs/some"}); 2];
        let some = &many[..=PATTERNS_MAX / 2];
        assert_eq!(
            refused(&json!({"$defs": {"some": {"allOf": some}}, "allOf": twice})),
            SchemaError::TooManyPatterns
        );
        assert!(
            matches!(
                refused(&json!({"pattern": "\\p{L}{900}"})),
                SchemaError::Invalid(_)
            ),
            "too large when compiled"
        );
        let slow: Vec<Value> = vec![json!({"pattern": "^(é?a*)+$"}); PATTERNS_MAX];
        let schema = Schema::new(&json!({ "allOf": slow })).unwrap();
        assert!(schema.check(&json!("é".repeat(100))).is_ok());
        let faults = schema.check(&json!("é".repeat(120_000))).unwrap_err();
        assert!(faults[0].reason.contains("too many"), "{faults:?}");
        let usual = [
            "^[\\w.+-]+@[\\w-]+\\.[\\w.]+$",
            "^\\d{4}-\\d{2}-\\d{2}$",
            "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
        ];
        for usual in usual {
            assert!(Schema::new(&json!({ "pattern": usual })).is_ok(), "{usual}");
        }
        // What data holds is never compiled.
        let draft =
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "format": "regex"});
        assert!(Schema::new(&draft).unwrap().check(&json!("(")).is_ok());
    }

    #[test]
    fn an_expression_is_matched_in_linear_time() {
        let schema = Schema::new(&json!({"pattern": "^(a+)+$"})).unwrap();
        assert!(schema.check(&json!("a".repeat(5_000) + "!")).is_err());
    }
}
