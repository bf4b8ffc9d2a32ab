//! stub
use super::*;
use crate::tensor::*;
use std::sync::Arc;
pub fn read(_b: Arc<Buffer>, _l: &Limits) -> Result<Tensor, CodecError> {
    todo!()
}
pub fn header(_d: DType, _s: &Shape) -> Vec<u8> {
    todo!()
}
pub const MAGIC: &[u8] = b"\x93NUMPY";
