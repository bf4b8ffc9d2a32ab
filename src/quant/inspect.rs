//! stub
use super::layout::Layout;
use super::*;
use crate::kernels::real::Real;
pub struct Options {
    pub bins: usize,
    pub percentiles: Vec<f64>,
}
pub struct Histogram {
    pub edges: Vec<f64>,
    pub counts: Vec<u64>,
}
pub struct Statistics {
    pub count: u64,
    pub nan: u64,
    pub inf: u64,
    pub zeros: u64,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub mean: Option<f64>,
    pub std: Option<f64>,
    pub abs_max: Option<f64>,
    pub percentiles: Vec<(f64, Option<f64>)>,
    pub histogram: Histogram,
}
pub fn inspect<T: Real>(_v: &[T], _o: &Options, _c: &Cancel) -> Statistics {
    todo!()
}
