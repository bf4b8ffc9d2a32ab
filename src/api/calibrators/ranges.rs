//! The ranges that follow from what a calibrator knows.

use quantd_core::calibrate::Calibration;
use quantd_core::params::{Numerics, Range};
use quantd_core::{QuantError, Task};

/// One range a slice, in the type that they were asked for in.
#[derive(Debug)]
pub enum Ranges {
    /// In f32.
    F32(Vec<Range<f32>>),
    /// In f64.
    F64(Vec<Range<f64>>),
}

impl Ranges {
    /// Those for codes of `numerics`, in f64 where they are to be `wide`.
    ///
    /// # Errors
    /// Those of [`Calibration::ranges`].
    pub fn of(
        learnt: &Calibration,
        (numerics, wide): (&Numerics, bool),
        task: &Task,
    ) -> Result<Self, QuantError> {
        if wide {
            return learnt.ranges(numerics, task).map(Self::F64);
        }
        learnt.ranges(numerics, task).map(Self::F32)
    }
}
