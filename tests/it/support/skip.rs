//! Tests that are left out where the machine cannot do what they need.

/// Says what is left out, and why. Where the suite is what decides (`CI`), that is a failure, unless the machine cannot have it at
/// all.
pub fn skip(what: &str, why: &str, can_be_had: bool) {
    #[expect(clippy::disallowed_methods, reason = "a setting of the tests")]
    let decides =
        std::env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"));
    assert!(!(decides && can_be_had), "{what}: {why}");
    eprintln!("skipped: {what}: {why}");
}
