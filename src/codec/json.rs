//! stub
use super::*;
use crate::tensor::*;
pub struct Member<'a> {
    pub key: Cow<'a, str>,
    pub value: &'a [u8],
    pub offset: usize,
}
pub fn members(_t: &[u8]) -> Result<Vec<Member<'_>>, CodecError> {
    todo!()
}
pub fn members_up_to(_t: &[u8], _m: usize) -> Result<Vec<Member<'_>>, CodecError> {
    todo!()
}
pub fn read_tensor(
    _t: &[u8],
    _d: DType,
    _s: Option<&Shape>,
    _p: &str,
    _l: &Limits,
) -> Result<Tensor, CodecError> {
    todo!()
}
pub fn read_base64(
    _t: &[u8],
    _d: DType,
    _s: &Shape,
    _p: &str,
    _l: &Limits,
) -> Result<Tensor, CodecError> {
    todo!()
}
pub fn read_value(_t: &[u8], _p: &str) -> Result<serde_json::Value, CodecError> {
    todo!()
}
pub fn write_tensor(_o: &mut Vec<u8>, _t: &Tensor) {
    todo!()
}
pub fn write_string(_o: &mut Vec<u8>, _t: &str) {
    todo!()
}
