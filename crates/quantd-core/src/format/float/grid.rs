//! Elements as floats of few bits.

use std::marker::PhantomData;

use crate::format::slices::{Grid, Piece};
use crate::scheme::NanPolicy;
use quantd_kernels::Stores;
use quantd_kernels::minifloat::{FloatSpec, MiniFloat};
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{Code, Params};
use quantd_kernels::sums::LaneSums;

/// Codes of type `C`.
#[derive(Clone, Copy, Debug)]
pub(in crate::format) struct Floats<C> {
    spec: FloatSpec,
    nan: NanPolicy,
    code: PhantomData<C>,
}

impl<C> Floats<C> {
    pub(in crate::format) const fn new(spec: FloatSpec, nan: NanPolicy) -> Self {
        Self { spec, nan, code: PhantomData }
    }
}

/// How codes of `float` are made where what is too large saturates.
pub(in crate::format) const fn saturating(float: MiniFloat) -> FloatSpec {
    let (reciprocal, unsigned_zero) = (false, false);
    FloatSpec { float, reciprocal, saturate: true, unsigned_zero, stores: Stores::Temporal }
}

impl<T: Real, C: Code> Grid<T> for Floats<C> {
    type Code = C;

    fn encode(
        self,
        Piece { isa, x, params }: Piece<'_, T>,
        stores: Stores,
        codes: &mut [C],
        lanes: Option<&mut LaneSums>,
    ) {
        let spec = FloatSpec { stores, ..self.spec };
        // What they lose is known when they are made.
        isa.encode_floats(x, params, spec, codes, lanes.unwrap_or(&mut LaneSums::default()));
    }

    fn measure(self, Piece { isa, x, params }: Piece<'_, T>, lanes: &mut LaneSums) {
        isa.measure_floats(x, params, self.spec, lanes);
    }

    fn nan(self, _: &Params<'_, T>, _: usize) -> i32 {
        let FloatSpec { float, .. } = self.spec;
        let code = match self.nan {
            NanPolicy::Refuse | NanPolicy::Zero => 0,
            NanPolicy::Min => float.sign() | float.max,
            NanPolicy::Max => float.max,
            NanPolicy::Keep => float.nan.unwrap_or(0),
        };
        code.into()
    }
}
