//! Cursors: whatever is accepted is what this log writes for the same place; places come back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewire::event::{LogIdentity, Position};

fuzz_target!(|input: (&str, i64, i64)| {
    let (text, seq, at_ms) = input;
    let identity = LogIdentity {
        log_id: [7; 16],
        epoch: 2,
        epochs: vec![(1, 0), (2, 50)],
    };
    if let Ok(cursor) = identity.decode(text) {
        let writer = LogIdentity {
            epoch: cursor.epoch,
            ..identity.clone()
        };
        assert_eq!(writer.encode(cursor.position), text);
    }
    let position = Position {
        seq: seq & i64::MAX,
        at_ms: at_ms & ((1 << 47) - 1),
    };
    let text = identity.encode(position);
    assert!(
        identity
            .decode(&text)
            .is_ok_and(|cursor| cursor.position == position)
    );
});
