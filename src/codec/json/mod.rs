//! JSON with tensors in it.
//!
//! A request is an object with a few small members and one that may be most of
//! a gigabyte of numbers. The object is split into members without looking
//! into them ([`members`]); small ones become `serde_json` values
//! ([`read_value`]), arrays of numbers go straight into the buffer of a tensor
//! ([`read_tensor`]). Nothing recurses by what the input says.

mod members;
mod number;
mod read;
mod value;
mod write;

pub use members::{Member, members, members_up_to};
pub use read::{read_base64, read_tensor};
pub use value::read_value;
pub use write::{write_string, write_tensor};

#[cfg(test)]
mod tests;
