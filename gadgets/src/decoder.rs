//! From bytes to frames.

use crate::wire::{Frame, HEAD, MAX_PAYLOAD, WireError};

/// Cuts a stream of bytes into frames. It reads nothing itself, and holds at most one frame beyond what is pushed.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Where the first frame that was not given out begins.
    start: usize,
}

impl Decoder {
    /// Takes bytes of the stream, in any portions.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame; `None` if more bytes are needed for it.
    ///
    /// # Errors
    /// If what comes next is not a frame. There is no way on from there.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let rest = &self.buffer[self.start..];
        let Some(&[a, b, c, d, kind]) = rest.first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > MAX_PAYLOAD {
            return Err(WireError::Oversized(length));
        }
        let Some(payload) = rest.get(HEAD..HEAD + length) else { return Ok(None) };
        let frame = Frame::decode(kind, payload)?;
        self.start += HEAD + length;
        Ok(Some(frame))
    }

    /// To be asked when the stream has ended.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if it ended within a frame.
    pub fn finish(&self) -> Result<(), WireError> {
        match self.buffer.len() - self.start {
            0 => Ok(()),
            left => Err(WireError::Truncated(left)),
        }
    }
}
