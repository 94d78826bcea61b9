//! Topics and patterns: whatever parses keeps its text, matches itself and is covered by everything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewire::event::{Topic, TopicPattern};

fuzz_target!(|text: &str| {
    let (left, right) = text.split_once('\n').unwrap_or((text, text));
    if let Ok(topic) = Topic::parse(left) {
        assert_eq!(topic.as_str(), left);
        assert!(TopicPattern::parse(left).is_ok_and(|p| p.matches(left)));
    }
    if let (Ok(one), Ok(other)) = (TopicPattern::parse(left), TopicPattern::parse(right)) {
        assert!(TopicPattern::any().covers(&one) && one.covers(&one));
        assert!(TopicPattern::any().matches("a.b") && !one.to_regex().is_empty());
        if one.covers(&other) {
            // Any one topic that the other stands for is one that this one stands for.
            let example = other.as_str().replace('*', "x");
            assert!(other.matches(&example) && one.matches(&example));
        }
    }
});
