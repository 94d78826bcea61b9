//! Whether two JSON texts are the same value, as `jsonb` sees it: the order of keys, spaces and the way a number is written
//! do not count; of a key that comes twice the last does.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Whether two texts, each of one valid JSON value, are the same value. Their nesting is bounded by
/// [`DATA_DEPTH_MAX`](super::limits::DATA_DEPTH_MAX).
#[must_use]
pub fn is_same(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    match (a.as_bytes().first(), b.as_bytes().first()) {
        (Some(b'{'), Some(b'{')) => {
            let (Some(a), Some(b)) = (object(a), object(b)) else {
                return false;
            };
            a.len() == b.len()
                && a.iter()
                    .zip(&b)
                    .all(|((key, a), (other, b))| key == other && is_same(a.get(), b.get()))
        }
        (Some(b'['), Some(b'[')) => {
            let parse = serde_json::from_str::<Vec<&RawValue>>;
            let (Ok(a), Ok(b)) = (parse(a), parse(b)) else {
                return false;
            };
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| is_same(a.get(), b.get()))
        }
        (Some(b'"'), Some(b'"')) => {
            let parse = serde_json::from_str::<Cow<'_, str>>;
            matches!((parse(a), parse(b)), (Ok(a), Ok(b)) if a == b)
        }
        (Some(b'-' | b'0'..=b'9'), Some(b'-' | b'0'..=b'9')) => Decimal::of(a) == Decimal::of(b),
        _ => false,
    }
}

fn object(text: &str) -> Option<BTreeMap<Cow<'_, str>, &RawValue>> {
    serde_json::from_str(text).ok()
}

/// A number: its significant digits, and the power of ten of the last of them.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn of(text: &str) -> Self {
        let (is_negative, text) = text
            .strip_prefix('-')
            .map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0').trim_end_matches('0');
        let behind = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
        let zeros = all.len().saturating_sub(all.trim_end_matches('0').len());
        let exponent = exponent.parse().unwrap_or(i64::MAX);
        if digits.is_empty() {
            return Self {
                is_negative: false,
                digits: String::new(),
                exponent: 0,
            };
        }
        Self {
            is_negative,
            digits: digits.to_owned(),
            exponent: exponent
                .saturating_sub(behind)
                .saturating_add(i64::try_from(zeros).unwrap_or(i64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_jsonb_takes_for_the_same_is_the_same() {
        for (a, b) in [
            (
                r#"{"x":1,"y":[2,{"z":"é"}]}"#,
                r#"{ "y" : [2.0, {"z":"\u00e9"}], "x":10e-1 }"#,
            ),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            ("0", "-0.00e7"),
            ("1200", "1.2e3"),
            ("0.0012", "12E-4"),
            ("-1.50", "-15e-1"),
            ("[ ]", "[]"),
        ] {
            assert!(is_same(a, b) && is_same(b, a), "{a} {b}");
        }
        for (a, b) in [
            ("1", "-1"),
            ("1", "10"),
            ("9007199254740993", "9007199254740992"),
            ("1", "\"1\""),
            ("[1,2]", "[2,1]"),
            ("[1]", "[1,1]"),
            (r#"{"a":1}"#, r#"{"b":1}"#),
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#),
            ("null", "false"),
            ("{}", "[]"),
        ] {
            assert!(!is_same(a, b) && !is_same(b, a), "{a} {b}");
        }
    }
}
