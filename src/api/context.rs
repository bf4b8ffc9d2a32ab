//! What a request may use: room in memory, time, and whether anybody still waits.

use serde_json::Value;

use quantd_codec::encoding::{self, Encoding};
use quantd_codec::{CodecError, Limits, Reason, json};
use quantd_core::Task;
use quantd_core::cost::Cost;
use quantd_core::tensor::Buffer;

use super::effort::Effort;
use super::error::Error;

/// What decoding and computing may use.
pub struct Context<'a> {
    /// Bounds on documents.
    pub limits: &'a Limits,
    /// Asks to stop.
    pub task: &'a Task,
    /// Bytes that the request may use beside its body without asking.
    pub spare: usize,
    /// Asks for room for so many bytes more.
    pub grow: &'a mut dyn FnMut(usize) -> Result<(), CodecError>,
    /// How long the work may be.
    pub effort: Effort,
}

impl Context<'_> {
    /// Takes room for `bytes`, of what is spare first.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] when there will never be enough, [`Kind::Overloaded`] when there is not at the moment.
    ///
    /// [`Kind::TooLarge`]: super::error::Kind::TooLarge
    /// [`Kind::Overloaded`]: super::error::Kind::Overloaded
    pub fn reserve(&mut self, bytes: usize) -> Result<(), Error> {
        Ok(self.take(bytes)?)
    }

    /// The same in the terms of a codec.
    ///
    /// # Errors
    /// [`Reason::TooLarge`] and [`Reason::NoRoom`], and [`Reason::Stopped`] once the work is to stop: codecs
    /// look for that by taking nothing.
    pub fn take(&mut self, bytes: usize) -> Result<(), CodecError> {
        if !self.effort.is_committed() {
            go_on(self.task)?;
        }
        self.foresee(bytes)?;
        self.spare -= bytes;
        Ok(())
    }

    /// Makes sure that `bytes` are spare, for what will ask for them little by little: before work is done in vain.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn foresee(&mut self, bytes: usize) -> Result<(), CodecError> {
        if let Some(more) = bytes.checked_sub(self.spare).filter(|more| *more > 0) {
            (self.grow)(more)?;
            self.spare = bytes;
        }
        Ok(())
    }

    /// Takes up work of that cost, before it is begun.
    ///
    /// # Errors
    /// Those of [`Effort::take`].
    pub fn afford(&mut self, cost: Cost) -> Result<(), Error> {
        self.effort.take(cost)
    }

    /// The bytes that a body decompresses to.
    ///
    /// # Errors
    /// [`Error`] when the content coding is broken or the limits are exceeded.
    pub fn inflate(&mut self, encoding: Encoding, bytes: &[u8]) -> Result<Buffer, Error> {
        let most = self.limits.max_bytes;
        let allowed = self.effort.inflatable(most);
        let mut grow = |bytes| {
            go_on(self.task)?;
            (self.grow)(bytes)
        };
        encoding::decode(encoding, bytes, allowed, &mut grow).map_err(|error| {
            let is_long = error.reason == Reason::TooLarge && allowed < most;
            if is_long { self.effort.outgrow() } else { error.into() }
        })
    }

    /// Gives back room that was reserved.
    pub const fn release(&mut self, bytes: usize) {
        self.spare = self.spare.saturating_add(bytes);
    }

    /// Reads the value of an option, which may be an array with an entry a slice.
    ///
    /// # Errors
    /// Those of [`json::read_value`], and when there is no room for what it holds.
    pub fn read_option(&mut self, text: &[u8], pointer: &str) -> Result<Value, Error> {
        self.reserve_option(text)?;
        Ok(json::read_value(text, pointer)?)
    }

    /// Reads the value of an option that may have a member for each tensor.
    ///
    /// # Errors
    /// As [`read_option`](Self::read_option).
    pub fn read_option_by_name(&mut self, text: &[u8], pointer: &str) -> Result<Value, Error> {
        self.reserve_option(text)?;
        Ok(json::read_value_up_to(text, pointer, self.limits.max_tensors)?)
    }

    /// Takes room for what is read of the text of an option.
    ///
    /// # Errors
    /// Those of [`Self::reserve`].
    pub fn reserve_option(&mut self, text: &[u8]) -> Result<(), Error> {
        /// Covered by what every request is admitted with.
        const SMALL: usize = 4 << 10;
        if text.len() > SMALL { self.reserve(json::bytes_of_value(text)) } else { Ok(()) }
    }
}

/// An error once the work is to stop.
fn go_on(task: &Task) -> Result<(), CodecError> {
    if task.is_cancelled() {
        return Err(CodecError::new(Reason::Stopped, "the work was stopped"));
    }
    Ok(())
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("limits", self.limits).finish_non_exhaustive()
    }
}
