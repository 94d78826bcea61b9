//! MessagePack, a token at a time.
//!
//! # Invariants
//! - Nothing is reserved for a length that a header claims, and every claimed element takes at least one byte of input:
//!   a claim of four billion ends where the input ends.
//! - Skipping a value counts what is still to come instead of recursing.

/// What stands at one place of the input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    /// The bytes of a string, not yet known to be UTF-8.
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    /// So many values follow.
    Array(u32),
    /// So many pairs follow.
    Map(u32),
    Extension,
}

/// Why a token cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    #[error("it ends at byte {0}, within a value")]
    Truncated(usize),
    #[error("the byte {0} is 0xc1, which begins nothing")]
    Reserved(usize),
}

/// A place in the input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0 }
    }

    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) const fn is_at_end(&self) -> bool {
        self.at >= self.input.len()
    }

    /// Reads the next token; of an array or a map only its header.
    pub(super) fn token(&mut self) -> Result<Token<'a>, TokenError> {
        let marker_at = self.at;
        let [marker] = self.take::<1>()?;
        Ok(match marker {
            0x00..=0x7f => Token::Unsigned(u64::from(marker)),
            0x80..=0x8f => Token::Map(u32::from(marker & 0x0f)),
            0x90..=0x9f => Token::Array(u32::from(marker & 0x0f)),
            0xa0..=0xbf => Token::Text(self.bytes(u32::from(marker & 0x1f))?),
            0xc0 => Token::Nil,
            0xc1 => return Err(TokenError::Reserved(marker_at)),
            0xc2 => Token::Bool(false),
            0xc3 => Token::Bool(true),
            0xc4 | 0xd9 => {
                self.text_or_bytes(marker, |r| r.take().map(|b| u8::from_be_bytes(b).into()))?
            }
            0xc5 | 0xda => {
                self.text_or_bytes(marker, |r| r.take().map(|b| u16::from_be_bytes(b).into()))?
            }
            0xc6 | 0xdb => self.text_or_bytes(marker, |r| r.take().map(u32::from_be_bytes))?,
            0xc7 => self.extension(|r| r.take().map(|b| u8::from_be_bytes(b).into()))?,
            0xc8 => self.extension(|r| r.take().map(|b| u16::from_be_bytes(b).into()))?,
            0xc9 => self.extension(|r| r.take().map(u32::from_be_bytes))?,
            0xca => Token::Float(f64::from(f32::from_be_bytes(self.take()?))),
            0xcb => Token::Float(f64::from_be_bytes(self.take()?)),
            0xcc => Token::Unsigned(u8::from_be_bytes(self.take()?).into()),
            0xcd => Token::Unsigned(u16::from_be_bytes(self.take()?).into()),
            0xce => Token::Unsigned(u32::from_be_bytes(self.take()?).into()),
            0xcf => Token::Unsigned(u64::from_be_bytes(self.take()?)),
            0xd0 => Token::Signed(i8::from_be_bytes(self.take()?).into()),
            0xd1 => Token::Signed(i16::from_be_bytes(self.take()?).into()),
            0xd2 => Token::Signed(i32::from_be_bytes(self.take()?).into()),
            0xd3 => Token::Signed(i64::from_be_bytes(self.take()?)),
            0xd4..=0xd8 => self.extension(|_| Ok(1_u32 << (marker - 0xd4)))?,
            0xdc => Token::Array(u16::from_be_bytes(self.take()?).into()),
            0xdd => Token::Array(u32::from_be_bytes(self.take()?)),
            0xde => Token::Map(u16::from_be_bytes(self.take()?).into()),
            0xdf => Token::Map(u32::from_be_bytes(self.take()?)),
            0xe0..=0xff => Token::Signed(i8::from_be_bytes([marker]).into()),
        })
    }

    /// Passes over one value with all that it holds, and returns its bytes.
    pub(super) fn skip(&mut self) -> Result<&'a [u8], TokenError> {
        let from = self.at;
        let mut pending = 1_u64;
        while pending > 0 {
            let inner = match self.token()? {
                Token::Array(count) => u64::from(count),
                Token::Map(count) => u64::from(count).saturating_mul(2),
                _ => 0,
            };
            // Each step took a byte and adds less than 2^33: an input would have to be of 2^31 bytes to overflow.
            pending = pending.saturating_sub(1).saturating_add(inner);
        }
        Ok(self.input.get(from..self.at).unwrap_or_default())
    }

    fn text_or_bytes(
        &mut self,
        marker: u8,
        length: impl FnOnce(&mut Self) -> Result<u32, TokenError>,
    ) -> Result<Token<'a>, TokenError> {
        let length = length(self)?;
        let bytes = self.bytes(length)?;
        Ok(if marker >= 0xd9 {
            Token::Text(bytes)
        } else {
            Token::Bytes(bytes)
        })
    }

    fn extension(
        &mut self,
        length: impl FnOnce(&mut Self) -> Result<u32, TokenError>,
    ) -> Result<Token<'a>, TokenError> {
        let length = length(self)?;
        let [_kind] = self.take::<1>()?;
        self.bytes(length)?;
        Ok(Token::Extension)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], TokenError> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let bytes = rest
            .first_chunk::<N>()
            .ok_or(TokenError::Truncated(self.input.len()))?;
        self.at = self.at.saturating_add(N);
        Ok(*bytes)
    }

    fn bytes(&mut self, length: u32) -> Result<&'a [u8], TokenError> {
        let truncated = TokenError::Truncated(self.input.len());
        let length = usize::try_from(length).map_err(|_| truncated)?;
        let end = self.at.checked_add(length).ok_or(truncated)?;
        let bytes = self.input.get(self.at..end).ok_or(truncated)?;
        self.at = end;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(input: &[u8]) -> Result<Token<'_>, TokenError> {
        Reader::new(input).token()
    }

    #[test]
    fn every_kind_of_marker() {
        assert_eq!(token(&[0x7f]), Ok(Token::Unsigned(127)));
        assert_eq!(token(&[0xe0]), Ok(Token::Signed(-32)));
        assert_eq!(
            token(&[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0]),
            Ok(Token::Signed(i64::MIN))
        );
        assert_eq!(
            token(&[0xcf, 255, 255, 255, 255, 255, 255, 255, 255]),
            Ok(Token::Unsigned(u64::MAX))
        );
        assert_eq!(token(&[0xca, 0x3f, 0x80, 0, 0]), Ok(Token::Float(1.0)));
        assert_eq!(token(&[0xa2, b'a', b'b']), Ok(Token::Text(b"ab")));
        assert_eq!(token(&[0xda, 0, 1, b'a']), Ok(Token::Text(b"a")));
        assert_eq!(token(&[0xc4, 1, 9]), Ok(Token::Bytes(&[9])));
        assert_eq!(
            token(&[0xdd, 255, 255, 255, 255]),
            Ok(Token::Array(u32::MAX))
        );
        assert_eq!(token(&[0xd6, 255, 0, 0, 0, 1]), Ok(Token::Extension));
        assert_eq!(token(&[0xc7, 1, 5, 0]), Ok(Token::Extension));
        assert_eq!(token(&[0xc1]), Err(TokenError::Reserved(0)));
        assert_eq!(token(&[0xa2, b'a']), Err(TokenError::Truncated(2)));
        assert_eq!(token(&[]), Err(TokenError::Truncated(0)));
    }

    #[test]
    fn skipping_neither_recurses_nor_reserves() {
        let deep = vec![0x91; 10_000_000];
        assert_eq!(
            Reader::new(&deep).skip(),
            Err(TokenError::Truncated(10_000_000))
        );
        let claims = [0xdd, 255, 255, 255, 255].repeat(1_000_000);
        assert_eq!(
            Reader::new(&claims).skip(),
            Err(TokenError::Truncated(5_000_000))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_end(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&input);
            while reader.skip().is_ok() {}
        }
    }
}
