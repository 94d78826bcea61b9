//! The few MessagePack tokens that frame events: what is inside was encoded once already.

fn length_of(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// A string.
pub fn text(out: &mut Vec<u8>, text: &str) {
    let length = length_of(text.len());
    match u8::try_from(length) {
        Ok(short) if short < 32 => out.push(0xa0 | short),
        Ok(byte) => out.extend_from_slice(&[0xd9, byte]),
        Err(_) => {
            out.push(0xdb);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

/// The beginning of an array.
pub fn array(out: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short) if short < 16 => out.push(0x90 | short),
        _ => {
            out.push(0xdd);
            out.extend_from_slice(&length_of(length).to_be_bytes());
        }
    }
}

/// A whole number.
pub fn number(out: &mut Vec<u8>, value: u64) {
    out.push(0xcf);
    out.extend_from_slice(&value.to_be_bytes());
}

/// A boolean.
pub fn boolean(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_back() {
        for length in [0_usize, 1, 15, 16, 31, 32, 255, 256, 70_000] {
            let long = "x".repeat(length);
            let mut out = Vec::new();
            array(&mut out, 2);
            text(&mut out, &long);
            boolean(&mut out, true);
            assert_eq!(
                rmp_serde::from_slice::<(String, bool)>(&out).unwrap(),
                (long, true)
            );
            let mut out = Vec::new();
            array(&mut out, length);
            (0..length).for_each(|_| boolean(&mut out, false));
            assert_eq!(
                rmp_serde::from_slice::<Vec<bool>>(&out).unwrap().len(),
                length
            );
        }
    }
}
