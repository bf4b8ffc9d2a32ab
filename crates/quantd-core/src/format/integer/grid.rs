//! Elements as integers.

use std::marker::PhantomData;

use crate::format::slices::{Grid, Piece};
use crate::scheme::NanPolicy;
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{Code, Params};
use quantd_kernels::sums::LaneSums;
use quantd_kernels::{CodeSpec, Stores};

/// Codes of type `C`.
#[derive(Clone, Copy, Debug)]
pub(in crate::format) struct Integers<C> {
    how: CodeSpec,
    nan: NanPolicy,
    code: PhantomData<C>,
}

impl<C> Integers<C> {
    pub(in crate::format) const fn new(how: CodeSpec, nan: NanPolicy) -> Self {
        Self { how, nan, code: PhantomData }
    }
}

impl<T: Real, C: Code> Grid<T> for Integers<C> {
    type Code = C;

    fn encode(
        self,
        Piece { isa, x, params }: Piece<'_, T>,
        stores: Stores,
        codes: &mut [C],
        lanes: Option<&mut LaneSums>,
    ) {
        let how = CodeSpec { stores, ..self.how };
        match lanes {
            Some(lanes) => isa.encode(x, params, how, codes, lanes),
            None => isa.quantize(x, params, how, codes),
        }
    }

    fn measure(self, Piece { isa, x, params }: Piece<'_, T>, lanes: &mut LaneSums) {
        isa.measure(x, params, self.how, lanes);
    }

    fn nan(self, params: &Params<'_, T>, i: usize) -> i32 {
        match self.nan {
            NanPolicy::Refuse | NanPolicy::Keep | NanPolicy::Min => self.how.range.min,
            NanPolicy::Zero => params.zero_point(i),
            NanPolicy::Max => self.how.range.max,
        }
    }
}
