//! stub
use super::*;
pub fn pack(_c: &[u8], _b: u32) -> Vec<u8> {
    todo!()
}
pub fn unpack(_p: &[u8], _b: u32, _s: bool, _n: usize) -> Result<Vec<u8>, CodecError> {
    todo!()
}
